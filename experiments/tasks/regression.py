"""Regression: numbers for each image or clip."""

from dataclasses import dataclass
from typing import Any, Literal

from experiments.options import TaskOptions
from experiments.tasks.labels import LabelTask


@dataclass(frozen=True)
class Options(TaskOptions):
    """Regression: numbers for each image or clip."""

    name = "regression"
    loss: Literal["mse", "huber"] = "mse"
    unit: str = ""
    """Unit of the targets, for tables and figures."""


class Regression(LabelTask):
    options = Options
    metrics = (
        ("mae", "mean absolute error", "min"),
        ("rmse", "root mean squared error", "min"),
        ("r2", "R²", "max"),
        ("bias", "bias", ""),
        ("loss", "loss", "min"),
    )
    headlines = ("mae", "rmse", "r2")
    by_class = ("output", ("mae", "rmse", "r2", "bias"))
    columns = ("image", "value")

    def measure_targets(self, dataset) -> dict[str, Any]:
        targets = dataset.splits["train"].targets
        return dict(
            outputs=targets.shape[1],
            target_offset=float(targets.mean()),
            target_scale=float(targets.std()) or 1.0,
        )

    def objective(self, config, spec):
        from lstm_jax import tasks

        return tasks.regression(
            spec.outputs,
            loss=config.task.loss,
            unit=config.task.unit,
            offset=spec.target_offset,
            scale=spec.target_scale,
        )

    score, rate = "mae", False
    baseline_metrics = ("mae", "rmse", "r2", "bias")

    def baselines(self, config):
        from experiments.evaluation import baselines as made

        return {
            "mean": made.Baseline(made.mean_target, trivial=True),
            "nearest_neighbour": made.Baseline(made.nearest_neighbour, trivial=False),
        }

    def example_scores(self, predictions, targets):
        return abs(predictions - targets).mean(-1)

    def describe(self, spec, seen, output, path) -> dict[str, Any]:
        return {"value": values_of(output.tolist())}

    def row(self, prediction):
        value = prediction["value"]
        values = value if isinstance(value, list) else [value]
        return prediction["path"], ", ".join(f"{value:.4g}" for value in values)

    def class_rows(self, test):
        return [{"name": str(k)} | row for k, row in enumerate(test["per_output"])]

    def caption(self, spec, prediction, target) -> str:
        import numpy as np

        true, predicted = (
            ", ".join(f"{x:.4g}" for x in np.ravel(a)) for a in (target, prediction)
        )
        return f"true: {true}\npredicted: {predicted}"


def values_of(output: list[float]) -> float | list[float]:
    """The number itself if there is one, else the list."""
    return output[0] if len(output) == 1 else output


KIND = Regression()
