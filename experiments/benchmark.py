"""Measures: `python -m experiments.benchmark [COMMAND]`.

`layers`, which is meant where nothing is named, times single layers by engine, cell,
shape and dtype, with `--peers` beside the same layer in PyTorch, Flax, Haiku, Keras and
Equinox, and with `--grow` by length. `speed` times a training step of one network as
we, Flax and PyTorch run it, in one process and in turn. `accuracy` trains the same
network here and in PyTorch on Fashion-MNIST. `memory` trains an LSTM and a vanilla RNN
where what matters lies many steps back, and draws how far their gradients reach.
`ablations` shows how training fails, and what helps. `compile`, or `--compile-for=v5e`,
compiles layers and training steps for TPUs and GPUs that are not here, and counts what
becomes of them. `reading` reads lines of text by a run, and by Tesseract.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from experiments.benchmarks.ablations import Ablations, ablations
from experiments.benchmarks.comparisons import Accuracy, Memory, accuracy, memory
from experiments.benchmarks.tesseract import Reading, reading
from experiments.errors import explain

_HELP = ("-h", "--help")


@dataclasses.dataclass(frozen=True)
class Speed:
    """Times a training step (forward, backward, clipping, Adam) of each library."""

    batch: int = 128
    steps: int = 28
    """T, steps of a sequence."""
    inputs: int = 28
    """F, features of a step."""
    features: int = 128
    """D, hidden width."""
    rounds: int = 30
    """Each library is timed once a round, in turn."""
    repeat: int = 5
    """Training steps timed together."""


@dataclasses.dataclass(frozen=True)
class Layers:
    """Times single layers: engines and cells, beside other libraries with --peers.

    All in one process and in turn, in a new random order each round. Weights and inputs
    have the dtype that is named. A ratio is the median of the rounds' ratios.
    """

    shapes: tuple[str, ...] = ("rows", "pixels", "medium", "wide")
    """Any of these, or B,T,F,D of your own, such as 8,64,3,16."""
    kinds: tuple[Literal["forward", "gradient"], ...] = ("gradient",)
    """The outputs; the gradient of the sum of their squares by all params, which is a
    training step without its optimizer."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)
    engines: tuple[str, ...] = ()
    """Of unroll; by default every one that runs here, and "auto"."""
    cells: tuple[Literal["lstm", "gru", "layer-norm"], ...] = ("lstm",)
    cell: str = ""
    """A cell of your own beside them: FILE.py:FUNCTION, called with D."""
    remat: tuple[Literal["none", "step", "sqrt"], ...] = ("none",)
    """What the backward pass makes anew to save memory, as in unroll."""
    images: bool = False
    """Also two layers of a convolutional LSTM."""
    peers: bool = False
    """Also PyTorch, Flax, Haiku, Keras and Equinox, those that are installed."""
    grow: int = 0
    """Instead of the shapes: how time and memory of a gradient grow with the length,
    over T = 64, 128, ..., up to this; with and without remat=sqrt, and by engine="auto"
    unless others are named."""
    grow_reads: Literal["state", "outputs"] = "state"
    """What the gradient is of: the final state, as a classifier's, or all outputs,
    which grow with the length themselves."""
    grow_batch: int = 32
    grow_inputs: int = 1
    grow_width: int = 256
    rounds: int = 7
    """Each candidate is timed once a round."""
    seed: int = 0
    """Of weights, inputs and the order of a round."""
    out: Path = Path("runs/benchmark")
    """Folder of results.jsonl, to which every call adds its lines, and of plots."""


