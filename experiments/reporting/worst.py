"""The answers that a report shows: the worst ones, and precision against recall."""

from typing import Any

import numpy as np

from experiments.numbers import number
from experiments.reporting.page import Fold, Picture, Table
from lstm_jax import figures, metrics

SHOWN = 12  # answers on the sheet


def order_of(evaluation) -> np.ndarray:
    """Places of the worst answers among those that can be compared, the worst first."""
    losses = evaluation.losses
    order = np.argsort(-np.nan_to_num(losses, nan=-np.inf), kind="stable")
    return order[: min(SHOWN, int(np.isfinite(losses).sum()))]


def pictures(evaluation, kind) -> list[Any]:
    """The test examples with the highest loss, as pictures and in words."""
    order = order_of(evaluation)
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
        clips = ", by their middle frames" if test.inputs.ndim == 5 else ""
        figure = figures.image_grid(middle, captions, title=f"The worst answers{clips}")
        words = "Test examples with the highest loss, the worst first."
        blocks.append(Picture(figure, words, photo=True))
    rows = tuple(
        (
            names["test"][place] if names else f"test example {place:,}",
            caption.replace("\n", ", "),
            number(float(evaluation.losses[k])),
        )
        for k, place, caption in zip(order, shown, captions, strict=True)
    )
    table = Table(("worst answers", "", "loss"), rows, numbers=False)
    blocks.append(
        table if test.inputs.ndim == 3 else Fold("The same in words", (table,))
    )
    return blocks


def precision_recall(pairs, classes) -> Picture:
    """Precision against recall of each class against the rest, or each label.

    Args:
      pairs: of each class, scores and truths of its examples, `([n], [n])`.
      classes: names.
    """
    figure = figures.precision_recall_figure(pairs, classes)
    words = "Precision against recall; average precision is the area below."
    return Picture(figure, words)
