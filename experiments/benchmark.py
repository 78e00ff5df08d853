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
    Reading,
    Speed,
)

_HELP = ("-h", "--help")
_COMMANDS = {  # options, and a function of them in experiments.benchmarks
    "layers": (Layers, "layers:layers"),
    "speed": (Speed, "speed:speed"),
    "accuracy": (Accuracy, "comparisons:accuracy"),
    "memory": (Memory, "comparisons:memory"),
    "ablations": (Ablations, "ablations:ablations"),
    "compile": (Compile, "compile_tables:compile_programs"),
    "reading": (Reading, "tesseract:reading"),
}


def benchmark(options: Any = None, **changes: Any) -> Any:
    """Measures, prints tables, and returns their rows.

    >>> benchmark(shapes=("rows",), peers=True)  # doctest: +SKIP

    Args:
      options: of a benchmark; by default `Layers()`.
      **changes: fields of the options by name.
    """
    options = dataclasses.replace(options or Layers(), **changes)
    functions = dict(_COMMANDS.values())
    file, _, function = functions[type(options)].partition(":")
    module = importlib.import_module(f"experiments.benchmarks.{file}")
    return getattr(module, function)(options)


def _with_command(arguments: list[str]) -> list[str]:
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
    """The command line. Exit code 0; 2 for a mistake."""
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
        description="Measures. Without a command, its flags are those of layers.",
    )


if __name__ == "__main__":
    sys.exit(main())
