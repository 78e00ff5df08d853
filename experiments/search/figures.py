"""The table and the figure of a sweep."""

import math
from itertools import accumulate
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from experiments.numbers import number
from experiments.search.space import Choices, Range, Space
from experiments.search.study import best_of
from lstm_jax.figures.style import BLUE, INK, ORANGE, figure, safe, tidy

_MOST = 24  # rows of the table
# state: (color, hollow, label)
_KINDS = {
    "complete": (BLUE, False, "complete"),
    "pruned": ("#9aa3ad", True, "pruned"),
    "diverged": (ORANGE, True, "diverged or failed"),
}


def table(tried: list[dict[str, Any]], monitor: str, mode: str) -> Table:
    """A table of trials: completed ones from best to worst, then the others."""
    best = best_of(tried, mode)
    sign = -1 if mode == "max" else 1

    def rank(row):
        value = row["value"]
        return row["state"] != "complete", value is None, sign * (value or 0.0)

    left = len(tried) - _MOST
    found = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"\n{len(tried)} trials, on the validation split", style="bold"),
        title_justify="left",
        caption=Text(f"and {left} more in sweep.json" if left > 0 else ""),
        caption_justify="left",
    )
    found.add_column("trial", justify="right")
    found.add_column(Text(monitor), justify="right", overflow="fold")
    found.add_column("step", justify="right")
    for name in tried[0]["parameters"]:
        short = _short(name, tried[0]["parameters"])
        found.add_column(Text(short), justify="right", overflow="fold")
    found.add_column("")
    for row in sorted(tried, key=rank)[:_MOST]:
        style = "dim" if row["state"] != "complete" else ""
        style = "bold green" if row is best else style
        cells = [
            str(row["trial"]),
            "-" if row["value"] is None else number(row["value"], monitor),
            "-" if row["step"] is None else f"{row['step']:,}",
            *(str(value) for value in row["parameters"].values()),
            "" if row["state"] == "complete" else row["state"],
        ]
        found.add_row(*(Text(cell, style=style) for cell in cells))
    return found


def overview(
    tried: list[dict[str, Any]],
    space: Space,
    monitor: str,
    mode: str,
    importance: dict[str, float],
):
    """A Figure: values by trial, importance of parameters, and values by parameter.

    The axis of values covers the best four fifths of the completed trials; triangles at
    its end are trials outside of it.
    """
    columns = min(4, max(2, len(space)))
    rows = math.ceil(len(space) / columns)
    fig = figure(max(8.4, 3.2 * columns), 3.4 + 2.9 * rows)
    best = best_of(tried, mode)
    title = f"{len(tried)} trials"
    if best:
        value, trial = best["value"], best["trial"]
        title += f": best validation {monitor} {number(value, monitor)}, trial {trial}"
    fig.suptitle(safe(title, 90), color=INK)
    grid = fig.add_gridspec(1 + rows, 1, height_ratios=[1.1] + [1] * rows)
    top = grid[0].subgridspec(1, 2, width_ratios=(1.8, 1))
    limits = _limits(tried, mode)
    axes = [fig.add_subplot(top[0])]
    _history(axes[0], tried, mode, limits, best)
    if any(row["value"] is not None for row in tried):
        fig.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=5)
    complete = sum(row["state"] == "complete" for row in tried)
    _importance(fig.add_subplot(top[1]), importance, complete)
    for index, (name, what) in enumerate(space.items()):
        row, column = divmod(index, columns)
        if not column:
            line = grid[1 + row].subgridspec(1, columns)
        ax = fig.add_subplot(line[column])
        tidy(ax)
        xs = _places(ax, what, [row["parameters"][name] for row in tried])
        _points(ax, xs, tried, limits, best)
        ax.set_title(safe(name, 30), loc="left", fontsize=10)
        ax.tick_params(labelleft=not column)
        if not column:
            axes.append(ax)
    for ax in axes:
        ax.set_ylabel(monitor)
    return fig


