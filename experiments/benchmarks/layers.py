"""Time, memory and fraction of peak of single layers, by engine, cell and library."""

import dataclasses
import difflib
import importlib.util
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.text import Text

from experiments.benchmarks import layer_figures, peers
from experiments.benchmarks.bench import Bench, Row
from experiments.benchmarks.options import Layers
from experiments.benchmarks.timing import Timed, compiled
from lstm_jax import conv_lstm, gru, lstm, stack, training, unroll
from lstm_jax.unroll import ENGINES

SHAPES = {  # B T F D
    "rows": (128, 28, 28, 128),
    "pixels": (128, 784, 1, 128),
    "medium": (64, 128, 512, 512),
    "wide": (32, 128, 1024, 1024),
}
IMAGES = (8, 19, 16, 48)  # B T, height = width, channels
CELLS = {  # (cell, number of gates)
    "lstm": (lstm, 4),
    "gru": (gru, 3),
    "layer-norm": (partial(lstm, layer_norm=True), 4),
}


def layers(options: Layers) -> list[Row]:
    """Prints a table for each shape, kind and dtype; writes results.jsonl and a plot.

    Returns:
      A row for each candidate; `ms` is None and `refused` a reason if it did not run.
      With `grow`, the rows of `growth`.
    """
    training.split_cpu()
    if options.grow:
        return growth(options)
    shapes = {name: shape(name) for name in options.shapes}
    kinds_of_cell = cells(options)
    bench = Bench(options)
    rows = []
    for dtype, kind in itertools.product(options.dtypes, options.kinds):
        for name, (batch, steps, inputs, width) in shapes.items():
            facts = dict(shape=name, batch=batch, steps=steps, inputs=inputs)
            facts |= dict(width=width, kind=kind, dtype=dtype)
            rows += bench.table(facts, *candidates(options, kinds_of_cell, facts))
        if options.images:
            batch, steps, side, width = IMAGES
            facts = dict(shape="images", batch=batch, steps=steps, inputs=width)
            facts |= dict(side=side, width=width, kind=kind, dtype=dtype)
            rows += bench.table(facts, *images(options, facts))
    for line in layer_figures.geometric_means(rows):
        bench.console.print(Text(line, style="bold"))
    if any(row["ms"] for row in rows):
        bench.save("benchmark.png", layer_figures.overview(rows))
    return rows


def growth(options: Layers) -> list[Row]:
    """Times gradients for T = 64, 128, …; prints a table and draws a plot.

    Each candidate runs with and without `remat="sqrt"`. For candidates that need more
    memory than is free, only the bytes are reported.

    Returns:
      Rows as in `layers`, and for each candidate a row with `time` and `bytes`, the
      fitted exponents of T.
    """
    if options.grow < 64:
        raise ValueError(f"grow={options.grow}, but lengths start at T=64")
    if options.peers and options.grow_reads == "state":
        raise ValueError("--grow with --peers needs --grow-reads=outputs")
    remat = tuple(dict.fromkeys((*options.remat, "none", "sqrt")))
    engines = options.engines or ("auto",)
    options = dataclasses.replace(options, engines=engines, remat=remat)
    kinds_of_cell, bench, found = cells(options), Bench(options), []
    for dtype in options.dtypes:
        rows, steps = [], 64
        while steps <= options.grow:
            facts = dict(shape="growth", batch=options.grow_batch, steps=steps)
            facts |= dict(inputs=options.grow_inputs, width=options.grow_width)
            kind = {"state": "state", "outputs": "gradient"}[options.grow_reads]
            facts |= dict(kind=kind, dtype=dtype)
            rows += bench.rows(facts, *candidates(options, kinds_of_cell, facts))
            bench.console.print(Text(f"T={steps} done", style="dim"))
            steps *= 2
        names = dict.fromkeys(row["candidate"] for row in rows if row["temporary_mb"])
        names |= dict.fromkeys(row["candidate"] for row in rows if row["ms"])
        exponents = [fit(name, rows) for name in names]
        if exponents:
            bench.console.print(layer_figures.growth_table(rows, exponents))
            only = len(options.dtypes) == 1
            plot = "grow.png" if only else f"grow-{dtype}.png"
            bench.save(plot, layer_figures.growth(rows, exponents))
        found += rows + exponents
    return found


def fit(name: str, rows: list[Row]) -> Row:
    """Fits the exponents of time and bytes in T for one candidate, by log-log lines."""
    found: Row = {"candidate": name, "time": None, "bytes": None}
    for power, what in (("time", "ms"), ("bytes", "temporary_mb")):
        points = layer_figures.points(rows, name, what)
        if len(points) > 1:
            steps, values = np.log(points).T
            found[power] = float(np.polyfit(steps, values, 1)[0])
    return found


