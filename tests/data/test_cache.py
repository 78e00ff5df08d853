"""Folders that several processes make at once, and disks that are full."""

import errno
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lstm_jax.data import cache
from lstm_jax.data.cache import cached, new_array, written_beside
from lstm_jax.data.dataset import DataError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_another_process_made_meanwhile_stays(tmp_path):
    """It may be read already: in its place there is never nothing, nor another."""
    target = tmp_path / "set"
    with written_beside(target) as ours:
        (ours / "ours").touch()
        with written_beside(target) as theirs:
            (theirs / "theirs").touch()
        before = target.stat().st_ino
    assert target.stat().st_ino == before and names(target) == ["theirs"]
    assert names(tmp_path) == ["set"]


def test_what_was_there_before_is_replaced(tmp_path):
    target = tmp_path / "set"
    for name in ("stale", "new"):
        with written_beside(target) as folder:
            (folder / name).touch()
    assert names(target) == ["new"] and names(tmp_path) == ["set"]


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "patch",
    [
        (shutil, "disk_usage", lambda _: SimpleNamespace(free=1000)),
        (os, "posix_fallocate", full),
    ],
    ids=["free space", "reservation"],
)
def test_a_full_disk_is_told_before_an_array_is_filled(tmp_path, monkeypatch, patch):
    def build(folder):
        new_array(folder / "x.npy", np.float32, (1000, 2))
        raise AssertionError("it was not refused")

    monkeypatch.setattr(*patch, raising=False)
    with pytest.raises(DataError, match="no space left in .*0.00 GiB more") as caught:
        cached(tmp_path, "a", [1], build)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "arrays").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems may differ")
def test_a_new_array_has_its_space(tmp_path):
    array = new_array(tmp_path / "x.npy", np.float32, (1000, 1000))
    assert os.stat(tmp_path / "x.npy").st_blocks * 512 >= array.nbytes == 4_000_000
    assert not array.any()


def test_no_other_file_maps_a_new_array():
    for path in Path(cache.__file__).parents[1].rglob("*.py"):
        maps = len(re.findall(r'open_memmap\([^)]*"w\+"', path.read_text()))
        assert maps == (path.name == "cache.py"), path
