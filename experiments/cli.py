"""The console script `lstm-jax`, and the command-line parsing that commands share.

`lstm-jax train` equals `python -m experiments.train`.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from experiments import COMMANDS
from experiments.errors import UsageError, check_once, explain

USAGE = f"usage: lstm-jax {{{','.join(COMMANDS)}}} ...\n\nSee lstm-jax COMMAND --help."


def main(arguments: list[str] | None = None) -> int:
    """Runs the command named first; returns its exit code, 2 for an unknown command."""
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
      options: the dataclass of its options, or a union of dataclasses.
      command: called with the options; returns an exit code, None for 0.
      arguments: of the command line; None: `sys.argv[1:]`.
      positional: make options without a default positional arguments.
      description: of the command; default: the docstring of `options`.

    Returns:
      The exit code: 2 after an error message on standard error.
    """
    import tyro

    given = sys.argv[1:] if arguments is None else arguments
    words = [word.partition("=")[0] for word in given if word.startswith("--")]
    try:
        check_once(words)
    except UsageError as error:
        print(explain(error), file=sys.stderr)
        return 2
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
