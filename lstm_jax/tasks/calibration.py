"""Whether a classifier is as often right as it says: ECE, Brier score, a diagram."""

from typing import NamedTuple

import numpy as np

BINS = 15


class Reliability(NamedTuple):
    """Bins of confidence, M of equal width; confidence and accuracy NaN in empty ones.

    `ece` is the expected calibration error.
    """

    edges: np.ndarray  # [M + 1]
    count: np.ndarray  # [M]
    confidence: np.ndarray  # [M], mean of the highest probability
    accuracy: np.ndarray  # [M]
    ece: float


def reliability(predictions, targets, bins: int = BINS) -> Reliability:
    """Confidence against accuracy.

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
        raise ValueError(f"reliability: bins={bins}, wanted 1 or more")
    predictions = np.asarray(predictions, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    confidence = predictions.max(-1)
    right = predictions.argmax(-1) == targets
    # A softmax of float32 may pass 1 by its rounding.
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
    """Mean over examples of sum_k (p_k - [k is the class])², in [0, 2].

    Args:
      predictions: probabilities [N, K].
      targets: int [N], a class index.

    Reference: Brier 1950, Verification of Forecasts Expressed in Terms of Probability.
    """
    predictions = np.asarray(predictions, np.float64)
    truth = np.eye(predictions.shape[1])[targets]
    return float(np.mean(np.sum((truth - predictions) ** 2, -1)))


def reliability_figure(found: Reliability):
    """The share of right answers in each bin of confidence, and how full it is."""
    from lstm_jax.look import BLUE, INK, ORANGE, figure, tidy

    fig = figure(6.4, 6.4)
    top, below = fig.add_gridspec(2, 1, height_ratios=(3, 1)).subplots(sharex=True)
    tidy(top)
    tidy(below)
    full = found.count > 0
    left, width = found.edges[:-1][full], np.diff(found.edges)[full]
    options = dict(width=width, align="edge", edgecolor="white", linewidth=1)
    top.bar(left, found.accuracy[full], color=BLUE, label="right answers", **options)
    top.bar(
        left,
        (found.confidence - found.accuracy)[full],
        bottom=found.accuracy[full],
        facecolor="none",
        hatch="//",
        label="gap to the confidence",
        **options | dict(edgecolor=ORANGE, linewidth=1.2),
    )
    top.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="calibrated")
    top.set(xlim=(0, 1), ylim=(0, 1))
    top.set_ylabel("share of right answers")
    top.set_title(f"Reliability: expected calibration error {found.ece:.4f}")
    top.legend(loc="upper left", framealpha=0.9, edgecolor="none")
    below.bar(left, found.count[full], color="#9aa3ad", **options)
    below.set_xlabel("confidence: the highest probability")
    below.set_ylabel("examples")
    return fig
