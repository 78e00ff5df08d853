"""Tables and plots of timed layers."""

import itertools
import math
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from experiments.benchmarks.peers import CONV, FLAX, NAMES, TORCH
from lstm_jax.figures.style import BLUE, COLORS, INK, LINE, figure, safe, tidy

Row = dict[str, Any]
# Whose ratios are averaged over the shapes.
OURS = ("lstm, auto", "lstm, auto, a device a core")


def title(row: Row) -> str:
    """What was timed: `rows, gradient, float32: B=128 T=28 F=28 D=128`."""
    size = f"B={row['batch']} T={row['steps']} F={row['inputs']} D={row['width']}"
    if "side" in row:
        side = row["side"]
        size = f"two 3x3 layers, B={row['batch']} T={row['steps']} "
        size += f"{side}x{side}x{row['width']}"
    return f"{row['shape']}, {row['kind']}, {row['dtype']}: {size}"


def table(rows: list[Row]) -> Table:
    """The candidates of one layer."""
    ran = [row for row in rows if row["ms"]]
    flax = CONV if "side" in ran[0] else FLAX
    shown = [peer for peer in (TORCH, flax) if peer in ran[0]["times_as_fast"]]
    found = Table(box=box.SIMPLE_HEAD, title_justify="left")
    found.title = Text(f"\n{title(ran[0])}", style="bold")
    found.add_column("", no_wrap=True)
    heads = "ms,least,µs/step,sequences/s,compile s,MB temporary,of peak"
    for head in (*heads.split(","), *(f"x {peer.split()[0]}" for peer in shown)):
        found.add_column(head, justify="right")
    for row in ran:
        ratios = [f"{row['times_as_fast'][peer]:.2f}" for peer in shown]
        found.add_row(
            Text(row["candidate"]),
            f"{row['ms']:,.2f}",
            f"{row['ms_min']:,.2f}",
            f"{row['us_per_step']:,.1f}",
            f"{row['sequences_per_s']:,.0f}",
            _or_dash(row["compile_s"], ".2f"),
            _or_dash(row["temporary_mb"], ",.1f"),
            _or_dash(row["peak_share"], ".0%"),
            *ratios,
        )
    return found


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def geometric_means(rows: list[Row]) -> list[str]:
    """A line for each way to run our layer: how it compares over all shapes."""
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
    rows = [row for row in rows if row["ms"]]
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    lines = list(dict.fromkeys((row["kind"], row["dtype"]) for row in rows))
    most = max(
        sum((row["shape"], row["kind"], row["dtype"]) == (shape, *line) for row in rows)
        for shape in shapes
        for line in lines
    )
    fig = figure(max(6.4, 4.2 * len(shapes)), len(lines) * (1.1 + 0.24 * most) + 0.5)
    axes = fig.subplots(len(lines), len(shapes), squeeze=False)
    for line, (kind, dtype) in enumerate(lines):
        for column, shape in enumerate(shapes):
            ax = axes[line][column]
            here = [
                row
                for row in rows
                if (row["shape"], row["kind"], row["dtype"]) == (shape, kind, dtype)
            ]
            if here:
                _bars(ax, here)
            else:
                ax.set_axis_off()
    about, rounds = rows[0]["environment"], rows[0]["rounds"]
    where = about["cpu"] if about["platform"] == "cpu" else about["device_kind"]
    words = f"{safe(where, 60)}\nmedian of {rounds} rounds in turn; line: the least"
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
    """Time and memory by length, then the exponents that fit them."""
    found = Table(box=box.SIMPLE_HEAD, title_justify="left")
    first = rows[0]
    found.title = Text(
        f"\n{_what(first)}, {first['dtype']}, by length: "
        f"B={first['batch']} F={first['inputs']} D={first['width']}",
        style="bold",
    )
    found.add_column("", no_wrap=True)
    heads = "T,ms,least,of no remat,µs/step,MB temporary,of peak"
    for head in heads.split(","):
        found.add_column(head, justify="right")
    times = {(row["candidate"], row["steps"]): row["ms"] for row in rows}
    for fit in exponents:
        for row in (r for r in rows if r["candidate"] == fit["candidate"]):
            whole = times.get((row["candidate"].split(", remat=")[0], row["steps"]))
            found.add_row(
                Text(row["candidate"]),
                f"{row['steps']:,}",
                _or_dash(row["ms"], ",.1f"),
                _or_dash(row["ms_min"], ",.1f"),
                _or_dash(row["ms"] and whole and row["ms"] / whole, ".2f"),
                _or_dash(row["us_per_step"], ",.1f"),
                _or_dash(row["temporary_mb"], ",.1f"),
                _or_dash(row["peak_share"], ".0%"),
            )
        powers = [_or_dash(fit[what], ".2f") for what in ("time", "bytes")]
        label = Text("  grows as T to the", style="bold")
        found.add_row(
            *(label, "", powers[0], "", "", "", powers[1], ""),
            style="bold",
            end_section=True,
        )
    return found


def growth(rows: list[Row], exponents: list[Row]):
    """A Figure: time, and memory, against the length, both on logarithmic axes."""
    fig = figure(10.5, 4.4)
    panels = (("ms", "time", "ms"), ("temporary_mb", "bytes", "MB temporary"))
    for ax, (what, power, label) in zip(fig.subplots(1, 2), panels, strict=True):
        tidy(ax)
        for color, fit in zip(COLORS * 4, exponents, strict=False):
            points = [
                (row["steps"], row[what])
                for row in rows
                if row["candidate"] == fit["candidate"] and row[what]
            ]
            if not points:
                continue
            name = safe(fit["candidate"], 40)
            if fit[power] is not None:
                name += f": $T^{{{fit[power]:.2f}}}$"
            xs, ys = zip(*points, strict=True)
            ax.plot(xs, ys, marker="o", markersize=4, color=color, label=name)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel("T, steps", color=INK)
        ax.set_ylabel(label, color=INK)
        if ax.lines:
            ax.legend(frameon=False, fontsize=8)
    first = rows[0]
    size = f"B={first['batch']} F={first['inputs']} D={first['width']}"
    fig.suptitle(safe(f"{_what(first)}, {first['dtype']}, {size}", 90), color=INK)
    return fig
