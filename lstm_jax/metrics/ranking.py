"""Areas under ROC and precision-recall curves for weighted examples, vectorized."""

import numpy as np

from lstm_jax.metrics.bootstrap import CHUNK, mean_known

LARGEST_RANKING = 1_000_000  # examples x classes; above it, no intervals of areas


def areas(scores, positive, weights) -> np.ndarray:
    """Areas under the ROC and precision-recall curves, for each row of weights.

    The former is the probability that a positive example scores above a negative one
    (ties count half); the latter is the average precision over the steps of recall.

    Args:
      scores: [N].
      positive: bool [N].
      weights: [R, N].

    Returns:
      [2, R]; NaN if only one class occurs.
    """
    if not len(scores):
        return np.full((2, len(weights)), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    weights, positive = weights[:, order], positive[order]
    both = np.add.reduceat(weights, starts, axis=-1)  # [R, groups of equal scores]
    positives = np.add.reduceat(weights * positive, starts, axis=-1)
    negatives = both - positives
    below = np.cumsum(negatives, -1) - negatives / 2
    above = np.cumsum(positives[:, ::-1], -1)[:, ::-1]
    at_least = np.cumsum(both[:, ::-1], -1)[:, ::-1]
    yes, no = positives.sum(-1), negatives.sum(-1)
    pairs = np.where(yes * no, yes * no, np.nan)
    roc = (positives * below).sum(-1) / pairs
    precision = (positives * above / np.maximum(at_least, 1)).sum(-1) * no / pairs
    return np.stack([roc, precision])


def areas_of_steps(scores, positive, example, weights) -> np.ndarray:
    """`areas` of entries [n], each with the weight of its example, in chunks of rows.

    Examples have one entry per step: the weights of all rows may not fit in memory.
    """
    size = max(1, CHUNK // max(1, len(example)))
    rows = [
        areas(scores, positive, weights[start : start + size, example])
        for start in range(0, len(weights), size)
    ]
    return np.concatenate(rows, axis=-1)


def macro_areas(each) -> dict[str, np.ndarray]:
    """Means over K classes or labels of their `areas`, [R] each."""
    roc, precision = np.moveaxis(np.asarray(each), 1, 0)
    return {
        "macro.roc_auc": mean_known(roc),
        "macro.average_precision": mean_known(precision),
    }
