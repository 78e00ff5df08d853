"""Multilabel classification: binary labels for each image or clip, or for each step."""

from dataclasses import dataclass
from typing import Any, Literal

from experiments.choices import Amount
from experiments.numbers import percent
from experiments.options import TaskOptions
from experiments.tasks.kind import past_the_end
from experiments.tasks.labels import LabelTask, focal_gamma


@dataclass(frozen=True)
class Options(TaskOptions):
    """Multilabel classification: several binary labels."""

    name = "multilabel"
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Cross-entropy, or the focal loss, in which easy entries count less."""
    gamma: Amount | None = None
    """Of the focal loss: how much less; default 2."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the loss; balanced: yes and no of each label count alike."""


class Multilabel(LabelTask):
    options = Options
    columns = ("image", "label")
    metrics = (
        ("accuracy", "accuracy", "max"),
        ("macro.roc_auc", "ROC AUC, macro", "max"),
        ("macro.average_precision", "average precision, macro", "max"),
        ("macro.f1", "F1, macro", "max"),
        ("macro.tuned_f1", "F1, macro, thresholds of validation", "max"),
        ("loss", "cross-entropy", "min"),
    )
    headlines = ("macro.roc_auc", "macro.average_precision", "accuracy")
    by_class = (
        "label",
        ("roc_auc", "average_precision", "f1", "precision", "recall", "support"),
    )

    def measure_targets(self, dataset) -> dict[str, Any]:
        by_step = dataset.splits["train"].targets.ndim == 3
        return super().measure_targets(dataset) | dict(per_step=by_step)

    def objective(self, config, spec):
        from lstm_jax import tasks

        return tasks.multilabel(
            spec.classes,
            class_weights=spec.class_weights,
            gamma=focal_gamma(config.task),
        )

    def balanced_weights(self, dataset):
        from lstm_jax.tasks.multilabel import balanced_label_weights

        targets = dataset.splits["train"].targets
        return balanced_label_weights(targets, len(dataset.classes))

    def align_targets(self, split, predictions):
        import numpy as np

        past = past_the_end(split) if split.targets.ndim == 3 else None
        if past is None:
            return predictions, split.targets
        return predictions, np.where(past[..., None], np.nan, split.targets)

    score, tunes = "accuracy", True
    baseline_metrics = ("accuracy", "macro.f1")

    def baselines(self, config):
        from experiments.evaluation import baselines as made

        return {
            "share of each label": made.Baseline(made.mean_target, trivial=True),
            "nearest_neighbour": made.Baseline(made.nearest_neighbour, trivial=False),
        }

    def tune(self, predictions, targets):
        from lstm_jax.tasks.multilabel import best_thresholds

        width = targets.shape[-1]
        return {"thresholds": best_thresholds(predictions, targets, width).tolist()}

    def add_tuned(self, test, known, tuned):
        from lstm_jax.tasks.multilabel import scores_at

        if "thresholds" not in tuned:
            return
        cuts = tuned["thresholds"]
        found = scores_at(*known, cuts)
        for row, cut, scores in zip(test["per_label"], cuts, found, strict=True):
            row["threshold"] = cut
            row["tuned_f1"] = scores and scores["f1"]
        values = [scores["f1"] for scores in found if scores]
        test["macro"]["tuned_f1"] = sum(values) / len(values) if values else None

    def extra_metrics(self, evaluation):
        tuned = (evaluation.finished or {}).get("tuned", {})
        self.add_tuned(evaluation.test, evaluation.known, tuned)
        return {}

    def example_scores(self, predictions, targets):
        import numpy as np

        known = ~np.isnan(targets)
        right = ((predictions >= 0.5) == (targets >= 0.5)) & known
        axes = tuple(range(1, targets.ndim))
        count = known.sum(axes)  # of an example without a known label nothing is wrong
        return np.where(count, right.sum(axes) / np.maximum(count, 1), 1.0)

    def describe(self, spec, seen, output, path) -> dict[str, Any]:
        columns = output[: len(seen)] if output.ndim == 2 else output
        return {
            "probabilities": dict(zip(spec.classes, columns.T.tolist(), strict=True))
        }

    def row(self, prediction):
        likely = {
            name: max(p) if isinstance(p, list) else p
            for name, p in prediction["probabilities"].items()
        }
        words = ", ".join(f"{name} {percent(p)}" for name, p in likely.items())
        return prediction["path"], words

    def class_rows(self, test):
        return test["per_label"]

    def figures(self, evaluation):
        from experiments.reporting import worst
        from lstm_jax.tasks.multilabel import known_entries

        classes = evaluation.spec.classes
        pairs = known_entries(*evaluation.known, len(classes))
        return [worst.precision_recall(pairs, classes)]

    def caption(self, spec, prediction, target) -> str:
        import numpy as np

        wrong = np.where(np.isnan(target), -1, np.abs(target - prediction))
        place = np.unravel_index(wrong.argmax(), wrong.shape)
        step = f", step {place[0]}" if wrong.ndim == 2 else ""
        word = "yes" if target[place] else "no"
        return (
            f"{spec.classes[place[-1]]}{step}\ntrue: {word}\n"
            f"predicted: {percent(prediction[place])} yes"
        )


KIND = Multilabel()
