"""What data from other people may not do: see lstm_jax/data/files/limits.py."""

import os
import sys

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, image_paths, layout_of, load
from lstm_jax.data.files import file_tree


@pytest.mark.parametrize("target_type", ["labels", "masks", "boxes", "text"])
@pytest.mark.parametrize("source", ["/", "//", "/tmp/..", "~", "~/"])
def test_the_whole_disk_is_not_searched(source, target_type, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    searched = []
    monkeypatch.setattr(os, "walk", lambda *args, **_: searched.append(args) or [])
    monkeypatch.setattr(os, "scandir", lambda *args: searched.append(args))
    with pytest.raises(DataError, match="which is not searched; give the folder of"):
        load(source, data_dir=tmp_path / "cache", target_type=target_type)
    assert not searched


@pytest.mark.parametrize("source", ["/", "~"])
def test_predictions_are_not_made_for_the_whole_disk(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="which is not searched; give the folder of"):
        image_paths([source])


def images(root, label):
    folder = (
        root / label if isinstance(label, str) else os.path.join(bytes(root), label)
    )
    os.makedirs(folder)
    for k in range(6):
        path = os.path.join(os.fsdecode(folder), f"{k}.png")
        Image.fromarray(np.full((4, 4), 20 * k, np.uint8)).save(path)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("\x1b[31mred", r"'\\x1b\[31mred'"),
        ("two\nlines", r"'two\\nlines'"),
        (b"caf\xe9", r"'caf\\udce9'"),
        ("\x9b0m", r"'\\x9b0m'"),
        ("a\u2028b", r"'a\\u2028b'"),
    ],
)
def test_a_class_name_that_cannot_be_printed_is_refused(label, shown, tmp_path):
    images(tmp_path / "q", "good")
    images(tmp_path / "q", label)
    with pytest.raises(DataError, match=f"the class name {shown} has a") as error:
        load(tmp_path / "q", data_dir=tmp_path / "cache")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("label", ["a b", "é", "日本", "no\u00a0break", "👩\u200d🔬"])
def test_other_class_names_are_kept(label, tmp_path):
    images(tmp_path / "q", "good")
    images(tmp_path / "q", label)
    assert label in load(tmp_path / "q", data_dir=tmp_path / "cache").classes


@pytest.mark.parametrize(
    "other", ["ca\u200df\u00e9", "caf\u00e9\ufe0f", "ca\u00adf\u00e9", "cafe\u0301"]
)
def test_classes_that_look_alike_are_told(other, tmp_path):
    label = "caf\u00e9"
    words = f"the classes {ascii(label)} and {ascii(other)} look alike"
    backwards = f"the classes {ascii(other)} and {ascii(label)} look alike"
    rng = np.random.default_rng(0)
    rows = []
    for k in range(12):
        pixels = rng.integers(0, 256, (4, 4), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{[label, other, 'tea'][k % 3]}\n")
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
    with pytest.raises(DataError) as error:
        load(tmp_path / "t.csv", data_dir=tmp_path / "cache")
    assert words in str(error.value) or backwards in str(error.value)
    assert str(error.value).isascii()


def test_a_folder_of_very_many_files_is_refused(tmp_path, monkeypatch):
    for k in range(12):
        (tmp_path / "p" / f"{k % 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / f"{k % 3}" / f"{k}.txt").touch()
    monkeypatch.setattr(file_tree, "MOST_FILES", 10)
    with pytest.raises(DataError, match="holds more than 10 files and folders, which"):
        file_tree.walk([tmp_path / "p"], [".png"])
    with pytest.raises(DataError, match="give the folder of the data set"):
        file_tree.holds(tmp_path / "p", [".png"], deep=True)
    assert not file_tree.holds(tmp_path / "p", [".png"])
    assert file_tree.walk([tmp_path / "p" / "0"], [".txt"]).files[0]


@pytest.mark.parametrize("where", ["/", "~"])
def test_the_layout_of_a_whole_disk_is_not_searched(where):
    with pytest.raises(DataError, match="which is not searched; give the folder"):
        layout_of(where)
