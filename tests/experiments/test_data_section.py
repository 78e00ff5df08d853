"""A report says which test examples are copies of training ones, and nothing else."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL, SMALL_MODEL, draw

from experiments import report, train
from experiments.reporting.data_section import data_findings
from experiments.reporting.page import Fold, Table, Words


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """A folder of 40 training, 10 validation and 20 test images, of which 6 leak."""
    folder = tmp_path_factory.mktemp("leaky") / "leaky"
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 5), ("test", 10)):
        for label in ("across", "down"):
            for number in range(count):
                draw(folder / split / label / f"{number:02}.png", label, rng, (16, 16))
    for number in range(5):
        name = f"down/{number:02}.png"
        shutil.copy(folder / "train" / name, folder / "test" / name)
    # In a test image of another class: its label contradicts that of its copy.
    wrong = folder / "test" / "across" / "07.png"
    shutil.copy(folder / "train" / "down" / "19.png", wrong)
    near = np.asarray(Image.open(folder / "train" / "across" / "11.png"))
    changed = np.clip(near.astype(int) + 3, 0, 255).astype(np.uint8)
    Image.fromarray(changed).save(folder / "val" / "across" / "01.png")
    return folder


@pytest.fixture(scope="module")
def leaky_run(leaky, tmp_path_factory, prepared_data):
    """A run of 4 steps, and what it printed."""
    options = SMALL | SMALL_MODEL | dict(data=leaky, steps=4)
    folder, out = tmp_path_factory.mktemp("run") / "run", io.StringIO()
    with contextlib.redirect_stdout(out):
        run = train("digits", run_dir=folder, **options)
    return run, out.getvalue()


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Images of few dots, to save time."""
    monkeypatch.setattr("experiments.reporting.page.DPI", 40)


def test_a_leak_is_told_when_training_starts(leaky_run):
    told = " ".join(leaky_run[1].split())
    assert "6 of 20 test images are identical to training images" in told
    assert "1 of 10 validation images are nearly identical to training images" in told
    assert "1 pair of identical or nearly identical images has different labels" in told
    assert "test/across/07.png ('across', test)" in told


def test_a_leak_is_in_the_report_and_its_diagnosis(leaky_run):
    directory = leaky_run[0].directory
    kept = json.loads((directory / "report.json").read_text())
    assert kept["data"]["duplicates"]["identical"]["test in train"] == 6
    assert kept["data"]["duplicates"]["nearly_identical"] == {"validation in train": 1}
    assert kept["data"]["duplicates"]["contradicting_pairs"] == 1
    found = report(directory)
    sections = {section.title: section.blocks for section in found.sections}
    (table,) = (b for b in sections["Diagnosis"] if isinstance(b, Table))
    told = dict(table.rows)
    assert (
        "30 % of the test images are copies of training images: the test"
        in " ".join(told)
    )
    assert any(line.startswith("10 % of the validation images") for line in told)
    assert any("1 pair of copies have different labels" in line for line in told)
    (table, *_) = (b for b in sections["Data"] if isinstance(b, Table))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["test"] == ("20", "6", "0") and rows["validation"] == ("10", "0", "1")
    words = [b.text for b in sections["Data"] if isinstance(b, Words)]
    assert "6 of 20 test images are identical to training images." in words
    folds = {b.title: b.blocks[0] for b in sections["Data"] if isinstance(b, Fold)}
    listed = folds["Copies in other splits: 7 pairs"].rows
    assert (
        "train/down/00.png down",
        "train",
        "test/down/00.png down",
        "test",
        "yes",
    ) in (listed)
    (row,) = folds["Copies with different labels: 1 pair"].rows
    assert row[0] == "train/down/19.png down" and row[2] == "test/across/07.png across"
    assert found.numbers["duplicates"] == kept["data"]["duplicates"]


def test_sound_data_have_no_findings(odd_report, digits_run):
    (run,) = odd_report.runs
    assert data_findings(run) == []
    kept = digits_run.report["data"]["duplicates"]
    assert kept["identical"] == kept["nearly_identical"] == {}
    assert kept["contradicting_pairs"] == 0 and kept["skipped"] is None
    (blocks,) = (s.blocks for s in odd_report.sections if s.title == "Data")
    words = [b.text for b in blocks if isinstance(b, Words)]
    assert words[1:] == ["No image is a copy of another."]


def test_data_that_changed_since_are_told(leaky_run, leaky, tmp_path):
    file = leaky / "test" / "down" / "03.png"
    file.rename(tmp_path / file.name)
    found = report(leaky_run[0].directory)
    (tmp_path / file.name).rename(file)
    (blocks,) = (s.blocks for s in found.sections if s.title == "Data")
    words = [b.text for b in blocks if isinstance(b, Words)]
    assert words[0].startswith(
        "The data changed since the run was trained: 69 examples"
    )
