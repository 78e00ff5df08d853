"""Who may import whom, what an import costs, and how much there is to read."""

import ast
import subprocess
import sys
from pathlib import Path

from experiments.models import MODELS
from experiments.tasks import TASKS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lstm_jax"
LEVELS = {
    "keys": -2,
    "cell": -1,
    "initializers": 0,
    "validation": 0,
    "cells": 1,
    "interop": 2,  # names the carries of cells
    "export": 3,
    "engines": 2,
    "randomness": 3,
    "unroll": 4,
    "bidirectional": 5,
    "layers": 6,
    "models": 7,
    "inspect": 8,
}
# Packages that know no recurrent network, and all that they import.
ALONE = {
    "targets": set(),
    "data": {"targets"},
    "metrics": {"targets"},
    "figures": {"targets", "metrics"},
    "tasks": {"targets", "metrics", "figures"},
    "training": set(),
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_arrows_point_down():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    for path in files:
        here = room(path)
        if here == "__init__":
            continue
        for name in imports(path):
            assert not name.startswith(("experiments", "tests")), (path, name)
            if not name.startswith("lstm_jax."):
                continue
            there = name.split(".")[1]
            if there == here:
                continue
            if here in ALONE or there in ALONE:
                allowed = ALONE.get(here, {"figures"} if here == "inspect" else set())
                assert there in allowed, f"{path} imports {name}"
            else:
                assert LEVELS[there] < LEVELS[here], f"{path} imports {name}"


def test_no_file_imports_another_in_a_circle():
    """Imports inside functions count."""
    paths = [
        p for name in ("lstm_jax", "experiments") for p in (ROOT / name).rglob("*")
    ]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in paths
        if path.suffix == ".py"
    }
    assert len(modules) > 150
    graph = {name: imported(path, modules) for name, path in modules.items()}
    assert circles(graph) == []


def imported(path: Path, modules) -> set[str]:
    """Modules that a file names; of `from package import module` the module alone."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in full}
    return names & set(modules)


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules of which each reaches each other."""
    reached = {}
    for name in graph:
        reached[name], ahead = set(), [*graph[name]]
        while ahead:
            if (found := ahead.pop()) not in reached[name]:
                reached[name].add(found)
                ahead += graph[found]
    parts = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
    }
    return [set(part) for part in parts if part]


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert sorted(map(sorted, circles(graph))) == [["b", "c"], ["e"]]


def test_only_a_tasks_own_file_tells_it_by_its_name():
    """Of a model as well. Other files call a method or a field of `TaskKind`,
    `ModelKind` or `Task`; presets choose among all."""
    owners = {
        name: type(kind).__module__.split(".")
        for table in (TASKS, MODELS)
        for name, kind in table.items()
    }
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts == ["experiments", "presets"]:
            continue
        if parts[:2] == ["lstm_jax", "tasks"]:
            parts[0] = "experiments"  # the file of the same name there owns it too
        for line, text in names_told(ast.parse(path.read_text())):
            assert owners.get(text, parts) == parts, f'{path}:{line} asks for "{text}"'


def names_told(tree) -> list[tuple[int, str]]:
    """Lines and strings that values are compared with, matched with or looked up by."""
    found = []
    for node in ast.walk(tree):
        asked = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        elif isinstance(node, ast.Dict):
            asked = [key for key in node.keys if key is not None]
        while asked:
            one = asked.pop()
            if isinstance(one, ast.Tuple | ast.List | ast.Set):
                asked += one.elts
            elif isinstance(one, ast.Constant) and isinstance(one.value, str):
                found.append((one.lineno, one.value))
    return found


def test_names_are_found():
    source = """
x == "a", "b" != x, x in ("c", ["d"]), y < x < "e", "f" + x, g("g"), {"h": x, **y}[x]
match x:
    case "i" | ("j", _):
        pass
"""
    found = names_told(ast.parse(source))
    assert sorted(found) == [*((2, name) for name in "abcdeh"), (4, "i"), (4, "j")]


def test_flax_lives_in_models_only():
    for path in PACKAGE.rglob("*.py"):
        if any(name.split(".")[0] == "flax" for name in imports(path)):
            assert room(path) == "models" or path.name == "record.py", path


def test_importing_the_library_costs_jax_and_nothing_else():
    code = """
import sys, lstm_jax, lstm_jax.figures.style
heavy = "tensorflow tensorflow_datasets optax flax orbax sklearn matplotlib rich tyro"
print([name for name in heavy.split() if name in sys.modules])
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_the_newcomers_reading_is_short():
    files = [
        PACKAGE / "cell.py",
        PACKAGE / "cells" / "lstm.py",
        PACKAGE / "unroll.py",
        ROOT / "experiments" / "train.py",
    ]
    lengths = [len(path.read_text().splitlines()) for path in files]
    assert sum(lengths) < 900 and lengths[-1] <= 150
