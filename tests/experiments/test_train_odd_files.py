"""A run on files with odd names and depths, from the folder to predictions."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL, SMALL_MODEL

from experiments import train

ODD = b"caf\xe9 \x1b[31m.png"  # not UTF-8, and an escape sequence

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="file names are bytes on Linux"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of 12-bit images, a dark and a bright one, with odd names."""
    root = tmp_path_factory.mktemp("odd") / "photos"
    rng = np.random.default_rng(0)
    for label, highest in (("dark", 200), ("bright", 4095)):
        (root / label).mkdir(parents=True)
        for k in range(30):
            pixels = rng.integers(0, highest + 1, (8, 8)).astype(np.uint16)
            place = os.fsencode(root / label)
            with open(os.path.join(place, b"%02d " % k + ODD), "wb") as file:
                Image.fromarray(pixels).save(file, "PNG")
    return root


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory, prepared_data):
    place = tmp_path_factory.mktemp("runs") / "odd"
    return train("digits", data=photos, run_dir=place, **SMALL | SMALL_MODEL)


def test_the_depth_of_the_data_set_is_that_of_predictions(run, photos):
    saved = json.loads((run.directory / "config.json").read_text())["data"]
    assert saved["depth"] == 12
    answers = run.predict(photos / "dark")
    # Scaled by their own 8 bits, dark images would be as bright as the others.
    assert {answer["label"] for answer in answers} == {"dark"}


def test_an_exported_file_knows_the_depth(run, photos, tmp_path, command):
    from experiments.predict import predict

    file = tmp_path / "x.jaxexport"
    assert command("export", run.directory, f"--out={file}")[0] == 0
    labels = {row["label"] for row in predict(file, photos / "dark")}
    assert labels == {"dark"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_predictions_for_odd_names_are_printed_and_written(
    run, photos, suffix, tmp_path, command
):
    out = tmp_path / f"x.{suffix}"
    code, shown, err = command("predict", run.directory, photos, f"--out={out}")
    assert code == 0 and not err
    assert r"caf\udce9 \x1b[31m.png" in shown and "\x1b" not in shown
    assert out.read_text().count(r"caf\udce9") == 60
