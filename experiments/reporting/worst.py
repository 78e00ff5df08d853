"""Blocks of a report: the worst predictions, and precision-recall curves."""

from typing import Any

import numpy as np

from experiments.numbers import number
from experiments.reporting.page import Fold, Picture, Table
from lstm_jax import figures, metrics

SHOWN = 12  # predictions in the figure


def highest_losses(evaluation) -> np.ndarray:
    """Indices of the predictions with the highest loss, the highest first."""
    losses = evaluation.losses
    order = np.argsort(-np.nan_to_num(losses, nan=-np.inf), kind="stable")
    return order[: min(SHOWN, int(np.isfinite(losses).sum()))]


def examples(evaluation, kind) -> list[Any]:
    """The test examples with the highest loss, as a figure and a table."""
    order = highest_losses(evaluation)
    predictions, targets = evaluation.known
    shown = evaluation.shown[order]
    test, names = evaluation.dataset.splits["test"], evaluation.dataset.names
    captions = [
        kind.caption(evaluation.spec, np.asarray(predictions[k]), targets[k])
        for k in order
    ]
    blocks: list[Any] = []
    if test.inputs.ndim > 3:
        lengths = None if test.lengths is None else test.lengths[shown]
        middle = metrics.middle_frames(test.inputs[shown], lengths)
        clips = ", middle frames" if test.inputs.ndim == 5 else ""
        figure = figures.image_grid(middle, captions, title=f"Highest losses{clips}")
        words = "The test examples with the highest loss."
        blocks.append(Picture(figure, words, photo=True))
    rows = tuple(
        (
            names["test"][place] if names else f"test example {place:,}",
            caption.replace("\n", ", "),
            number(float(evaluation.losses[k])),
        )
        for k, place, caption in zip(order, shown, captions, strict=True)
    )
    table = Table(("highest losses", "", "loss"), rows, numbers=False)
    blocks.append(table if test.inputs.ndim == 3 else Fold("As a table", (table,)))
    return blocks


def precision_recall(pairs, classes) -> Picture:
    """Precision-recall curves of each class against the rest, or of each label.

    Args:
      pairs: for each class `(scores [n], targets [n])`.
      classes: names.
    """
    figure = figures.precision_recall_figure(pairs, classes)
    words = "Precision-recall curves; average precision is the area below."
    return Picture(figure, words)
