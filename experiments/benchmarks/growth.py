"""What a longer sequence costs: time and memory against T, and how fast they grow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.text import Text

from experiments.benchmarks.bench import Bench, Row
from experiments.benchmarks.layer_figures import growth as figure
from experiments.benchmarks.layer_figures import growth_table
from experiments.benchmarks.layers import candidates, cells
from experiments.run.record import save_figure


def growth(options) -> list[Row]:
    """Times gradients over 64 steps, 128, and so on; prints a table, draws a plot.

    Each candidate is taken as it is and, by default, with `remat="sqrt"`, too. One
    that would need more memory than is free has its bytes told, not its time.

    Returns:
      Rows as of `layers`, and for each candidate one with `time` and `bytes`: the
      exponents of T that fit best.
    """
    if options.grow < 64:
        raise ValueError(f"grow={options.grow}, but lengths start at T=64")
    if options.peers and options.grow_reads == "state":
        raise ValueError("--peers show outputs only: add --grow-reads=outputs")
    remat = tuple(dict.fromkeys((*options.remat, "none", "sqrt")))
    options = replace(options, engines=options.engines or ("auto",), remat=remat)
    made_of, bench, found = cells(options), Bench(options), []
    for dtype in options.dtypes:
        rows, steps = [], 64
        while steps <= options.grow:
            facts = dict(shape="growth", batch=options.grow_batch, steps=steps)
            facts |= dict(inputs=options.grow_inputs, width=options.grow_width)
            kind = {"state": "state", "outputs": "gradient"}[options.grow_reads]
            facts |= dict(kind=kind, dtype=dtype)
            rows += bench.rows(facts, *candidates(options, made_of, facts))
            bench.console.print(Text(f"T={steps} is measured", style="dim"))
            steps *= 2
        names = dict.fromkeys(row["candidate"] for row in rows if row["temporary_mb"])
        names |= dict.fromkeys(row["candidate"] for row in rows if row["ms"])
        exponents = [fit(name, rows) for name in names]
        if exponents:
            bench.console.print(growth_table(rows, exponents))
            only = len(options.dtypes) == 1
            plot = Path(options.out, "grow.png" if only else f"grow-{dtype}.png")
            save_figure(plot, figure(rows, exponents))
            bench.console.print(Text(f"written: {bench.path}, {plot}"))
        found += rows + exponents
    return found


def fit(name: str, rows: list[Row]) -> Row:
    """Exponents of time and of bytes in T for one candidate: a line on logarithms."""
    found: Row = {"candidate": name, "time": None, "bytes": None}
    for power, what in (("time", "ms"), ("bytes", "temporary_mb")):
        points = [
            (row["steps"], row[what])
            for row in rows
            if row["candidate"] == name and row[what]
        ]
        if len(points) > 1:
            steps, values = np.log(points).T
            found[power] = float(np.polyfit(steps, values, 1)[0])
    return found
