"""The section Diagnosis of a report: problems, measurements and a trace."""

from typing import Any

import numpy as np

from experiments.experiment import arrays
from experiments.reporting.data_section import data_findings
from experiments.reporting.evaluation import Evaluation
from experiments.reporting.page import Picture, Section, Table, Words, plural
from lstm_jax import inspect
from lstm_jax.inspect.results import read_results

MEASURED = 32  # training examples on which the network is measured


def diagnosis(evaluation: Evaluation) -> Section | None:
    """Problems of results and network, and a trace of the worst test example."""
    results = read_results((evaluation.finished or {}) | {"test": evaluation.test})
    told = tuple((each.words, each.suggestion) for each in results)
    header = ("problem", "suggestion")
    if not evaluation.experiment.model_kind.explains:
        if not told:
            return None
        return Section("Diagnosis", (Table(header, told, numbers=False),))
    network = evaluation.experiment.network.module
    train = evaluation.dataset.splits["train"]
    some = np.linspace(0, len(train.inputs) - 1, min(MEASURED, len(train.inputs)))
    some = some.astype(int)
    batch = {name: array[some] for name, array in arrays(train).items()}
    batch["mask"] = np.ones(len(some), np.float32)
    lengths = batch.get("lengths")
    measures = inspect.measure(
        network,
        evaluation.params,
        evaluation.spec.normalize(batch["inputs"]),
        loss=lambda outputs: evaluation.task.loss(outputs, batch)[0],
        lengths=lengths,
    )
    updates = inspect.logged_updates(evaluation.rows)
    diagnostics = inspect.diagnose(measures, rows=evaluation.rows, updates=updates)
    rows = (
        *data_findings(evaluation),
        *told,
        *((each.words, each.suggestion) for each in diagnostics),
    )
    words = f"Measured on {plural(len(some), 'training example')}."
    blocks: list[Any] = [
        Words(words if rows else f"No problems found. {words}", "quiet")
    ]
    if rows:
        blocks.insert(0, Table(header, rows, numbers=False))
    caption = (
        "Gradients, gates and cell states along the steps of a sequence, and the size "
        "of a training step's update relative to the norm of each matrix."
    )
    blocks.append(Picture(inspect.summary_figure(measures, updates), caption))
    if evaluation.has_targets:
        blocks.append(_reading(evaluation, network))
    return Section("Diagnosis", tuple(blocks))


def _reading(evaluation: Evaluation, network) -> Picture:
    test = evaluation.dataset.splits["test"]
    worst = int(np.nan_to_num(evaluation.losses, nan=-np.inf).argmax())
    place = evaluation.shown[worst]
    targets = evaluation.known[1]
    single = targets.ndim == 1  # one class each
    figure = inspect.trace_figure(
        network,
        evaluation.params,
        evaluation.spec.normalize(test.inputs[place]),
        classes=evaluation.spec.classes or None,
        target=int(targets[worst]) if single else None,
        length=None if test.lengths is None else int(test.lengths[place]),
        shown=test.inputs[place] if test.inputs.dtype == np.uint8 else None,
        predict=evaluation.task.predict,
    )
    caption = "The network step by step on the test example with the highest loss."
    return Picture(figure, caption, photo=True)
