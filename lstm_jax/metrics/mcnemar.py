"""Comparison of two runs on the same examples: McNemar's test, paired differences."""

from functools import partial
from typing import NamedTuple

import numpy as np

from lstm_jax.metrics.bootstrap import bootstrap, weighted_means

FEW = 25  # the exact test is used below this number of discordant pairs


class McNemar(NamedTuple):
    """Result of McNemar's test of two classifiers.

    `statistic` is chi-squared, or None if the exact test was used.
    """

    first_only: int
    second_only: int
    statistic: float | None
    p: float


def mcnemar(first, second) -> McNemar:
    """Tests whether two classifiers have equal error rates on the same examples.

        chi² = (|b - c| - 1)² / (b + c), one degree of freedom

    b and c count the examples that only the first, or only the second, classifies
    correctly. With b + c < 25, the two-sided exact binomial test of b among b + c at
    1/2.

    Args:
      first, second: bool [N], whether each was correct.

    Raises:
      ValueError: they do not have the same length.

    Reference: McNemar 1947, Note on the sampling error of the difference between
    correlated proportions; Edwards 1948 for the correction by 1.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"mcnemar: got shapes {first.shape} and {second.shape}; expected "
            "[N] twice: the same examples in the same order"
        )
    b, c = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    if not b + c:
        return McNemar(b, c, None, 1.0)
    if b + c < FEW:
        from scipy.stats import binomtest

        return McNemar(b, c, None, float(binomtest(b, b + c, 0.5).pvalue))
    from scipy.stats import chi2

    statistic = (abs(b - c) - 1) ** 2 / (b + c)
    return McNemar(b, c, statistic, float(chi2.sf(statistic, 1)))


def paired_difference(first, second) -> tuple[float, float, float]:
    """Mean of first - second over examples [N], and its bootstrap interval.

    Returns:
      (difference, low, high), percentiles as in `bootstrap`.
    """
    columns = {"": np.asarray(first, np.float64) - np.asarray(second, np.float64)}
    means = partial(weighted_means, columns)
    low, high = bootstrap(means, len(columns[""]))[""]
    return float(columns[""].mean()), low, high
