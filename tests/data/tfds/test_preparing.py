"""Parts of tensorflow-datasets that are replaced: there, or told by name."""

import re
import tomllib
from pathlib import Path

import pytest

from lstm_jax.data.tfds import preparing

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.mark.parametrize("name", preparing.PARTS)
def test_the_installed_version_has_every_part(name):
    owner, attribute = preparing.find_part(name)
    assert hasattr(owner, attribute)


def test_parts_are_replaced_and_put_back(tmp_path):
    def parts():
        found = (preparing.find_part(name) for name in preparing.PARTS)
        return [getattr(*part) for part in found]

    before = parts()
    with preparing.without_tensorflow(None, tmp_path):
        replaced = sum(a is not b for a, b in zip(before, parts(), strict=True))
    assert replaced in (9, 10)  # with ffmpeg, and without
    assert all(a is b for a, b in zip(before, parts(), strict=True))


@pytest.mark.parametrize("name", preparing.PARTS)
def test_a_part_that_moved_is_named(name, monkeypatch, tmp_path):
    module, path = preparing.PARTS[name]
    for moved in ((module, f"{path}_before"), (f"{module}_before", path)):
        monkeypatch.setitem(preparing.PARTS, name, moved)
        words = f"has no {'.'.join(moved)}, .*tensorflow-datasets{preparing.SUPPORTED}"
        with pytest.raises(ImportError, match=words):
            with preparing.without_tensorflow(None, tmp_path):
                pass


def test_an_attribute_that_moved_is_named():
    names = preparing._OF_DOWNLOADER
    worker = getattr(*preparing.find_part("downloader"))()
    preparing._check_instance(worker, names)
    del worker._executor
    with pytest.raises(RuntimeError, match=r"no .*\._Downloader\._executor, which"):
        preparing._check_instance(worker, names)


def test_the_project_asks_for_the_versions_that_have_them():
    wanted = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    (tfds,) = (line for line in wanted if re.match("tensorflow-datasets", line))
    assert tfds == f"tensorflow-datasets{preparing.SUPPORTED}"
