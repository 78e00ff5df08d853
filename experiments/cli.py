"""The console script: `lstm-jax train` is `python -m experiments.train`."""

import importlib
import sys

from experiments import COMMANDS

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
