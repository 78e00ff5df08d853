"""The commands, as functions: `train`, `predict`, `report`, `sweep`, `export`, ….

>>> from experiments import train  # doctest: +SKIP
>>> run = train("digits", steps=500)  # doctest: +SKIP
"""

import importlib
import sys
from types import ModuleType

COMMANDS = ("train", "predict", "report", "sweep", "benchmark", "export")


class _Commands(ModuleType):
    """A package whose attributes `train`, `predict`, … are functions, not modules.

    Importing the module `experiments.train` would otherwise replace the function of
    the same name.
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