@dataclasses.dataclass(frozen=True)
class Compile:
    """Compiles for devices that are not here; says where a compiler is missing."""

    targets: tuple[str, ...] = ("v5e", "h200")
    """v4, v5e, v5p, v6e, h100, h200; or a slice, such as v5e:2x4."""
    shapes: tuple[str, ...] = ("rows", "pixels", "medium", "wide")
    engines: tuple[str, ...] = ("auto", "scan", "vjp", "flax")
    """Of `unroll`; flax is its nn.RNN of an LSTMCell."""
    kinds: tuple[str, ...] = ("forward", "gradient")
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    presets: tuple[str, ...] = ()
    """Training steps of these instead of layers: fashion-rows, moving-fashion."""
    batch_per_device: int | None = None
    """Of a preset; by default its batch is split over the devices."""
    xla: tuple[str, ...] = ()
    """Options of XLA, NAME=VALUE."""
    bundles: bool = False
    """Count instruction words of TPUs, too, which takes many times as long."""
    out: Path | None = None
    """A file for a line of JSON a program."""


def compile_apart(options: Compile) -> None:
    """Prints tables of layers, or of training steps."""
    from experiments.benchmarks import compile_tables, layers

    xla = dict(option.split("=", 1) for option in options.xla)
    if options.presets:
        compile_tables.step_table(
            options.targets,
            options.presets,
            options.dtypes,
            options.out,
            batch_per_device=options.batch_per_device,
            options=xla,
        )
    else:
        compile_tables.compile_table(
            options.targets,
            {name: layers.SHAPES[name] for name in options.shapes},
            options.engines,
            options.kinds,
            options.dtypes,
            options.out,
            options=xla,
            bundles=options.bundles,
        )


def benchmark(options: Layers | None = None, **changes: Any) -> list[dict[str, Any]]:
    """Times layers, prints tables, and returns their rows.

    >>> benchmark(shapes=("rows",), peers=True)  # doctest: +SKIP

    Args:
      options: what to time; by default `Layers()`.
      **changes: fields of `Layers` by name.
    """
    from lstm_jax import training

    training.split_cpu()
    from experiments.benchmarks import growth, layers

    options = dataclasses.replace(options or Layers(), **changes)
    return growth.growth(options) if options.grow else layers.layers(options)


