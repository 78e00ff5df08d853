"""Options of the benchmarks; this file imports nothing heavy, for `--help`."""

import dataclasses
from pathlib import Path
from typing import Literal


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
    """What the backward pass recomputes to save memory, as in unroll."""
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
class Accuracy:
    """The same network on Fashion-MNIST rows, here and in PyTorch."""

    manual_dir: str | None = None
    """Folder with the four idx files, where there is no network."""
    seeds: int = 3
    epochs: float = 6
    out: Path = Path("runs/accuracy")


@dataclasses.dataclass(frozen=True)
class Memory:
    """LSTM against vanilla RNN on digits with rows of noise below them."""

    noise_rows: tuple[int, ...] = (0, 24, 56)
    """Rows of noise, each a task of its own; a digit itself has 8 rows."""
    seeds: int = 2
    epochs: float = 100
    features: int = 64
    out: Path = Path("runs/memory")
    """Folder of the runs, the table (.json) and the plot (.png)."""


@dataclasses.dataclass(frozen=True)
class Ablations:
    """Vanishing and exploding gradients, overfitting, slow convergence: what helps."""

    cases: tuple[str, ...] = ("vanishing", "exploding", "overfitting", "slow")
    manual_dir: str | None = None
    """Folder with Fashion-MNIST's files for `slow`, where there is no network."""
    seeds: int = 1
    out: Path = Path("runs/ablations")
    """Folder of the runs, the tables (.json) and the figures (.png)."""


@dataclasses.dataclass(frozen=True)
class Compile:
    """Compiles for devices that are not here; says where a compiler is missing."""

    targets: tuple[str, ...] = ("v5e", "h200")
    """v4, v5e, v5p, v6e, h100, h200; or a slice, such as v5e:2x4."""
    shapes: tuple[str, ...] = ("rows", "pixels", "medium", "wide")
    engines: tuple[str, ...] = ("auto", "scan", "vjp", "flax")
    """Of `unroll`; flax is its nn.RNN of an LSTMCell."""
    kinds: tuple[Literal["forward", "gradient"], ...] = ("forward", "gradient")
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    presets: tuple[str, ...] = ()
    """Training steps of these instead of layers: fashion-rows, moving-fashion."""
    batch_per_device: int | None = None
    """Of a preset; by default its batch is split over the devices."""
    xla: tuple[str, ...] = ()
    """Options of XLA, NAME=VALUE."""
    out: Path | None = None
    """A file for a line of JSON a program."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Reads the same lines by a run and by Tesseract, if it is installed.

    Tesseract gets each line enlarged, with a white border, and one process for all:
    `--psm 7 --oem 1 -l eng --dpi 300`, all of its symbols allowed.
    """

    run: Path
    """Folder of a run that reads lines, such as runs/text-lines."""
    split: Literal["test", "unseen_fonts"] = "unseen_fonts"
    data: str | None = None
    """Another set of lines, such as text_lines/all; default that of the run."""
    limit: int = 1000
    scale: int = 3
    """Factor by which Tesseract's images are enlarged."""
