"""Metrics of a trained network on all splits, for its report."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.experiment import Experiment
from lstm_jax import data, metrics
from lstm_jax.inspect.results import is_small

MOST = 500  # training examples that are evaluated, to compare with the test split


def tested_splits(dataset: data.Dataset) -> dict[str, data.Split]:
    """The splits that a finished run is evaluated on, by name."""
    return {"test": dataset.splits["test"], **(dataset.more or {})}


def measure(
    experiment: Experiment, evaluate: Callable, params: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Evaluates a network on the tested splits, and on some training examples.

    The validation split is evaluated only if the task tunes something on it, or if it
    is too small to choose a checkpoint; in that case its interval is computed.

    Args:
      experiment: the run.
      evaluate: from `Experiment.evaluator`.
      params: parameters of the network.

    Returns:
      `(predictions, facts)`: predictions for each of `tested_splits`; and the entries
      "metric", "splits" and "tuned" of report.json, in the format that
      `lstm_jax.inspect.read_results` takes.
    """
    config, kind, dataset = experiment.config, experiment.kind, experiment.dataset
    predictions, splits = {}, {}
    for name, split in tested_splits(dataset).items():
        means, predictions[name] = evaluate(params, split)
        splits[name] = {"examples": len(split.inputs), **_finite(means)}
    train = experiment.split
    count = min(len(train.inputs), max(len(dataset.splits["test"].inputs), 50), MOST)
    rows = np.unique(np.linspace(0, len(train.inputs) - 1, count).astype(int))
    some = data.Split(*(None if part is None else part[rows] for part in train))
    splits["train"] = {"examples": len(rows), **_finite(evaluate(params, some)[0])}

    validation = dataset.splits["validation"]
    schedule = config.optimizer.schedule.name
    about = {
        "examples": len(validation.inputs),
        "fewest": kind.fewest(validation, dataset.classes),
        "chooses": config.tests_best or schedule == "plateau",
    }
    tuned, known = {}, None
    if kind.tunes or (about["chooses"] and is_small(about)):
        known = evaluate(params, validation)[1]
    if known is not None:
        known = experiment.aligned(validation, known)
    if known is not None and len(known[1]):
        tuned = kind.tune(*known)
        if is_small(about):
            name = experiment.task.monitor
            scores = experiment.task.weighted_scores(*known)
            interval = metrics.bootstrap(scores, len(known[1])).get(name)
            about["monitor"] = about_metric(experiment, name)
            about["interval"] = interval and list(interval)
    splits["validation"] = about
    metric = about_metric(experiment, kind.score or experiment.task.monitor)
    return predictions, {"metric": metric, "splits": splits, "tuned": tuned}


def _finite(means: dict[str, float] | None) -> dict[str, float]:
    """The finite metrics, which JSON can hold; {} for None, from a stopped run."""
    return {k: v for k, v in (means or {}).items() if math.isfinite(v)}


def about_metric(experiment: Experiment, name: str) -> dict[str, Any]:
    """A metric's "name", "label" and "mode"; "rate": whether it is between 0 and 1."""
    kind, task = experiment.kind, experiment.task
    known: Mapping[str, tuple[str, str]] = {
        key: (label, mode) for key, label, mode in kind.metrics
    }
    label, mode = known.get(name, (name, task.mode))
    rate = kind.rate and name != "loss"
    return {"name": name, "label": label, "mode": mode, "rate": rate}
