"""A run, evaluated on its test examples: all that a report tells of it."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import optimization
from experiments.config import read_run
from experiments.experiment import Experiment, arrays
from experiments.run.load_run import checkpoints_of, load_run, rows_of
from experiments.run.sealed import read_sealed
from lstm_jax import metrics
from lstm_jax.inspect.summary import (
    flops,
    layers,
    parameters,
    temporary_bytes,
    tree_bytes,
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A run, evaluated.

    Attributes:
      run: its folder.
      preset: that it was trained by.
      experiment, params: of the checkpoint of `step`.
      step: of the checkpoint that is evaluated.
      last_step: of the last checkpoint.
      finished: its report.json, None if it was stopped.
      rows: of metrics.jsonl.
      known: predictions and targets of the test examples that can be compared.
      shown: which test examples those are.
      losses: of each of them, NaN where no target is known.
      test: metrics.
      intervals: of metrics, by name.
      model: layers, FLOPs of an example's forward pass, and bytes.
    """

    run: Path
    preset: str
    experiment: Experiment
    params: Any
    step: int
    last_step: int
    finished: dict[str, Any] | None
    rows: list[dict[str, Any]]
    known: tuple[np.ndarray, np.ndarray]
    shown: np.ndarray
    losses: np.ndarray
    test: dict[str, Any]
    intervals: dict[str, tuple[float, float]]
    model: dict[str, Any]

    @property
    def config(self):
        """Of the run."""
        return self.experiment.config

    @property
    def kind(self):
        """Of its task."""
        return self.experiment.kind

    @property
    def spec(self):
        """What its network remembers of the data."""
        return self.experiment.spec

    @property
    def task(self):
        """Its loss, metrics and figures."""
        return self.experiment.task

    @property
    def dataset(self):
        """Its examples."""
        return self.experiment.dataset

    @property
    def has_targets(self) -> bool:
        """Whether the target of any test example is known."""
        return bool((self.losses == self.losses).any())


def evaluate(run: Path) -> Evaluation:
    """Evaluates a run on its test examples.

    Raises:
      ValueError: if the folder holds no run, or no checkpoint yet.
    """
    experiment, params = load_run(run)
    config, task = experiment.config, experiment.task
    with checkpoints_of(run, task) as checkpoints:
        last = checkpoints.latest_step()
        step = checkpoints.best_step() if config.tests_best else last
        rows = rows_of(run, checkpoints)
    test = experiment.dataset.splits["test"]
    batch = batch_shapes(test, experiment.eval_size())
    jitted = jax.jit(experiment.evaluate)
    compiled = jitted.lower(jax.eval_shape(lambda: params), batch).compile()
    run_eval = jitted if experiment.eval_widths else compiled
    _, predictions = experiment.evaluate_split(run_eval, params, test)
    known = experiment.aligned(test, predictions)
    count = len(known[1])
    shown = np.arange(len(test.inputs))
    found = Evaluation(
        run=run,
        preset=read_run(run)["preset"],
        experiment=experiment,
        params=params,
        step=int(step),
        last_step=int(last),
        finished=read_sealed(run / "report.json"),
        rows=rows,
        known=known,
        shown=shown if count == len(shown) else np.flatnonzero(test.targets >= 0),
        losses=task.example_losses(*known) if count else np.zeros(0),
        test=task.report(*known) if count else {"examples": 0},
        intervals=(
            metrics.bootstrap(task.weighted_scores(*known), count) if count else {}
        ),
        model=summary(experiment, params) | {"eval_bytes": temporary_bytes(compiled)},
    )
    more = experiment.kind.extra_metrics(found) if count else {}
    return dataclasses.replace(found, test=found.test | more)


def batch_shapes(split, count: int) -> dict[str, Any]:
    """A batch of a split by its shapes."""
    fields = {
        name: jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype)
        for name, array in arrays(split).items()
    }
    return fields | {"mask": jax.ShapeDtypeStruct((count,), "float32")}


def summary(experiment, params) -> dict[str, Any]:
    """Layers, FLOPs of an example's forward pass, and bytes."""
    shapes = jax.eval_shape(lambda: params)
    config, train = experiment.config, experiment.split
    tx = optimization.optimizer(config, optimization.schedule(config, steps=1))
    loss = experiment.loss
    batch = batch_shapes(train, config.batch_size)
    batch["progress"] = batch["mask"]
    keys = jax.eval_shape(
        lambda: jax.random.split(jax.random.key(0), config.batch_size)
    )
    gradient = jax.jit(jax.grad(lambda *a: loss(*a)[0][0]))
    one = batch_shapes(train, 1)
    return {
        "layers": layers(
            experiment.network.module, shapes, experiment.spec.image_shape
        ),
        "parameters": parameters(shapes),
        "flops": flops(lambda p, b: experiment.apply(p, b)[0], shapes, one),
        "parameter_bytes": tree_bytes(shapes),
        "optimizer_bytes": tree_bytes(jax.eval_shape(tx.init, shapes)),
        "train_bytes": temporary_bytes(gradient.lower(shapes, batch, keys).compile()),
    }