def speed(options: Speed) -> dict[str, float]:
    """Images a second by library: medians of rounds taken in turn."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.steps, options.inputs)
    xs = rng.standard_normal(shape, np.float32)
    labels = rng.integers(0, 10, options.batch, np.int32)
    candidates = {
        "lstm_jax": _ours(options, xs, labels, "vjp"),
        "lstm_jax, engine=scan": _ours(options, xs, labels, "scan"),
        "flax nn.RNN, LSTMCell": _flax(options, xs, labels, "LSTMCell"),
        "flax nn.RNN, OptimizedLSTMCell": _flax(
            options, xs, labels, "OptimizedLSTMCell"
        ),
    }
    try:
        candidates["torch nn.LSTM"] = _torch(options, xs, labels)
    except ImportError:
        print("PyTorch is not installed; it is left out")
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run(2)  # compile, and warm up
    for _ in range(options.rounds):
        # In another order each time: what one leaves spinning slows the next.
        for name in rng.permutation(list(candidates)):
            run = candidates[name]
            start = time.perf_counter()
            run(options.repeat)
            times[name].append((time.perf_counter() - start) / options.repeat)
    rates = {k: options.batch / float(np.median(v)) for k, v in times.items()}
    ours = times["lstm_jax"]
    print(
        f"training step, B={options.batch} T={options.steps} F={options.inputs} "
        f"D={options.features}, float32; {options.rounds} rounds in turn"
    )
    shares = _shares(options, xs)
    for name, rate in rates.items():
        ratio = float(np.median(np.divide(times[name], ours)))
        print(f"  {name:<32}{rate:>10,.0f} images/s   ours is {ratio:.2f} x as fast")
    whole = 1000 * options.batch / rates["lstm_jax"]
    parts = ", ".join(f"{name} {ms:.1f} ms" for name, ms in shares.items())
    print(f"  our step {whole:.1f} ms; alone: {parts}")
    return rates


def _shares(options: Speed, xs) -> dict[str, float]:
    """Milliseconds of parts of our step: the forward pass, and its products alone."""
    import jax
    from jax import lax

    from lstm_jax import lstm, unroll

    cell = lstm(options.features)
    params = cell.init(jax.random.key(0), (options.inputs,))
    xs = xs.swapaxes(0, 1)  # [T, B, F]

    def products(params):
        def body(h, x_t):
            z = x_t @ params["w_x"] + h @ params["w_h"]
            return z[:, : options.features], None

        h = jax.numpy.zeros((options.batch, options.features))
        return lax.scan(body, h, xs)[0]

    parts = {
        "forward": jax.jit(lambda params: unroll(cell, params, xs).ys),
        "its products": jax.jit(products),
        "inputs projected first": jax.jit(
            lambda params: xs @ params["w_x"] + params["b"]
        ),
    }
    times = {}
    for name, run in parts.items():
        jax.block_until_ready(run(params))
        samples = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            jax.block_until_ready(run(params))
            samples.append(time.perf_counter() - start)
        times[name] = 1000 * float(np.median(samples))
    return times


def _jax_step(init: Callable, apply: Callable, xs, labels) -> Callable[[int], None]:
    """A timed training step of a JAX network: `run(n)` takes n of them."""
    import jax
    import optax

    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    params = init(jax.random.key(0))
    state = [params, tx.init(params)]

    def loss(params):
        logits = apply(params, xs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params, opt_state):
        grads = jax.grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(step, donate_argnums=(0, 1))

    def run(count: int) -> None:
        for _ in range(count):
            state[:] = step(*state)
        jax.block_until_ready(state)

    return run


def _ours(options: Speed, xs, labels, engine: str):
    from lstm_jax import lstm
    from lstm_jax.models import SequenceClassifier, sequences

    model = SequenceClassifier(
        sequences.rows(), (lstm(options.features),), 10, engine=engine
    )
    images = xs[..., None]  # [B, T, F, 1]: each step is a row
    return _jax_step(lambda key: model.init(key, images), model.apply, images, labels)


def _flax(options: Speed, xs, labels, cell: str):
    import flax.linen as nn

    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, xs):
            ys = nn.RNN(getattr(nn, cell)(options.features))(xs)
            return nn.Dense(10)(ys[:, -1])

    model = Classifier()
    return _jax_step(lambda key: model.init(key, xs), model.apply, xs, labels)


def _torch(options: Speed, xs, labels):
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(
                options.inputs, options.features, batch_first=True
            )
            self.head = torch.nn.Linear(options.features, 10)

        def forward(self, xs):
            return self.head(self.lstm(xs)[0][:, -1])

    model = Classifier()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    xs, labels = torch.from_numpy(xs), torch.from_numpy(labels).long()

    def run(count: int) -> None:
        for _ in range(count):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(model(xs), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()

    return run


def _named(arguments: list[str]) -> list[str]:
    """With the command that is meant: of --compile-for, compile; of none, layers."""
    for at, argument in enumerate(arguments):
        flag, _, targets = argument.partition("=")
        if flag == "--compile-for" and targets:
            rest = arguments[:at] + arguments[at + 1 :]
            return ["compile", "--targets", *targets.split(","), *rest]
    if not arguments or arguments[0].startswith("-") and arguments[0] not in _HELP:
        return ["layers", *arguments]
    return arguments


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    import tyro

    Choice = (
        Annotated[Layers, tyro.conf.subcommand("layers")]
        | Annotated[Speed, tyro.conf.subcommand("speed")]
        | Annotated[Accuracy, tyro.conf.subcommand("accuracy")]
        | Annotated[Memory, tyro.conf.subcommand("memory")]
        | Annotated[Ablations, tyro.conf.subcommand("ablations")]
        | Annotated[Compile, tyro.conf.subcommand("compile")]
        | Annotated[Reading, tyro.conf.subcommand("reading")]
    )
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    arguments = _named(arguments)
    options = tyro.cli(
        Choice,
        args=arguments,
        prog="python -m experiments.benchmark",
        description="Measures. Without a command, its flags are those of layers.",
    )
    try:
        runs = {Layers: benchmark, Speed: speed, Accuracy: accuracy, Memory: memory}
        runs |= {Ablations: ablations, Compile: compile_apart, Reading: reading}
        runs[type(options)](options)
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
