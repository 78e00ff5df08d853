"""Every recipe of the cookbook runs as it stands there.

Commands run in this process, in one folder, with fewer steps and images: `TINY`.
"""

import contextlib
import importlib
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("KERAS_BACKEND", "jax")

PAGE = Path(__file__).parents[1] / "docs" / "cookbook.md"
LINES = 15  # of a block, at most
OPTIONAL = {  # module: its name on the page, in small letters
    "torch": "pytorch",
    "keras": "keras",
    "h5py": "h5py",
    "jax2onnx": "jax2onnx",
    "optuna": "optuna",
}
TINY = {"--steps=": "8", "--seeds=": "2", "--folds=": "2"}
LIMIT = {"moving-motion": 48, "detect-digits": 48}  # clips or images of a split


class Recipe(NamedTuple):
    title: str
    text: str  # between the title and the block
    language: str
    code: str

    @property
    def needs(self) -> list[str]:
        """Packages that a test environment may lack."""
        found = re.search(r"Requires ([^.(]+)", self.text)
        named = found[1].lower() if found else ""
        return [name for name in OPTIONAL if OPTIONAL[name] in named]


RECIPES = [
    Recipe(*found)
    for found in re.findall(
        r"^### (.+?)\n\n(.+?)\n\n```(\w+)\n(.*?)```$",
        PAGE.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
]


def of(language: str):
    """Commands train, and other libraries take seconds to import: both are slow."""
    found = [recipe for recipe in RECIPES if recipe.language == language]
    slow = [language == "bash" or bool(recipe.needs) for recipe in found]
    return pytest.mark.parametrize(
        "recipe",
        [
            pytest.param(recipe, marks=[pytest.mark.slow] * is_slow, id=recipe.title)
            for recipe, is_slow in zip(found, slow, strict=True)
        ],
    )


def test_the_cookbook_has_thirty_short_recipes():
    text = PAGE.read_text(encoding="utf-8")
    titles = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert [recipe.title for recipe in RECIPES] == titles and len({*titles}) >= 30
    assert text.count("```") == 2 * len(RECIPES)
    for title, text, _, code in RECIPES:
        assert "```" not in text and len(text.splitlines()) <= 3, title
        assert len(code.splitlines()) <= LINES, title


def require(recipe: Recipe) -> None:
    for name in recipe.needs:
        pytest.importorskip(name, reason=f"{recipe.title} needs {name}")


@of("python")
def test_a_recipe_in_python_runs(recipe, tmp_path, monkeypatch):
    require(recipe)
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):  # as for a reader
        exec(compile(recipe.code, recipe.title, "exec"), {"__name__": "recipe"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that commands name."""
    jax.devices()  # started, so that no command gives this process other devices
    folder, rng = tmp_path_factory.mktemp("cookbook"), np.random.default_rng(0)

    def image(*shape: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))

    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(24):
            image(40, 48, 3).save(folder / "photos" / label / f"{number}.png")
    image(8, 8).save(folder / "digit.png")
    image(64, 64).save(folder / "scene.png")
    first, *others = (image(16, 16) for _ in range(8))
    first.save(folder / "clip.gif", save_all=True, append_images=others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_JAX_DATA", str(folder / "prepared"))
        with contextlib.chdir(folder):
            yield folder


def tiny(words: list[str]) -> list[str]:
    """The words of a command, with numbers that a test has the time for."""
    for begin, value in TINY.items():
        words = [begin + value if word.startswith(begin) else word for word in words]
    limit = [f"--data.limit={LIMIT[word]}" for word in words if word in LIMIT]
    return words + limit


def run(line: str) -> int:
    words = shlex.split(line, comments=True)
    if words[:2] == ["python", "-m"]:
        module = importlib.import_module(words[2])
        return module.main(tiny(words[3:]))
    return subprocess.run(words, check=False).returncode


@of("bash")
def test_a_recipe_of_commands_runs(recipe, folder):
    require(recipe)
    lines = recipe.code.replace("\\\n", "").splitlines()
    assert lines
    for line in lines:
        assert run(line) == 0, line
