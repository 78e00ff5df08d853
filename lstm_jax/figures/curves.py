"""Training curves of one run or several."""

import math
from numbers import Real

from lstm_jax.figures.style import (
    BLUE,
    COLORS,
    INK,
    ORANGE,
    QUIET,
    figure,
    legend_below,
    log_axis,
    safe,
    tidy,
)

# Columns of a history that are not metrics of quality; also excluded are those of parts
# of the network, whose names contain a slash.
_NOT_METRICS = ("step", "split", "learning_rate", "gradient_norm", "images_per_second")


def curves(history: list[dict]):
    """Training and validation metrics over the steps of a run.

    Args:
      history: rows {"step", "split": "train" | "validation", "loss", ...}; a row may
        contain "accuracy", "mae" and other metrics, "learning_rate" and
        "gradient_norm". None and NaN are skipped.

    Returns:
      A Figure: the loss and up to two other metrics, and in smaller panels below the
      learning rate and the gradient norm. A star marks the best validation step
      (highest accuracy, else lowest mse, mae or loss; the first of equals).
    """
    metrics = [
        name
        for name in _columns(history)
        if name not in _NOT_METRICS and "/" not in name
    ]
    metrics.sort(key=lambda name: (name != "loss", name not in ("accuracy", "mse")))
    metrics = metrics[:3]
    small = [
        name for name in ("learning_rate", "gradient_norm") if name in _columns(history)
    ]
    if not metrics:
        fig = figure(6, 3)
        fig.text(0.5, 0.5, "nothing was logged", ha="center", va="center")
        return fig
    best = _best(history)
    fig = figure(max(7.6, 1.0 + 4.4 * len(metrics)), 6.4 if small else 4.2)
    title = "Training"
    if best:
        name, step, value = best
        title += f": best validation {_words(name)} {value:.4g} at step {step:,}"
    fig.suptitle(title, color=INK)
    rows = fig.add_gridspec(
        1 + bool(small), 1, height_ratios=(2.3, 1)[: 1 + bool(small)]
    )
    top = rows[0].subgridspec(1, len(metrics))
    for column, name in enumerate(metrics):
        _metric_panel(fig.add_subplot(top[column]), history, name, best)
    if small:
        bottom = rows[1].subgridspec(1, len(small))
        for column, name in enumerate(small):
            ax = fig.add_subplot(bottom[column])
            tidy(ax)
            steps, values = _series(history, name, "train")
            few = dict(marker="o", markersize=3) if len(values) < 3 else {}
            ax.plot(steps, values, color=QUIET, linewidth=1.2, **few)
            ax.set_title(_words(name), fontsize=10, loc="left")
            ax.set_xlabel("step", fontsize=9)
            ax.tick_params(labelsize=9)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
            _whole_steps(ax)
            if name == "gradient_norm":
                _log_if_wide(ax, values)
    return fig


def overlay(histories: dict[str, list[dict]], metrics: tuple[str, ...]):
    """Validation metrics of several runs, one panel per metric.

    Args:
      histories: rows as in `curves`, by the name of the run.
      metrics: names of columns, such as ("accuracy", "loss").

    Returns:
      A Figure; runs without a metric are omitted from its panel.
    """
    width = 8 + max(min(len(name), 60) for name in histories)  # characters of a name
    columns = max(1, 45 * len(metrics) // width)
    rows = -(-len(histories) // columns)
    fig = figure(1.0 + 4.9 * len(metrics), 4.4 + 0.22 * rows)
    fig.suptitle("Validation")
    handles = {}
    for ax, metric in zip(
        fig.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        tidy(ax)
        everything = []
        for order, (name, history) in enumerate(histories.items()):
            steps, values = _series(history, metric, "validation")
            if not values:
                continue
            everything += values
            (handles[name],) = ax.plot(
                steps,
                values,
                color=COLORS[order % len(COLORS)],
                linestyle=("-", (0, (5, 1.5)), (0, (1, 1)))[order % 3],
                linewidth=2,
                marker="o" if len(values) <= 40 else None,
                markersize=4,
            )
        ax.set_title(_words(metric), loc="left")
        ax.set_xlabel("step")
        _whole_steps(ax)
        if "accuracy" not in metric:
            _log_if_wide(ax, everything)
        if not everything:
            ax.text(0.5, 0.5, "nothing was logged", ha="center", va="center")
    fig.legend(
        list(handles.values()),
        [safe(name, 60) for name in handles],
        loc="outside lower center",
        frameon=False,
        ncols=min(columns, max(len(handles), 1)),
    )
    return fig


def _metric_panel(ax, history, name, best):
    tidy(ax)
    everything = []
    for split, color in (("train", BLUE), ("validation", ORANGE)):
        steps, values = _series(history, name, split)
        if not values:
            continue
        everything += values
        if split == "train" and len(values) > 40:
            ax.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
            ax.plot(steps, _smooth(values), color=color, linewidth=2, label=split)
        else:
            marker = "o" if split == "validation" or len(values) < 3 else None
            few = len(values) <= 40
            ax.plot(
                steps,
                values,
                color=color,
                linewidth=2,
                marker=marker if few else None,
                markersize=4,
                linestyle="-" if split == "train" else (0, (5, 1)),
                label=split,
            )
    if best:
        steps, values = _series(history, name, "validation")
        if best[1] in steps:
            value = values[steps.index(best[1])]
            ax.plot(
                best[1],
                value,
                marker="*",
                markersize=15,
                color="#f0c808",
                markeredgecolor=INK,
                linestyle="none",
                zorder=5,
                clip_on=False,
                label=f"best step: {value:.4g}",
            )
    ax.set_title(_words(name), loc="left")
    ax.set_xlabel("step")
    _whole_steps(ax)
    if "accuracy" not in name:
        _log_if_wide(ax, everything)
    legend_below(ax, ncols=3, columnspacing=1.2, handlelength=2)


def _columns(history):
    """Names of the numeric columns, in order of appearance."""
    names = {}
    for row in history:
        names.update({name: None for name, value in row.items() if _is_number(value)})
    return [name for name in names if name not in ("step", "split")]


def _is_number(value):
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _series(history, name, split):
    """Steps and values of one column, where it is a number."""
    pairs = [
        (row["step"], row[name])
        for row in history
        if row.get("split") == split and _is_number(row.get(name))
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [step for step, _ in pairs], [value for _, value in pairs]


def _best(history):
    """(metric, step, value) of the best validation row, or None."""
    judges = (("accuracy", max), ("mse", min), ("mae", min), ("loss", min))
    for name, pick in judges:
        steps, values = _series(history, name, "validation")
        if values:
            value = pick(values)
            return name, steps[values.index(value)], value
    return None


def _smooth(values):
    """Centred moving average over a tenth of the run, without lag."""
    half = len(values) // 20
    smoothed = []
    for k in range(len(values)):
        reach = min(half, k, len(values) - 1 - k)  # symmetric, even at the ends
        window = values[k - reach : k + reach + 1]
        smoothed.append(sum(window) / len(window))
    return smoothed


def _whole_steps(ax):
    from matplotlib.ticker import MaxNLocator

    low, high = ax.get_xlim()
    if high - low < 2:  # around a single step
        middle = round((low + high) / 2)
        ax.set_xlim(middle - 1, middle + 1)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _log_if_wide(ax, values):
    if values and 0 < 30 * min(values) < max(values):
        log_axis(ax)


def _words(name):
    return {"mae": "mean absolute error"}.get(name, name.replace("_", " "))
