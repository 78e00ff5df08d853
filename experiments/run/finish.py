"""The end of a run: its report, its figures and its predictions."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evaluation.baselines import Fitted, compare, fit
from experiments.evaluation.forgetting import forgetting
from experiments.evaluation.measured import tested_splits
from experiments.experiment import Experiment
from experiments.run import record
from experiments.run.display import Display, closing, diagnosis_lines
from experiments.run.folder import steady_rate
from experiments.run.loggers import Logger
from experiments.run.sealed import write_sealed
from lstm_jax import training
from lstm_jax.figures import curves
from lstm_jax.inspect.results import read_results
from lstm_jax.inspect.summary import parameters


def choose(
    experiment: Experiment, checkpoints: Any, display: Display, state: Any
) -> training.TrainState:
    """The state to test: the last one, or the best checkpoint."""
    config, reached = experiment.config, int(state.step)
    if reached < experiment.steps:
        display.note(
            f"early stopping at step {reached:,}: no better "
            f"{experiment.task.monitor} in {config.early_stopping_patience} "
            "validations; testing the best checkpoint"
        )
    chosen = checkpoints.best_step() if config.tests_best else reached
    return state if chosen == reached else checkpoints.restore(state, chosen)


def make_report(
    experiment: Experiment,
    state: training.TrainState,
    predictions: Mapping[str, np.ndarray],
    steps: int,
    rows: Sequence[dict[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
    *,
    compared: bool = False,
    baselines: Mapping[str, Fitted] | None = None,
) -> dict[str, Any]:
    """The contents of report.json.

    Args:
      experiment: of the run.
      state: the tested state.
      predictions: for each of `tested_splits`.
      steps: number of training steps.
      rows: of metrics.jsonl.
      facts: of all splits, from `measured.measure`.
      compared: whether to compare with baselines, and with the run given by
        `--init-from`.
      baselines: from `baselines.fit`; None: they are fitted here.
    """
    dataset, scores, facts = experiment.dataset, {}, facts or {}
    for name, split in tested_splits(dataset).items():
        known = experiment.aligned(split, predictions[name])
        labelled = len(known[1]) > 0
        scores[name] = experiment.task.report(*known) if labelled else {"examples": 0}
        if labelled:
            experiment.kind.add_tuned(scores[name], known, facts.get("tuned", {}))
    sizes = {name: len(split.inputs) for name, split in dataset.splits.items()}
    comparison = {"baselines": {}}
    if compared:
        fitted = fit(experiment) if baselines is None else baselines
        comparison = {
            "baselines": compare(experiment, fitted, predictions["test"]),
            **forgetting(experiment, training.weights(state)),
        }
    report = {
        **scores,
        **facts,
        "data": {
            "examples": sizes,
            "notes": list(dataset.notes),
            "duplicates": experiment.duplicates.counts(),
        },
        "train": {
            "steps": steps,
            "checkpoint": int(state.step),
            "images": sizes["train"],
            "images_per_second": steady_rate(rows),
        },
        "model": {"parameters": parameters(state.params)},
        **comparison,
        "environment": record.environment(),
    }
    found = [diagnostic._asdict() for diagnostic in read_results(report)]
    return report | {"diagnosis": found}


def write(
    experiment: Experiment,
    log: record.MetricsLog,
    report: dict[str, Any],
    predictions: Mapping[str, np.ndarray],
    callbacks: Sequence[training.Callback] = (),
) -> dict[str, Any]:
    """Writes the report, the figures and the predictions, and calls the loggers.

    Returns:
      The figures by name.
    """
    directory = log.path.parent
    known = experiment.aligned(experiment.dataset.splits["test"], predictions["test"])
    figures = experiment.task.figures(*known) if len(known[1]) else {}
    figures["curves"] = curves(log.rows())
    write_sealed(directory / "report.json", report)
    for title, figure in figures.items():
        record.save_figure(directory / f"{title}.png", figure)
    experiment.kind.save_outputs(experiment, predictions["test"], directory)
    images = sorted(directory.glob("*.png"))
    for callback in callbacks:
        if isinstance(callback, Logger):
            callback.on_report(report["train"]["steps"], report["test"], images)
    log.write_csv()
    return figures


def closing_notes(
    experiment: Experiment, report: dict[str, Any], directory: Path, figures: dict
) -> list[Any]:
    """What a run prints at its end: results, diagnosis, files and next commands."""
    run = shlex.quote(str(directory))
    commands = [
        f"next: python -m experiments.report {run}",
        f"      python -m experiments.predict {run} FILES…",
    ]
    return [
        closing(experiment, report),
        *diagnosis_lines(report),
        f"written to {directory}/: report.json and {', '.join(figures)} (.png)",
        *(commands if experiment.config.folds is None else ()),
    ]
