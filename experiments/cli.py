"""Command lines: of the console script `lstm-jax`, and what the commands share.

`lstm-jax train` is `python -m experiments.train`.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from experiments import COMMANDS
from experiments.errors import explain

USAGE = (
    f"usage: lstm-jax {{{','.join(COMMANDS)}}} ...\n\n"
    "lstm-jax COMMAND --help says more."
)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command by its name; the exit code is the command's, 2 for no command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"lstm-jax: unknown command {name!r}\n{USAGE}", file=sys.stderr)
        return 2
    return importlib.import_module(f"experiments.{name}").main(rest)


def run(
    name: str,
    options: Any,
    command: Callable[[Any], int | None],
    arguments: list[str] | None,
    *,
    positional: bool = True,
    description: str | None = None,
) -> int:
    """Parses a command line and runs a command.

    Args:
      name: of the command.
      options: a dataclass of its options, or a union of some.
      command: of the options; returns an exit code, None for 0.
      arguments: of the command line; None: those of the process.
      positional: options without a default are positional arguments.
      description: of the command; by default the docstring of `options`.

    Returns:
      The exit code: 2 for a mistake, which is told on standard error.
    """
    import tyro

    parsed = tyro.cli(
        options,
        args=arguments,
        prog=f"python -m experiments.{name}",
        description=description,
        config=(tyro.conf.PositionalRequiredArgs,) if positional else (),
    )
    try:
        return command(parsed) or 0
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2