def shape(text: str) -> tuple[int, int, int, int]:
    """`(B, T, F, D)` of a shape's name, or of numbers such as "8,64,3,16"."""
    if text in SHAPES:
        return SHAPES[text]
    try:
        numbers = tuple(int(part) for part in text.split(","))
        if len(numbers) == 4 and min(numbers) >= 1:
            return numbers
    except ValueError:
        pass
    near = difflib.get_close_matches(text, SHAPES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"shape {text!r}: give {', '.join(SHAPES)}, or B,T,F,D as 8,64,3,16{hint}"
    )


def cells(options: Layers) -> dict[str, tuple[Callable, int | None]]:
    """`(function of D to the cell, number of gates or None)` by name."""
    found = {name: CELLS[name] for name in options.cells}
    if options.cell:
        path, _, function = options.cell.partition(":")
        if not function or not Path(path).is_file():
            raise ValueError(
                f"--cell={options.cell}: give FILE.py:FUNCTION of an existing file"
            )
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[function] = getattr(module, function), None
    return found


def flops(facts: Row, gates: int = 4, window: int = 1, layers: int = 1) -> float:
    """FLOPs of the matrix products of a layer.

    A product of `[m, k]` and `[k, n]` counts 2 m k n. The forward pass multiplies the
    inputs and the state; the gradient adds products for the weights, for the state, and
    above the first layer for the inputs. Recomputation by `remat` is not counted.

    Args:
      facts: batch, steps, inputs, width, kind; side for images.
      gates: number of gates of width D.
      window: size of a convolution kernel, 9 for 3x3.
      layers: number of equal layers.
    """
    positions = facts["batch"] * facts["steps"] * facts.get("side", 1) ** 2
    unit = 2 * positions * window * gates * facts["width"]
    forward = unit * (facts["inputs"] + facts["width"])
    if facts["kind"] == "forward":
        return layers * forward
    above = (layers - 1) * unit * facts["inputs"]
    return layers * (2 * forward + unit * facts["width"]) + above


def candidates(options: Layers, cells: dict[str, tuple], facts: Row):
    """`(functions that create layers, FLOPs if known)`, both by name."""
    xs = _inputs(options, facts, facts["inputs"])
    width, made, counts = facts["width"], {}, {}
    for name, (cell, gates) in cells.items():
        own = _ways(options, facts, name, (cell(width),), xs)
        made |= own
        if gates:
            counts |= dict.fromkeys(own, flops(facts, gates))
    if options.peers:
        others = peers.peers(width, xs, options.seed, facts["kind"])
        made |= others
        counts |= dict.fromkeys(others, flops(facts))
    return made, counts


def images(options: Layers, facts: Row):
    """As `candidates`, for two layers of a convolutional LSTM, and for their stack."""
    side, width, kind = facts["side"], facts["width"], facts["kind"]
    xs = _inputs(options, facts, side, side, width)
    cells = (conv_lstm(width, (3, 3)),) * 2
    made = _ways(options, facts, "conv_lstm", cells, xs)
    both = partial(_ours, (stack(*cells),), xs, width, options.seed, kind)
    made["stack, scan, remat=step"] = partial(both, "scan", "step")
    if options.peers:
        made |= peers.peers(width, xs, options.seed, kind, images=True)
    return made, dict.fromkeys(made, flops(facts, window=9, layers=2))


def _inputs(options: Layers, facts: Row, *features: int) -> jax.Array:
    size = (facts["steps"], facts["batch"], *features)
    return jax.random.normal(jax.random.key(options.seed), size).astype(facts["dtype"])


def _ways(options: Layers, facts: Row, name: str, cells: tuple, xs):
    """The layers of lstm_jax by engine and remat; the batch also split over cores."""
    run = partial(_ours, cells, xs, facts["width"], options.seed, facts["kind"])
    made = {}
    for engine in options.engines or (*ENGINES, "auto"):
        for remat in options.remat:
            tail = "" if remat == "none" else f", remat={remat}"
            made[f"{name}, {engine}{tail}"] = partial(run, engine, remat)
    devices = jax.devices()
    if training.are_cores(devices) and facts["batch"] % len(devices) == 0:
        # The batch is split over the CPU cores, as in `train`.
        made[f"{name}, auto, a device a core"] = partial(run, "auto", "none", True)
    return made


def _ours(
    cells, xs, width, seed: int, kind: str, engine: str, remat: str, cores: bool = False
) -> Timed:
    @jax.jit
    def init(key):
        keys = jax.random.split(key, len(cells))
        pairs = zip(cells, keys, strict=True)
        return [cell.init(key, xs.shape[2:], xs.dtype) for cell, key in pairs]

    options = dict(engine=engine, remat=None if remat == "none" else remat)

    def apply(params, ys):
        for cell, p in zip(cells, params, strict=True):
            ys, carry = unroll(cell, p, ys, **options)
        return carry if kind == "state" else ys

    return compiled(apply, init(jax.random.key(seed)), xs, width, kind, cores)
