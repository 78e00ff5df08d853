"""Classification: one class of several for each image or clip."""

from dataclasses import dataclass
from typing import Any, Literal

from experiments.choices import Amount, Fraction
from experiments.options import TaskOptions
from experiments.tasks.labels import LabelTask, focal_gamma


@dataclass(frozen=True)
class Options(TaskOptions):
    """One class of several."""

    name = "classification"
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread over all classes."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Cross-entropy, or the focal loss, in which easy examples count less."""
    gamma: Amount | None = None
    """Of the focal loss: how much less; default 2."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the loss by class; balanced: n / (K n_k), so that all classes count
    alike."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """Each training example once an epoch, or every class equally often."""


class Classification(LabelTask):
    options = Options
    answers_right_or_wrong = True
    metrics = (
        ("accuracy", "accuracy", "max"),
        ("balanced_accuracy", "balanced accuracy", "max"),
        ("top5_accuracy", "top-5 accuracy", "max"),
        ("macro.f1", "F1, macro", "max"),
        ("macro.roc_auc", "ROC AUC, macro", "max"),
        ("macro.average_precision", "average precision, macro", "max"),
        ("loss", "cross-entropy", "min"),
        ("brier", "Brier score", "min"),
        ("ece", "expected calibration error", "min"),
    )
    headlines = ("accuracy", "macro.f1", "macro.roc_auc", "ece")
    by_class = (
        "class",
        ("precision", "recall", "f1", "roc_auc", "average_precision", "support"),
    )

    def objective(self, config, spec):
        from lstm_jax import tasks

        return tasks.classification(
            spec.classes,
            label_smoothing=config.task.label_smoothing,
            class_weights=spec.class_weights,
            gamma=focal_gamma(config.task),
        )

    def balanced_weights(self, dataset):
        from lstm_jax.tasks.classification import balanced_class_weights

        targets = dataset.splits["train"].targets
        return balanced_class_weights(targets, len(dataset.classes))

    def sampler(self, config, split, seed):
        from lstm_jax import data

        balanced = config.task.sampler == "balanced"
        return {"order": data.balanced_order(split.targets, seed)} if balanced else {}

    def align_targets(self, split, predictions):
        known = split.targets >= 0
        if known.all():
            return predictions, split.targets
        return predictions[known], split.targets[known]

    score = "accuracy"
    baseline_metrics = ("accuracy", "balanced_accuracy", "macro.f1")

    def baselines(self, config):
        from experiments.evaluation import baselines as made

        return {
            "majority": made.Baseline(made.majority, trivial=True),
            "nearest_neighbour": made.Baseline(made.nearest_neighbour, trivial=False),
            "svc": made.Baseline(made.support_vector_machine, trivial=False),
        }

    def relabelled(self, dataset, classes):
        import numpy as np

        if not set(dataset.classes) <= set(classes):
            return None
        # an unknown target, -1, stays one
        table = np.int32([*(classes.index(name) for name in dataset.classes), -1])
        splits = {
            name: split._replace(targets=table[split.targets])
            for name, split in dataset.splits.items()
        }
        return dataset._replace(splits=splits, classes=tuple(classes))

    def fewest(self, split, classes):
        import numpy as np

        known = split.targets[split.targets >= 0]
        counts = np.bincount(known, minlength=len(classes))
        rarest = int(counts.argmin())
        return {"name": classes[rarest], "examples": int(counts[rarest])}

    def example_scores(self, predictions, targets):
        return predictions.argmax(-1) == targets

    def describe(self, spec, seen, output, path) -> dict[str, Any]:
        return best_of(spec.classes, output.tolist())

    def row(self, answer):
        return answer["path"], answer["label"], f"{100 * answer['confidence']:.1f} %"

    def extra_metrics(self, evaluation) -> dict[str, Any]:
        import numpy as np

        from lstm_jax import metrics
        from lstm_jax.tasks.classification import one_against_rest

        known, test = evaluation.known, evaluation.test
        precisions = metrics.average_precisions(one_against_rest(*known))
        each = [p for p in precisions if p is not None]
        for row, precision in zip(test["per_class"], precisions, strict=True):
            row["average_precision"] = precision
        test["macro"]["average_precision"] = float(np.mean(each)) if each else None
        calibration = metrics.reliability(*known)
        return {"brier": metrics.brier(*known), "ece": calibration.ece}

    def figures(self, evaluation):
        from experiments.reporting import worst
        from lstm_jax.tasks.classification import one_against_rest

        pairs = one_against_rest(*evaluation.known)
        return [worst.precision_recall(pairs, evaluation.spec.classes)]

    def caption(self, spec, prediction, target) -> str:
        best = int(prediction.argmax())
        return (
            f"says: {spec.classes[best]} ({100 * prediction[best]:.1f} %)\n"
            f"true: {spec.classes[target]} ({100 * prediction[target]:.1f} %)"
        )


def best_of(classes: list[str], probabilities: list[float]) -> dict[str, Any]:
    """The most probable class, and all of them."""
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return {
        "label": classes[best],
        "confidence": probabilities[best],
        "probabilities": dict(zip(classes, probabilities, strict=True)),
    }


KIND = Classification()
