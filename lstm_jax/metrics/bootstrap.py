"""How sure a test metric is: bootstrap intervals over the examples of a test set."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
CHUNK = 2**21  # weights that are held at once

# (weights [R, N]) -> {metric: [R]}, each of N examples counted weight times
Scores = Callable[[np.ndarray], dict[str, np.ndarray]]


def bootstrap(
    scores: Scores, count: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of metrics, examples drawn with replacement.

    Whole examples are drawn: a clip brings all its frames, steps and labels along. A
    draw in which a metric is not defined, such as the ROC of a class that was not
    drawn, does not count for it.

    Args:
      scores: the metrics of weighted examples, as a task's `weighted_scores` returns.
      count: N, the examples.
      resamples: draws.
      seed: of the draws.

    Returns:
      {metric: (low, high)}, by the names that `scores` has.

    Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    rng = np.random.default_rng(seed)
    rows, step = [], max(1, CHUNK // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(0, count, (size, count))
        drawn += count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count)
        rows.append(scores(weights.reshape(size, count).astype(np.float64)))
    found = {}
    for name in rows[0]:
        values = np.concatenate([row[name] for row in rows])
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.percentile(values, [2.5, 97.5])
            found[name] = float(low), float(high)
    return found


def weighted_means(columns, weights) -> dict[str, np.ndarray]:
    """Means of columns {name: [N]} under weights [R, N], {name: [R]}."""
    count = weights.sum(-1)
    return {name: weights @ values / count for name, values in columns.items()}


def mean_known(values):
    """Mean over the first axis without NaN; NaN where there is nothing else."""
    values = np.asarray(values)
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count, total / np.maximum(count, 1), np.nan)
