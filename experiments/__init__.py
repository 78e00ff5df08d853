"""The commands: each a function first, a command line second.

>>> from experiments import train  # doctest: +SKIP
>>> run = train("digits", steps=500)  # doctest: +SKIP
"""

import importlib
import sys
from types import ModuleType

COMMANDS = ("train", "predict", "report", "sweep", "benchmark", "export")


class _Commands(ModuleType):
    """This package, in which the name of a command is its function.

    `experiments.train` is a module to `python -m`, and would hide the function of
    the same name as soon as it is imported.
    """

    def __setattr__(self, name, value):
        if name in COMMANDS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


def __getattr__(name):
    if name in COMMANDS:
        return getattr(importlib.import_module(f"experiments.{name}"), name)
    raise AttributeError(f"module 'experiments' has no attribute {name!r}")


sys.modules[__name__].__class__ = _Commands
