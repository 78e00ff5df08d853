"""Calibration of a classifier: expected calibration error, Brier score, bins."""

from typing import NamedTuple

import numpy as np

BINS = 15


class Reliability(NamedTuple):
    """M bins of equal width by confidence; NaN in empty bins.

    `ece` is the expected calibration error.
    """

    edges: np.ndarray  # [M + 1]
    count: np.ndarray  # [M]
    confidence: np.ndarray  # [M], mean of the highest probability
    accuracy: np.ndarray  # [M]
    ece: float


def reliability(predictions, targets, bins: int = BINS) -> Reliability:
    """Confidence and accuracy by bin, and the expected calibration error.

        ECE = sum_m |B_m| / N · |accuracy(B_m) - confidence(B_m)|

    where B_m holds the examples whose highest probability is in ((m - 1) / M, m / M].

    Args:
      predictions: probabilities [N, K].
      targets: int [N], a class index.
      bins: M.

    Returns:
      A `Reliability`.

    Raises:
      ValueError: fewer than one bin.

    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, equations 2
    and 3, with M = 15.
    """
    if bins < 1:
        raise ValueError(f"reliability: bins={bins}, expected 1 or more")
    predictions = np.asarray(predictions, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    confidence = predictions.max(-1)
    right = predictions.argmax(-1) == targets
    # A float32 softmax may exceed 1 by rounding.
    at = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(at, minlength=bins)
    some = np.where(count, count, np.nan)
    means = [
        np.bincount(at, values, minlength=bins) / some for values in (confidence, right)
    ]
    gap = np.abs(means[1] - means[0])
    ece = float(np.nansum(gap * count) / len(confidence))
    return Reliability(edges, count, *means, ece)


def brier(predictions, targets) -> float:
    """Brier score: mean over examples of sum_k (p_k - [k is the class])², in [0, 2].

    Args:
      predictions: probabilities [N, K].
      targets: int [N], a class index.

    Reference: Brier 1950, Verification of Forecasts Expressed in Terms of Probability.
    """
    predictions = np.asarray(predictions, np.float64)
    truth = np.eye(predictions.shape[1])[targets]
    return float(np.mean(np.sum((truth - predictions) ** 2, -1)))
