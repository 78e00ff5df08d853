"""What runs are worth: `python -m experiments.report RUN [RUN…]`.

Evaluates a run's chosen checkpoint on the test examples, judges and diagnoses it, and
writes one page that needs nothing else, RUN/report.html; several runs are compared.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

from experiments.config import read_run
from experiments.errors import UsageError, explain
from experiments.reporting.page import Section, html, show


@dataclasses.dataclass(frozen=True)
class Options:
    """A report of a trained run, or a comparison of several."""

    runs: tuple[Path, ...]
    """Folders of runs, such as runs/digits."""
    out: Path | None = None
    """The page; default RUN/report.html, of several runs runs/comparison.html."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"


@dataclasses.dataclass(frozen=True)
class Judged:
    """A run, evaluated; `finished` is its report.json, None if it was stopped."""

    run: Path
    preset: str
    experiment: Any
    params: Any
    step: int
    last_step: int
    steps: int
    finished: dict[str, Any] | None
    rows: list[dict[str, Any]]
    known: tuple[Any, Any]  # predictions, and what they are judged by
    shown: Any  # which test examples those are
    losses: Any
    test: dict[str, Any]
    intervals: dict[str, tuple[float, float]]
    resamples: int
    model: dict[str, Any]
    eval_size: int
    environment: dict[str, Any]

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
    def judgeable(self) -> bool:
        """Whether the target of any test example is known."""
        return bool((self.losses == self.losses).any())


@dataclasses.dataclass(frozen=True)
class Report:
    """Where the page is, what is on it, its numbers as plain values, and the runs."""

    path: Path
    sections: list[Section]
    numbers: dict[str, Any]
    runs: list[Judged]

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"


def report(*runs: str | Path, out: str | Path | None = None) -> Report:
    """Judges runs, writes the page and prints the same.

    Args:
      *runs: folders of trained runs; one that was stopped half-way will do.
      out: the page; default RUN/report.html, of several runs runs/comparison.html.

    Returns:
      A `Report`.

    Raises:
      ValueError: if a folder holds no run, or no checkpoint yet.
    """
    from experiments.reporting import compare, sections
    from experiments.run import record

    if not runs:
        raise UsageError("no run named: give the folder of one, such as runs/digits")
    folders = [Path(run).expanduser() for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice: give each once")
    found = [judge(folder) for folder in folders]
    if len(found) == 1:
        (one,) = found
        title, lead = f"Run {one.run.resolve().name}", sections.head(one)
        parts = single(one)
        numbers = plain(one)
        path = Path(out) if out else one.run / "report.html"
    else:
        title, lead, parts, numbers = compare.comparison(found)
        path = Path(out) if out else Path("runs", "comparison.html")
    path = path.expanduser()
    record.write_bytes(path, html(title, lead, parts).encode())
    show(title, lead, parts)
    print(f"\nwritten to {path}")
    return Report(path, parts, numbers, found)


def judge(run: Path) -> Judged:
    """Evaluates a run on its test examples.

    Raises:
      ValueError: if the folder holds no run, or no checkpoint yet.
    """
    import jax
    import numpy as np

    from experiments.run import record
    from experiments.run.load_run import checkpoints_of, load_run
    from lstm_jax import metrics
    from lstm_jax.inspect.summary import temporary_bytes

    experiment, params = load_run(run)
    config, task = experiment.config, experiment.task
    with checkpoints_of(run, task) as checkpoints:
        last = checkpoints.latest_step()
        step = checkpoints.best_step() if config.tests_best else last
    test = experiment.dataset.splits["test"]
    batch = batch_shapes(test, experiment.eval_size())
    jitted = jax.jit(experiment.evaluate)
    compiled = jitted.lower(jax.eval_shape(lambda: params), batch).compile()
    run_eval = jitted if experiment.eval_widths else compiled
    _, predictions = experiment.evaluate_split(run_eval, params, test)
    path = run / "report.json"
    found = Judged(
        run=run,
        preset=read_run(run)["preset"],
        experiment=experiment,
        params=params,
        step=int(step),
        last_step=int(last),
        steps=experiment.steps,
        finished=json.loads(path.read_text("utf-8")) if path.exists() else None,
        rows=record.MetricsLog(run).rows(),
        known=experiment.aligned(test, predictions),
        shown=np.arange(len(test.inputs)),
        losses=np.zeros(0),
        test={"examples": 0},
        intervals={},
        resamples=metrics.RESAMPLES,
        model=summary(experiment, params) | {"eval_bytes": temporary_bytes(compiled)},
        eval_size=experiment.eval_size(),
        environment=record.environment(),
    )
    if len(found.known[1]) < len(test.inputs):
        found = dataclasses.replace(found, shown=np.flatnonzero(test.targets >= 0))
    if not len(found.known[1]):
        return found
    found = dataclasses.replace(
        found,
        test=task.report(*found.known),
        intervals=metrics.bootstrap(
            task.weighted_scores(*found.known), len(found.known[1])
        ),
        losses=task.example_losses(*found.known),
    )
    more = experiment.kind.extra_metrics(found)
    return dataclasses.replace(found, test=found.test | more)


def batch_shapes(split, count: int) -> dict[str, Any]:
    """A batch of a split by its shapes."""
    import jax

    from experiments.experiment import arrays

    fields = {
        name: jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype)
        for name, array in arrays(split).items()
    }
    return fields | {"mask": jax.ShapeDtypeStruct((count,), "float32")}


def summary(experiment, params) -> dict[str, Any]:
    """Layers, FLOPs of an example's forward pass, and bytes."""
    import jax

    from experiments import optimization
    from lstm_jax.inspect.summary import (
        flops,
        layers,
        parameters,
        temporary_bytes,
        tree_bytes,
    )

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


def single(judged: Judged) -> list[Section]:
    """The sections of one run; those that say nothing of it are left out."""
    from experiments.reporting import sections
    from experiments.reporting.diagnosis import diagnosis

    parts = [
        sections.metrics(judged),
        sections.curves(judged),
        sections.mistakes(judged),
        sections.calibration(judged),
        diagnosis(judged),
        sections.model(judged),
        sections.configuration(judged),
        sections.environment(judged),
    ]
    return [part for part in parts if part is not None]


def plain(judged: Judged) -> dict[str, Any]:
    """The numbers of one run, as JSON can hold them."""
    numbers = {k: v for k, v in judged.model.items() if k not in ("layers", "flops")}
    return {
        "run": str(judged.run),
        "step": judged.step,
        "finished": judged.finished is not None,
        "test": judged.test,
        "intervals": {name: list(pair) for name, pair in judged.intervals.items()},
        "model": numbers | {"flops": judged.model["flops"].total},
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 2 for a mistake, with one clear message."""
    import tyro

    options = tyro.cli(
        Options,
        args=arguments,
        prog="python -m experiments.report",
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    try:
        from lstm_jax import training

        training.select_accelerator(options.accelerator)
        report(*options.runs, out=options.out)
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
