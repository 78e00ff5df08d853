"""Reliability diagrams."""

import numpy as np

from lstm_jax.figures.style import BLUE, INK, LINE, ORANGE, figure, tidy


def reliability_figure(found):
    """Accuracy in each bin of confidence, and the number of examples in it.

    Args:
      found: what `metrics.reliability` returns.

    Returns:
      A Figure.
    """
    fig = figure(6.4, 6.7)
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
    fig.legend(loc="outside lower center", ncols=3, frameon=False)
    below.bar(left, found.count[full], color=LINE, **options)
    below.set_xlabel("confidence: the highest probability")
    below.set_ylabel("examples")
    return fig
