"""Single layers by engine, cell and library: time, memory, share of the machine."""

import difflib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
from rich.text import Text

from experiments.benchmarks import peers
from experiments.benchmarks.bench import Bench, Row
from experiments.benchmarks.layer_figures import geometric_means, overview
from experiments.benchmarks.timing import Timed, compiled
from experiments.run.record import save_figure
from lstm_jax import conv_lstm, gru, lstm, stack, training, unroll
from lstm_jax.unroll import ENGINES

SHAPES = {  # B T F D
    "rows": (128, 28, 28, 128),
    "pixels": (128, 784, 1, 128),
    "medium": (64, 128, 512, 512),
    "wide": (32, 128, 1024, 1024),
}
IMAGES = (8, 19, 16, 48)  # B T, height and width, channels
CELLS = {  # and the number of their gates
    "lstm": (lstm, 4),
    "gru": (gru, 3),
    "layer-norm": (partial(lstm, layer_norm=True), 4),
}


def layers(options) -> list[Row]:
    """Prints a table for each shape, kind and dtype; writes results.jsonl and a plot.

    Returns:
      Rows: a candidate each, with `ms` None and `refused` a reason where it did not
      run.
    """
    shapes = {name: shape(name) for name in options.shapes}
    kinds_of_cell = cells(options)
    bench = Bench(options)
    rows = []
    for dtype in options.dtypes:
        for kind in options.kinds:
            for name, (batch, steps, inputs, width) in shapes.items():
                facts = dict(shape=name, batch=batch, steps=steps, inputs=inputs)
                facts |= dict(width=width, kind=kind, dtype=dtype)
                rows += bench.table(facts, *candidates(options, kinds_of_cell, facts))
            if options.images:
                batch, steps, side, width = IMAGES
                facts = dict(shape="images", batch=batch, steps=steps, inputs=width)
                facts |= dict(side=side, width=width, kind=kind, dtype=dtype)
                rows += bench.table(facts, *images(options, facts))
    for line in geometric_means(rows):
        bench.console.print(Text(line, style="bold"))
    plot = Path(options.out, "benchmark.png")
    if any(row["ms"] for row in rows):
        save_figure(plot, overview(rows))
        bench.console.print(Text(f"written: {bench.path}, {plot}"))
    return rows


def shape(text: str) -> tuple[int, int, int, int]:
    """B, T, F and D of a name, or of numbers such as "8,64,3,16"."""
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
        f"shape {text!r} is none of {', '.join(SHAPES)}, nor B,T,F,D as 8,64,3,16{hint}"
    )


def cells(options) -> dict[str, tuple[Callable, int | None]]:
    """Makers of cells by name, and how many gates each has, if that is known."""
    found = {name: CELLS[name] for name in options.cells}
    if options.cell:
        path, _, function = options.cell.partition(":")
        if not function or not Path(path).is_file():
            raise ValueError(
                f"--cell={options.cell}: wanted FILE.py:FUNCTION of a file that is "
                "there"
            )
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[function] = getattr(module, function), None
    return found


def flops(facts: Row, gates: int = 4, window: int = 1, layers: int = 1) -> float:
    """Floating-point operations of a layer's matrix products, as the equations ask.

    A product of `[m, k]` and `[k, n]` is 2 m k n. Forward: the inputs' and the state's.
    A gradient adds one of that size for the weights, one for the state, and in layers
    above the first one for their inputs; what `remat` makes anew is not counted.

    Args:
      facts: batch, steps, inputs, width, kind; side of an image, where it is one.
      gates: blocks of width D.
      window: weights that a pixel of an image meets, 9 of a kernel of 3x3.
      layers: how many, all alike.
    """
    positions = facts["batch"] * facts["steps"] * facts.get("side", 1) ** 2
    unit = 2 * positions * window * gates * facts["width"]
    forward = unit * (facts["inputs"] + facts["width"])
    if facts["kind"] == "forward":
        return layers * forward
    above = (layers - 1) * unit * facts["inputs"]
    return layers * (2 * forward + unit * facts["width"]) + above


def candidates(options, cells: dict[str, tuple], facts: Row):
    """Layers by name, and the operations of those that are known."""
    size = (facts["steps"], facts["batch"], facts["inputs"])
    xs = jax.random.normal(jax.random.key(options.seed), size).astype(facts["dtype"])
    width, kind = facts["width"], facts["kind"]
    made, counts = {}, {}
    for cell_name, (cell, gates) in cells.items():
        for engine in options.engines or (*ENGINES, "auto"):
            for remat in options.remat:
                name = f"{cell_name}, {engine}" + _tail(remat)
                run = partial(_ours, (cell(width),), xs, width, engine, remat)
                made[name] = partial(run, options.seed, kind)
                if gates:
                    counts[name] = flops(facts, gates)
        if _shared(facts):
            name = f"{cell_name}, auto, a device a core"
            run = partial(_ours, (cell(width),), xs, width, "auto", "none")
            made[name] = partial(run, options.seed, kind, cores=True)
            if gates:
                counts[name] = flops(facts, gates)
    if options.peers:
        others = peers.peers(width, xs, options.seed, kind)
        made |= others
        counts |= dict.fromkeys(others, flops(facts))
    return made, counts


def images(options, facts: Row):
    """Two layers of a convolutional LSTM, and both as one cell."""
    side, width, kind = facts["side"], facts["width"], facts["kind"]
    size = (facts["steps"], facts["batch"], side, side, width)
    xs = jax.random.normal(jax.random.key(options.seed), size).astype(facts["dtype"])
    cells = (conv_lstm(width, (3, 3)),) * 2
    made = {}
    for engine in options.engines or (*ENGINES, "auto"):
        for remat in options.remat:
            run = partial(_ours, cells, xs, width, engine, remat, options.seed, kind)
            made[f"conv_lstm, {engine}" + _tail(remat)] = run
    if _shared(facts):
        run = partial(_ours, cells, xs, width, "auto", "none", options.seed, kind)
        made["conv_lstm, auto, a device a core"] = partial(run, cores=True)
    both = partial(_ours, (stack(*cells),), xs, width, "scan", "step")
    made["stack, scan, remat=step"] = partial(both, options.seed, kind)
    if options.peers:
        made |= peers.peers(width, xs, options.seed, kind, images=True)
    return made, dict.fromkeys(made, flops(facts, window=9, layers=2))


def _shared(facts: Row) -> bool:
    """Whether the batch is shared by the cores of this machine, as `train` does."""
    devices = jax.devices()
    return training.are_cores(devices) and facts["batch"] % len(devices) == 0


def _tail(remat: str) -> str:
    return "" if remat == "none" else f", remat={remat}"


def _ours(
    cells, xs, width, engine: str, remat: str, seed: int, kind: str, cores: bool = False
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
