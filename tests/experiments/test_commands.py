"""Each command is a function of the package `experiments`, whatever was imported."""

import importlib
import types
from pathlib import Path

import pytest

import experiments

# Every file that `python -m experiments.NAME` runs.
COMMANDS = sorted(
    file.stem
    for file in Path(experiments.__file__).parent.glob("*.py")
    if '\nif __name__ == "__main__":\n' in file.read_text(encoding="utf-8")
)


def test_the_package_lists_every_command():
    assert COMMANDS == sorted(experiments.COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_function_after_its_module_is_imported(name):
    module = importlib.import_module(f"experiments.{name}")
    function = getattr(experiments, name)
    assert isinstance(function, types.FunctionType)
    assert function is getattr(module, name)
    assert callable(module.main)
