"""ROC and precision-recall curves."""

import numpy as np

from lstm_jax.figures.style import (
    COLORS,
    FAINT,
    INK,
    LINE,
    figure,
    legend_beside,
    safe,
    tidy,
)

GREY = "#c3cad1"  # curves without a label


def roc_figure(pairs, names):
    """ROC curve of each class (one against the rest) or label, and their mean.

    Args:
      pairs: (scores [n], truths [n]) of each class or label.
      names: of the classes or labels.

    Returns:
      A Figure; at most ten curves, those of the lowest AUC, are labelled.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    aucs = {
        k: float(roc_auc_score(truth, scores))
        for k, (scores, truth) in enumerate(pairs)
        if truth.any() and not truth.all()
    }
    fig = _empty("ROC", "false positive rate", "true positive rate")
    (ax,) = fig.axes
    ax.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle=":")
    if not aucs:
        return _without_curves(fig)
    curves = {k: roc_curve(pairs[k][1], pairs[k][0])[:2] for k in aucs}
    axes = _with_corner(ax, aucs, [0.42, 0.12, 0.53, 0.53], (-0.004, 0.2))
    named = _draw(axes, curves, aucs, names)
    if len(aucs) > 1:
        grid = np.linspace(0, 1, 1001)
        mean = np.mean([np.interp(grid, *curve) for curve in curves.values()], 0)
        options = dict(color=INK, linewidth=3, zorder=2.5)
        for each in axes:
            each.plot(np.r_[0, grid], np.r_[0, mean], **options)
    _legend(ax, "AUC", aucs, named, ", thick" if len(aucs) > 1 else "")
    return fig


def precision_recall_figure(pairs, names):
    """Precision-recall curve and average precision of each class or label.

    Args:
      pairs: (scores [n], truths [n]) of each class or label.
      names: of the classes or labels.

    Returns:
      A Figure; at most ten curves, those of the lowest average precision, are labelled.
    """
    from sklearn.metrics import precision_recall_curve

    from lstm_jax.metrics.error_analysis import average_precisions

    known = {k: ap for k, ap in enumerate(average_precisions(pairs)) if ap is not None}
    fig = _empty("Precision and recall", "recall", "precision")
    (ax,) = fig.axes
    if not known:
        return _without_curves(fig)
    curves = {k: precision_recall_curve(pairs[k][1], pairs[k][0])[1::-1] for k in known}
    axes = _with_corner(ax, known, [0.14, 0.14, 0.56, 0.56], (0.8, 1.004))
    named = _draw(axes, curves, known, names, drawstyle="steps-post")
    _legend(ax, "average precision", known, named)
    return fig


def _empty(title, x, y):
    fig = figure(8.6, 5.8)
    ax = fig.add_subplot()
    tidy(ax)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set(xlabel=x, ylabel=y, title=f"{title}: each against the rest")
    return fig


def _without_curves(fig):
    words = "only one class in the targets:\nno curve"
    fig.axes[0].text(0.5, 0.55, words, ha="center")
    return fig


def _with_corner(ax, areas, place, xlim):
    """The axes; if all curves pass close to the corner, also an enlarged corner."""
    if np.mean(list(areas.values())) <= 0.9:
        return [ax]
    corner = ax.inset_axes(place)
    corner.set(xlim=xlim, ylim=(0.8, 1.004))
    corner.set_xticks([0, 0.1, 0.2] if xlim[0] < 0 else [0.8, 0.9, 1.0])
    corner.set_yticks([0.8, 0.9, 1.0])
    corner.tick_params(labelsize=9, length=2)
    corner.set_title("the corner, enlarged", fontsize=9)
    corner.grid(color=FAINT, linewidth=0.8)
    corner.set_axisbelow(True)
    return [ax, corner]


def _draw(axes, curves, areas, names, **options) -> list[int]:
    """Draws the curves; returns which are coloured and labelled, the lowest if many."""
    named = sorted(areas)
    if len(named) > len(COLORS):
        named = sorted(areas, key=areas.get)[: len(COLORS)]
    for k in named + [k for k in areas if k not in named]:
        style = dict(color=GREY, linewidth=0.5, zorder=2)
        if k in named:
            order = named.index(k)
            style = dict(
                color=COLORS[order],
                linestyle="-" if order % 2 == 0 else (0, (5, 1.5)),
                linewidth=1.5,
                zorder=3,
                label=f"{areas[k]:.4f}  {safe(names[k], 20)}",
            )
        for each in axes:
            each.plot(*curves[k], **style, **options)
    return named


def _legend(ax, title, areas, named, note=""):
    title += f"\n{np.mean(list(areas.values())):.4f}  mean (macro){note}"
    if len(areas) > len(named):
        title += f"\nthe {len(named)} hardest of {len(areas)}:"
    legend = legend_beside(ax, title, labelcolor=INK)
    legend.get_title().set_linespacing(1.5)


def detection_precision_recall(curves):
    """Precision at the 101 recalls of COCO, for each IoU threshold.

    Args:
      curves: [10, 101], for 0.50, 0.55 … 0.95, means over classes.
    """
    from lstm_jax.metrics.average_precision import RECALLS, THRESHOLDS

    fig = figure(7.6, 4.8)
    ax = fig.add_subplot()
    tidy(ax)
    for number, at in enumerate((0, 5, 8)):
        label = f"{curves[at].mean():.3f}  IoU {THRESHOLDS[at]:.2f}"
        ax.plot(RECALLS, curves[at], color=COLORS[number], label=label, linewidth=2)
    ax.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    ax.set_title("Precision at each recall, mean over classes", color=INK)
    legend_beside(ax, "average precision")
    return fig
