"""Each command is a function of the package `experiments`, whatever was imported."""

import importlib
import types
from pathlib import Path

import pytest

import experiments
from experiments import cli

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


def test_the_console_script_runs_commands_by_their_names(monkeypatch, capsys):
    given = []
    module = importlib.import_module("experiments.report")
    monkeypatch.setattr(module, "main", lambda arguments: given.append(arguments) or 7)
    assert cli.main(["report", "runs/digits"]) == 7 and given == [["runs/digits"]]
    assert cli.main(["--help"]) == 0 and "train,predict" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert cli.main(["trian"]) == 2 and "'trian'" in capsys.readouterr().err
