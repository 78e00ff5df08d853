"""Forgetting by fine-tuning: re-evaluates the test set of the `--init-from` run."""

from typing import Any

import jax
import numpy as np

from experiments.errors import UsageError
from experiments.evaluation.measured import about_metric
from experiments.experiment import Experiment, load_data
from experiments.run.load_run import load_run, located, saved_run
from lstm_jax import data, metrics

MOST = 500  # test examples of the donor that are evaluated


class _Skipped(Exception):
    """Forgetting cannot be measured; the message says why."""


def forgetting(experiment: Experiment, params: Any) -> dict[str, Any]:
    """Evaluates the donor's test set with the donor's weights and with the run's.

    Args:
      experiment: the run; the donor is the run whose weights initialized it.
      params: trained parameters of the run's network.

    Returns:
      {} for a run without `--init-from`; otherwise {"forgotten": {…}} with "source"
      and "skipped", the reason why nothing was measured; or with "source", "dataset",
      "examples", the metric's "name", "label", "mode" and "rate", its values "before"
      and "after" fine-tuning, and the 95 % "interval" of after - before, on the same
      examples.
    """
    source = experiment.config.init_from
    if source is None:
        return {}
    try:
        found = _measured(experiment, params, source)
    except (_Skipped, UsageError, data.DataError) as error:
        found = {"skipped": str(error)}
    return {"forgotten": {"source": source} | found}


def _measured(experiment: Experiment, params: Any, source: str) -> dict[str, Any]:
    path = located(source)
    if path.is_file() and path.suffix != ".safetensors":
        raise _Skipped("it holds only weights, not the configuration of a run")
    if saved_run(path) is None:
        raise _Skipped("it no longer exists")
    donor, weights = load_run(path)
    options = donor.config.data
    if not data.is_available(options.source, options.dir):
        raise _Skipped(f"its data, {options.source}, are not available here")
    if donor.kind is not experiment.kind:
        raise _Skipped(f"its task, {donor.kind.name}, is different")
    again = Experiment(
        experiment.config, experiment.spec, dataset=_for_run(donor, experiment)
    )
    before, after = (
        _evaluated(each, own) for each, own in ((donor, weights), (again, params))
    )
    if not len(before[1]):
        raise _Skipped("none of its test examples has a known target")
    name = experiment.task.monitor
    scores = [
        each.task.weighted_scores(*known)
        for each, known in ((donor, before), (again, after))
    ]

    whole = np.ones((1, len(before[1])))
    if name not in scores[0](whole):
        raise _Skipped(f"{name} is not defined for single examples")

    def difference(drawn):
        first, second = (score(drawn)[name] for score in scores)
        return {name: second - first}

    count = len(before[1])
    return {
        "dataset": donor.spec.dataset,
        "examples": count,
        **about_metric(experiment, name),
        "before": float(scores[0](whole)[name][0]),
        "after": float(scores[1](whole)[name][0]),
        "interval": list(metrics.bootstrap(difference, count)[name]),
    }


def _for_run(donor: Experiment, experiment: Experiment) -> data.Dataset:
    """The donor's data, with class indices of the run; checks that inputs fit."""
    classes = experiment.spec.classes
    dataset = load_data(donor.config, classes)
    shapes = [list(dataset.image_shape), list(experiment.spec.image_shape)]
    if experiment.kind.bucketed:  # lines, of any width
        shapes = [[height, channels] for height, _, channels in shapes]
    if shapes[0] != shapes[1]:
        sizes = ["x".join(map(str, shape)) for shape in shapes]
        raise _Skipped(f"its examples are {sizes[0]}, those of this run are {sizes[1]}")
    if donor.spec.per_step != experiment.spec.per_step:
        raise _Skipped("only one of the two runs has a target for each time step")
    if list(dataset.classes) != classes:
        dataset = experiment.kind.relabelled(dataset, classes)
    elif not classes and donor.task.outputs != experiment.task.outputs:
        raise _Skipped("its network has a different number of outputs")
    if dataset is None:
        raise _Skipped("some of its classes do not occur in this run")
    return dataset


def _evaluated(experiment: Experiment, params: Any):
    """Aligned predictions and targets of up to `MOST` test examples."""
    test = experiment.dataset.splits["test"]
    count = len(test.inputs)
    rows = np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))
    some = data.Split(*(None if part is None else part[rows] for part in test))
    step = jax.jit(experiment.evaluate)
    _, predictions = experiment.evaluate_split(step, jax.device_get(params), some)
    return experiment.aligned(some, predictions)