def _limits(tried, mode):
    """(lowest, highest) value of the axes."""
    values = sorted(row["value"] for row in tried if row["value"] is not None)
    complete = [row["value"] for row in tried if row["state"] == "complete"]
    if not values:
        return 0.0, 1.0
    low, high = values[0], values[-1]
    if complete:
        complete.sort(reverse=mode == "max")
        best, last = complete[0], complete[math.ceil(0.8 * len(complete)) - 1]
        if mode == "max" and best > last:
            low, high = max(low, last - 0.3 * (best - last)), best
        elif best < last:
            low, high = best, min(high, last + 0.3 * (last - best))
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + 1.5 * margin


def _points(ax, xs, tried, limits, best):
    """Draws trials as points, or as triangles at the edge if outside the limits."""
    low, high = limits
    for x, row in zip(xs, tried, strict=True):
        if row["value"] is None:
            continue
        y = min(max(row["value"], low), high)
        color, hollow = _KINDS.get(row["state"], _KINDS["diverged"])[:2]
        if row is best:
            style = dict(marker="*", s=190, color="#f0c808", edgecolor=INK, zorder=5)
        else:
            marker = "v" if row["value"] < low else "^" if row["value"] > high else "o"
            face, order = ("white", 3) if hollow else (color, 4)
            style = dict(facecolor=face, edgecolor=color, zorder=order, s=28)
            style["marker"] = marker
        ax.scatter([x], [y], clip_on=False, **style)
    ax.set_ylim(limits)


def _history(ax, tried, mode, limits, best):
    tidy(ax)
    _points(ax, [row["trial"] for row in tried], tried, limits, best)
    pick = max if mode == "max" else min
    complete = [row for row in tried if row["state"] == "complete"]
    if complete:
        values = list(accumulate((row["value"] for row in complete), pick))
        xs = [row["trial"] for row in complete] + [tried[-1]["trial"]]
        ax.step(xs, [*values, values[-1]], where="post", color=INK, linewidth=1.2)
    ax.set_title("By trial", loc="left", fontsize=11)
    ax.set_xlabel("trial")
    ax.xaxis.get_major_locator().set_params(integer=True)
    known = [row for row in tried if row["value"] is not None]
    shown = {row["state"] for row in known}
    for state, (color, hollow, label) in _KINDS.items():
        if state in shown:
            face = "white" if hollow else color
            ax.scatter([], [], s=28, edgecolor=color, facecolor=face, label=label)
    low, high = limits
    if not all(low <= row["value"] <= high for row in known):
        marker = "v" if mode == "max" else "^"
        style = dict(facecolor="white", edgecolor=INK, marker=marker)
        ax.scatter([], [], s=28, label="outside the axis", **style)
    if complete:
        ax.plot([], [], color=INK, linewidth=1.2, label="best so far")


def _importance(ax, importance, trials):
    tidy(ax)
    ax.set_title("Importance", loc="left", fontsize=11)
    if not importance:
        ax.set_axis_off()
        text = "needs five completed trials\nwith different values"
        ax.text(0, 0.5, text, color=INK, va="center")
        return
    names = sorted(importance, key=importance.get)
    shares = [importance[name] for name in names]
    ax.barh([safe(_short(name, importance), 24) for name in names], shares, color=BLUE)
    for at, share in enumerate(shares):
        ax.text(share, at, f" {100 * share:.0f} %", va="center", fontsize=9, color=INK)
    ax.set_xlim(0, max(shares) * 1.2)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"share of the variance, {trials} trials (fANOVA)")
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")


def _places(ax, what: Range | Choices, values):
    """Prepares the axis of a parameter; returns the positions of its values."""
    if isinstance(what, Choices):
        places = {value: at for at, value in enumerate(what.values)}
        ax.set_xticks(range(len(places)), [safe(value, 10) for value in places])
        ax.set_xlim(-0.5, len(places) - 0.5)
        return [places[value] for value in values]
    if what.log:
        ax.set_xscale("log")
    elif what.whole:
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.margins(x=0.08)
    return values


def _short(name: str, names) -> str:
    """The last part of a flag, if it is unique."""
    last = name.rpartition(".")[2]
    return last if sum(n.rpartition(".")[2] == last for n in names) == 1 else name
