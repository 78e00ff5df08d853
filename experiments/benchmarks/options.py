"""The options of the benchmarks; this file imports nothing heavy, for `--help`."""

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Layers:
    """Time single layers: engines, cells and, with --peers, other libraries.

    All candidates run in one process, in a new random order each round.

    Ratios are medians over rounds.
    """

    shapes: tuple[str, ...] = ("rows", "pixels", "medium", "wide")
    """Names of shapes, or B,T,F,D, such as 8,64,3,16."""
    kinds: tuple[Literal["forward", "gradient"], ...] = ("gradient",)
    """Forward pass, or gradient of the sum of squared outputs by the params."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)
    """dtypes of weights and inputs."""
    engines: tuple[str, ...] = ()
    """Engines of unroll; default: all that run here, and auto."""
    cells: tuple[Literal["lstm", "gru", "layer-norm"], ...] = ("lstm",)
    """Cells to time."""
    cell: str = ""
    """Also time your own cell: FILE.py:FUNCTION, called with D."""
    remat: tuple[Literal["none", "step", "sqrt"], ...] = ("none",)
    """Rematerialisation, as in unroll."""
    images: bool = False
    """Also time two layers of a convolutional LSTM."""
    peers: bool = False
    """Also time PyTorch, Flax, Haiku, Keras and Equinox, if installed."""
    grow: int = 0
    """Instead of shapes: time and memory of gradients for T = 64, 128, … up to this."""
    grow_reads: Literal["state", "outputs"] = "state"
    """With --grow: gradient of the final state, or of all outputs."""
    grow_batch: int = 32
    """With --grow: batch size B."""
    grow_inputs: int = 1
    """With --grow: input features F."""
    grow_width: int = 256
    """With --grow: hidden width D."""
    rounds: int = 7
    """Number of rounds; each candidate is timed once per round."""
    seed: int = 0
    """Seed of weights, inputs and the order within a round."""
    out: Path = Path("runs/benchmark")
    """Folder of plots and of results.jsonl, to which rows are appended."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """Time a training step of one network in each library."""

    batch: int = 128
    """B, batch size."""
    steps: int = 28
    """T, time steps."""
    inputs: int = 28
    """F, input features."""
    features: int = 128
    """D, hidden width."""
    rounds: int = 30
    """Number of rounds; each library is timed once per round."""
    repeat: int = 5
    """Training steps per measurement."""


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Train the same network on Fashion-MNIST rows here and in PyTorch."""

    manual_dir: str | None = None
    """Folder with the four idx files, if there is no internet access."""
    seeds: int = 3
    """Number of seeds."""
    epochs: float = 6
    """Epochs per run."""
    out: Path = Path("runs/accuracy")
    """Folder of the runs and of accuracy.json."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Compare an LSTM with a vanilla RNN on digits followed by rows of noise."""

    noise_rows: tuple[int, ...] = (0, 24, 56)
    """Numbers of noise rows after the 8 rows of a digit; one task each."""
    seeds: int = 2
    """Number of seeds."""
    epochs: float = 100
    """Epochs per run."""
    features: int = 64
    """Hidden width."""
    out: Path = Path("runs/memory")
    """Folder of the runs, the table (.json) and the plot (.png)."""


@dataclasses.dataclass(frozen=True)
class Ablations:
    """Show vanishing and exploding gradients, overfitting and slow convergence."""

    cases: tuple[str, ...] = ("vanishing", "exploding", "overfitting", "slow")
    """Cases to run."""
    manual_dir: str | None = None
    """Folder with Fashion-MNIST's files for slow, if there is no internet access."""
    seeds: int = 1
    """Number of seeds."""
    out: Path = Path("runs/ablations")
    """Folder of the runs, the tables (.json) and the figures (.png)."""


@dataclasses.dataclass(frozen=True)
class Compile:
    """Compile for TPUs and GPUs without these devices."""

    targets: tuple[str, ...] = ("v5e", "h200")
    """v4, v5e, v5p, v6e, h100, h200; or a slice, such as v5e:2x4."""
    shapes: tuple[str, ...] = ("rows", "pixels", "medium", "wide")
    """Names of shapes, or B,T,F,D."""
    engines: tuple[str, ...] = ("auto", "scan", "vjp", "flax")
    """Engines of unroll; flax: Flax's nn.RNN with an LSTMCell."""
    kinds: tuple[Literal["forward", "gradient"], ...] = ("forward", "gradient")
    """Forward pass, gradient, or both."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """dtypes of the computation."""
    presets: tuple[str, ...] = ()
    """Compile training steps of presets instead: fashion-rows, moving-fashion."""
    batch_per_device: int | None = None
    """Batch size per device; default: split the preset's batch."""
    xla: tuple[str, ...] = ()
    """XLA options, NAME=VALUE."""
    out: Path | None = None
    """File for one line of JSON per program."""


@dataclasses.dataclass(frozen=True)
class TextRecognition:
    """Compare a text recogniser with Tesseract, if it is installed.

    Tesseract gets enlarged lines with a white border.

    It runs in one process: --psm 7 --oem 1 -l eng --dpi 300.
    """

    run: Path
    """Run folder of a text recogniser, such as runs/text-lines."""
    split: Literal["test", "unseen_fonts"] = "unseen_fonts"
    """Split of the data set."""
    data: str | None = None
    """Another data set, such as text_lines/all; default: that of the run."""
    limit: int = 1000
    """Maximum number of lines."""
    scale: int = 3
    """Enlargement factor of Tesseract's images."""
