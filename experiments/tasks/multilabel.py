"""Multilabel classification: binary labels for each image or clip, or for each step."""

from dataclasses import dataclass
from typing import Any

from experiments.numbers import percent
from experiments.options import TaskOptions
from experiments.tasks.kind import past_the_end
from experiments.tasks.labels import LabelTask


@dataclass(frozen=True)
class Options(TaskOptions):
    """Multilabel classification: several binary labels."""

    name = "multilabel"


class Multilabel(LabelTask):
    options = Options
    columns = ("image", "label")
    metrics = (
        ("accuracy", "accuracy", "max"),
        ("macro.roc_auc", "ROC AUC, macro", "max"),
        ("macro.average_precision", "average precision, macro", "max"),
        ("macro.f1", "F1, macro", "max"),
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

        return tasks.multilabel(spec.classes)

    def align_targets(self, split, predictions):
        import numpy as np

        past = past_the_end(split) if split.targets.ndim == 3 else None
        if past is None:
            return predictions, split.targets
        return predictions, np.where(past[..., None], np.nan, split.targets)

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
