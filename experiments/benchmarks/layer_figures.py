"""The tables and plots of `layers`."""

import itertools
import math
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from experiments.benchmarks import tables
from experiments.benchmarks.peers import CONV, FLAX, NAMES, TORCH
from experiments.benchmarks.tables import number
from lstm_jax.figures.style import BLUE, COLORS, INK, LINE, figure, safe, tidy

Row = dict[str, Any]
# Candidates whose ratios are averaged over the shapes.
OURS = ("lstm, auto", "lstm, auto, a device a core")


# Columns: head, key of a row, format.
_COLUMNS = (
    ("ms", "ms", ",.2f"),
    ("min", "ms_min", ",.2f"),
    ("µs/step", "us_per_step", ",.1f"),
    ("sequences/s", "sequences_per_s", ",.0f"),
    ("compile s", "compile_s", ".2f"),
    ("MB temporary", "temporary_mb", ",.1f"),
    ("of peak", "peak_share", ".0%"),
)
_GROWTH_COLUMNS = (
    ("T", "steps", ",d"),
    ("ms", "ms", ",.1f"),
    ("min", "ms_min", ",.1f"),
    ("of no remat", "of_no_remat", ".2f"),
    ("µs/step", "us_per_step", ",.1f"),
    ("MB temporary", "temporary_mb", ",.1f"),
    ("of peak", "peak_share", ".0%"),
)


def _size(row: Row) -> str:
    return f"B={row['batch']} F={row['inputs']} D={row['width']}"


def title(row: Row) -> str:
    """A title: `rows, gradient, float32: B=128 T=28 F=28 D=128`."""
    batch, steps, width = row["batch"], row["steps"], row["width"]
    size = f"B={batch} T={steps} F={row['inputs']} D={width}"
    if "side" in row:
        side = row["side"]
        size = f"two 3x3 layers, B={batch} T={steps} {side}x{side}x{width}"
    return f"{row['shape']}, {row['kind']}, {row['dtype']}: {size}"


def table(rows: list[Row]) -> Table:
    """A table of the candidates for one layer."""
    ran = [row for row in rows if row["ms"]]
    flax = CONV if "side" in ran[0] else FLAX
    shown = [peer for peer in (TORCH, flax) if peer in ran[0]["times_as_fast"]]
    heads = [head for head, _, _ in _COLUMNS] + [
        f"x {peer.split()[0]}" for peer in shown
    ]
    cells = [
        [
            row["candidate"],
            *(number(row[key], form) for _, key, form in _COLUMNS),
            *(f"{row['times_as_fast'][peer]:.2f}" for peer in shown),
        ]
        for row in ran
    ]
    return tables.table(title(ran[0]), ("", *heads), cells)


def geometric_means(rows: list[Row]) -> list[str]:
    """Lines with the geometric mean over shapes of the ratios to each peer."""
    lines = []
    series = dict.fromkeys((row["kind"], row["dtype"]) for row in rows)
    for (kind, dtype), name in itertools.product(series, OURS):
        ours = [
            row["times_as_fast"]
            for row in rows
            if (row["kind"], row["dtype"], row["candidate"]) == (kind, dtype, name)
            if row["ms"]
        ]
        parts = []
        for peer in NAMES:
            ratios = [ratio[peer] for ratio in ours if peer in ratio]
            if ratios:
                mean = math.exp(np.mean(np.log(ratios)))
                parts.append(f"{mean:.2f} x {peer} ({len(ratios)})")
        if parts:
            lines.append(
                f"{name}; {kind}, {dtype}; times as fast, geometric mean over (n) "
                f"shapes: {', '.join(parts)}"
            )
    return lines


