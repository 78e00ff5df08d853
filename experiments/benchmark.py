"""Benchmarks: `python -m experiments.benchmark [COMMAND]`.

- `layers` (the default) times single layers by engine, cell, shape and dtype; with
  `--peers` also in PyTorch, Flax, Haiku, Keras and Equinox; with `--grow` by length.
- `speed` times a training step of one network here, in Flax and in PyTorch.
- `accuracy` trains the same network here and in PyTorch on Fashion-MNIST.
- `memory` trains an LSTM and a vanilla RNN on a task with long-range dependencies.
- `ablations` trains networks with typical problems, with and without remedies.
- `compile`, or `--compile-for=v5e`, compiles layers and training steps for TPUs and
  GPUs without these devices, and analyses the programs.
- `text-recognition` compares a run with Tesseract.
"""

import dataclasses
import functools
import importlib
import operator
import sys
from typing import Annotated, Any

from experiments import cli
from experiments.benchmarks.options import (
    Ablations,
    Accuracy,
    Compile,
    Layers,
    Memory,
    Speed,
    TextRecognition,
)

_HELP = ("-h", "--help")
_COMMANDS = {  # options, and a function of them in experiments.benchmarks
    "layers": (Layers, "layers:layers"),
    "speed": (Speed, "speed:speed"),
    "accuracy": (Accuracy, "comparisons:accuracy"),
    "memory": (Memory, "comparisons:memory"),
    "ablations": (Ablations, "ablations:ablations"),
    "compile": (Compile, "compile_tables:compile_programs"),
    "text-recognition": (TextRecognition, "tesseract:text_recognition"),
}


def benchmark(options: Any = None, **changes: Any) -> Any:
    """Runs a benchmark, prints tables, and returns their rows.

    >>> benchmark(shapes=("rows",), peers=True)  # doctest: +SKIP

    Args:
      options: of a benchmark; default `Layers()`.
      **changes: fields of the options to change.
    """
    options = dataclasses.replace(options or Layers(), **changes)
    functions = dict(_COMMANDS.values())
    file, _, function = functions[type(options)].partition(":")
    module = importlib.import_module(f"experiments.benchmarks.{file}")
    return getattr(module, function)(options)


def _with_command(arguments: list[str]) -> list[str]:
    """Adds the default command `layers`, and replaces --compile-for by `compile`."""
    for at, argument in enumerate(arguments):
        flag, _, targets = argument.partition("=")
        if flag == "--compile-for" and targets:
            rest = arguments[:at] + arguments[at + 1 :]
            return ["compile", "--targets", *targets.split(","), *rest]
    if not arguments or arguments[0].startswith("-") and arguments[0] not in _HELP:
        return ["layers", *arguments]
    return arguments


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 2 after an error message."""
    import tyro

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = (
        Annotated[options, tyro.conf.subcommand(name)]
        for name, (options, _) in _COMMANDS.items()
    )
    return cli.run(
        "benchmark",
        functools.reduce(operator.or_, commands),
        lambda options: benchmark(options) and None,
        _with_command(arguments),
        positional=False,
        description="Run a benchmark. The default command is layers.",
    )


if __name__ == "__main__":
    sys.exit(main())
