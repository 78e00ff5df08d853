"""Ordinal regression: one of K grades in an order, such as of a disease.

The network has K - 1 outputs: a threshold, and how far each of the next ones is below
the one before, so that P(grade > k) falls with k (McCullagh 1980, section 2).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.options import TaskOptions
from experiments.tasks.kind import TaskKind
from experiments.tasks.labels import LabelTask
from lstm_jax.metrics.bootstrap import weighted_means
from lstm_jax.tasks.task import Task, check_predictions, masked


@dataclass(frozen=True)
class Options(TaskOptions):
    """One of several grades in an order."""

    name = "ordinal"
    temperature: float = 1.0
    """Divides the outputs."""


class Ordinal(LabelTask):
    options = Options
    models = ("classifier", "bag_of_patches")
    metrics = (("mae", "grades off, on average", "min"), ("loss", "loss", "min"))
    headlines = ("mae",)

    def check_data(self, config, dataset) -> None:
        TaskKind.check_data(self, config, dataset)

    def measure_targets(self, dataset) -> dict[str, Any]:
        return dict(outputs=len(dataset.classes) - 1)

    def objective(self, config, spec):
        return objective(len(spec.classes), config.task.temperature)

    def describe(self, spec, seen, output, path) -> dict[str, Any]:
        return {"label": spec.classes[int(output.argmax())]}

    def row(self, answer):
        return answer["path"], answer["label"], ""

    def caption(self, spec, prediction, target) -> str:
        return (
            f"true: {spec.classes[target]}\nsays: {spec.classes[prediction.argmax()]}"
        )


def objective(grades: int, temperature: float) -> Task:
    """The loss and metrics; predictions are probabilities [B, K] of the grades."""
    ranks = np.arange(grades)

    def probabilities(outputs):
        falls = jax.nn.softplus(outputs[:, 1:])
        logits = jnp.cumsum(jnp.concatenate([outputs[:, :1], -falls], 1), 1)
        above = jax.nn.sigmoid(logits / temperature)  # P(grade > k)
        ends = jnp.ones_like(above[:, :1])
        above = jnp.concatenate([ends, above, 0 * ends], 1)
        return above[:, :-1] - above[:, 1:]

    def loss(outputs, batch):
        of_targets = jax.nn.one_hot(batch["targets"], grades)
        chances = (probabilities(outputs) * of_targets).sum(-1)
        return masked(-jnp.log(chances + 1e-7), batch["mask"])

    def metrics(outputs, batch):
        expected = probabilities(outputs) @ ranks.astype(np.float32)
        off = jnp.abs(expected - batch["targets"].astype(jnp.float32))
        return {"loss": loss(outputs, batch), "mae": masked(off, batch["mask"])}

    def example_losses(predictions, targets):
        predictions, targets = check_predictions(
            "ordinal", predictions, targets, width=grades
        )
        return np.abs(predictions @ ranks - targets)

    def report(predictions, targets):
        off = example_losses(predictions, targets)
        chances = predictions[np.arange(len(targets)), targets]
        return {
            "task": "ordinal",
            "examples": len(targets),
            "mae": float(off.mean()),
            "loss": float(-np.log(chances + 1e-7).mean()),
        }

    def weighted_scores(predictions, targets):
        columns = {"mae": example_losses(predictions, targets)}
        return lambda weights: weighted_means(columns, weights)

    return Task(
        name="ordinal",
        outputs=grades - 1,
        loss=loss,
        metrics=metrics,
        predict=probabilities,
        monitor="mae",
        mode="min",
        report=report,
        figures=lambda predictions, targets: {},
        example_losses=example_losses,
        weighted_scores=weighted_scores,
    )


KIND = Ordinal()