def overview(rows: list[Row]):
    """A Figure of bars: a column for each shape, a row for each kind and dtype."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["ms"]:
            group = (row["kind"], row["dtype"]), row["shape"]
            groups.setdefault(group, []).append(row)
    lines, shapes = (list(dict.fromkeys(names)) for names in zip(*groups, strict=True))
    most = max(map(len, groups.values()))
    fig = figure(max(6.4, 4.2 * len(shapes)), len(lines) * (1.1 + 0.24 * most) + 0.5)
    axes = fig.subplots(len(lines), len(shapes), squeeze=False)
    for line, row_of_axes in zip(lines, axes, strict=True):
        for shape, ax in zip(shapes, row_of_axes, strict=True):
            if (line, shape) in groups:
                _bars(ax, groups[line, shape])
            else:
                ax.set_axis_off()
    about, rounds = rows[0]["environment"], rows[0]["rounds"]
    where = about["cpu"] if about["platform"] == "cpu" else about["device_kind"]
    words = f"{safe(where, 60)}\nmedian of {rounds} rounds; line: minimum"
    fig.suptitle(words, color=INK, fontsize=10)
    return fig


def _bars(ax, rows: list[Row]) -> None:
    tidy(ax, 8)
    places = range(len(rows))[::-1]
    medians = [row["ms"] for row in rows]
    peer = [row["candidate"] in NAMES for row in rows]
    ax.barh(places, medians, color=[LINE if other else BLUE for other in peer])
    for place, row in zip(places, rows, strict=True):
        ax.plot([row["ms_min"]] * 2, [place - 0.4, place + 0.4], color=INK, lw=1)
        ax.text(row["ms"], place, f" {row['ms']:,.3g}", va="center", fontsize=8)
    ax.set_yticks(places, [safe(row["candidate"], 28) for row in rows])
    ax.set_xlim(0, max(medians) * 1.2)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("ms", fontsize=8)
    what = f"{rows[0]['shape']}, {rows[0]['kind']}, {rows[0]['dtype']}"
    ax.set_title(safe(what, 50), loc="left", fontsize=10)


def _what(row: Row) -> str:
    return "gradient of " + ("final state" if row["kind"] == "state" else "outputs")


def growth_table(rows: list[Row], exponents: list[Row]) -> Table:
    """A table of time and memory by length, with the fitted exponents."""
    first = rows[0]
    found = tables.table(
        f"{_what(first)}, {first['dtype']}, by length: {_size(first)}",
        ("", *(head for head, _, _ in _GROWTH_COLUMNS)),
        (),
    )
    times = {(row["candidate"], row["steps"]): row["ms"] for row in rows}
    for fit in exponents:
        name = fit["candidate"]
        for row in (row for row in rows if row["candidate"] == name):
            whole = times.get((name.split(", remat=")[0], row["steps"]))
            ratio = row["ms"] / whole if row["ms"] and whole else None
            row = row | {"of_no_remat": ratio}
            cells = (number(row[key], form) for _, key, form in _GROWTH_COLUMNS)
            found.add_row(Text(name), *cells)
        powers = {
            "ms": number(fit["time"], ".2f"),
            "temporary_mb": number(fit["bytes"], ".2f"),
        }
        cells = (powers.get(key, "") for _, key, _ in _GROWTH_COLUMNS)
        found.add_row("  exponent of T", *cells, style="bold", end_section=True)
    return found


def points(rows: list[Row], name: str, what: str) -> list[tuple[int, float]]:
    """`(T, time or memory)` of one candidate, where known."""
    own = [row for row in rows if row["candidate"] == name]
    return [(row["steps"], row[what]) for row in own if row[what]]


def growth(rows: list[Row], exponents: list[Row]):
    """A Figure: time and memory against the length, on logarithmic axes."""
    fig = figure(10.5, 4.4)
    panels = (("ms", "time", "ms"), ("temporary_mb", "bytes", "MB temporary"))
    for ax, (what, power, label) in zip(fig.subplots(1, 2), panels, strict=True):
        tidy(ax)
        for color, fit in zip(COLORS * 4, exponents, strict=False):
            if not (known := points(rows, fit["candidate"], what)):
                continue
            name = safe(fit["candidate"], 40)
            if fit[power] is not None:
                name += f": $T^{{{fit[power]:.2f}}}$"
            xs, ys = zip(*known, strict=True)
            ax.plot(xs, ys, marker="o", markersize=4, color=color, label=name)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel("T, steps", color=INK)
        ax.set_ylabel(label, color=INK)
        if ax.lines:
            ax.legend(frameon=False, fontsize=8)
    first = rows[0]
    words = f"{_what(first)}, {first['dtype']}, {_size(first)}"
    fig.suptitle(safe(words, 90), color=INK)
    return fig
