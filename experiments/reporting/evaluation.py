"""`Evaluation`: a run evaluated on its test split, for reports."""

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
    """A run evaluated on its test split.

    Attributes:
      run: its folder.
      preset: its preset.
      experiment: of the run.
      params: of the checkpoint at `step`.
      step: of the evaluated checkpoint.
      last_step: of the last checkpoint.
      finished: contents of report.json; None if the run is unfinished.
      rows: of metrics.jsonl.
      known: predictions and targets of the test examples with a known target.
      shown: indices of these examples.
      losses: of these examples; NaN where the target is unknown.
      test: test metrics.
      intervals: 95 % intervals by metric.
      model: layers, FLOPs of one example's forward pass, and memory in bytes.
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
        """The configuration of the run."""
        return self.experiment.config

    @property
    def kind(self):
        """The `TaskKind` of the run."""
        return self.experiment.kind

    @property
    def spec(self):
        """The `DataSpec` of the run."""
        return self.experiment.spec

    @property
    def task(self):
        """The loss, metrics and figures of the task."""
        return self.experiment.task

    @property
    def dataset(self):
        """The data set of the run."""
        return self.experiment.dataset

    @property
    def has_targets(self) -> bool:
        """Whether any test example has a known target."""
        return bool((self.losses == self.losses).any())


def evaluate(run: Path) -> Evaluation:
    """Evaluates the selected checkpoint of a run on its test split.

    Raises:
      ValueError: the folder contains no run, or no checkpoint.
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
    """The shapes and dtypes of a batch of a split."""
    fields = {
        name: jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype)
        for name, array in arrays(split).items()
    }
    return fields | {"mask": jax.ShapeDtypeStruct((count,), "float32")}


def summary(experiment, params) -> dict[str, Any]:
    """Layers, FLOPs of one example's forward pass, and memory in bytes."""
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
