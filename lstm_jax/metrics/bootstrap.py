"""Bootstrap confidence intervals of test metrics, over the examples."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
CHUNK = 2**21  # weights per chunk, to limit memory

# (weights [R, N]) -> {metric: [R]}, where each of N examples counts `weight` times
Scores = Callable[[np.ndarray], dict[str, np.ndarray]]


def bootstrap(
    scores: Scores, count: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals of metrics.

    Whole examples are resampled with replacement: a clip with all its frames, steps and
    labels. Resamples in which a metric is undefined, such as the ROC of an absent
    class, are ignored for that metric.

    Args:
      scores: the metrics of weighted examples, as from a task's `weighted_scores`.
      count: N, number of examples.
      resamples: number of resamples.
      seed: random seed.

    Returns:
      {metric: (low, high)}, with the names of `scores`.

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
    """Weighted means of columns {name: [N]} for weights [R, N]: {name: [R]}."""
    count = weights.sum(-1)
    return {name: weights @ values / count for name, values in columns.items()}


def mean_known(values):
    """Mean over the first axis without NaN; NaN if all are."""
    values = np.asarray(values)
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count, total / np.maximum(count, 1), np.nan)
