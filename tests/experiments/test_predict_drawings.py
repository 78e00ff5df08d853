"""Predictions of segmentation and detection drawn on the image files themselves."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.prediction.output import folder_of
from experiments.spec import DataSpec
from experiments.tasks import TASKS

SIZE = (400, 600)  # of the file: (H, W)
CLASSES = ["ground", "cup"]
SPEC = DataSpec("scenes", CLASSES, [16, 16, 3], 2, [0.0], [1.0])


@pytest.fixture
def photo(tmp_path):
    """A photo with an EXIF rotation: stored as 600x400, shown as 400x600."""
    shown = np.zeros((*SIZE, 3), np.uint8)
    shown[..., 0] = np.linspace(0, 255, SIZE[1])[None]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a rotation by 90° clockwise
    path = tmp_path / "photo.png"
    Image.fromarray(np.rot90(shown)).save(path, exif=exif)
    return path, shown


def predicted(kind, photo, raw):
    seen = np.zeros((16, 16, 3), np.uint8)
    return {"path": str(photo)} | kind.describe(SPEC, seen, raw, photo)


def test_a_mask_is_drawn_on_the_file_at_its_size(photo, tmp_path):
    path, shown = photo
    raw, kind = np.zeros((16, 16), np.uint8), TASKS["segmentation"]
    raw[8:, :4] = 1  # rows from 200, columns below 150
    found = predicted(kind, path, raw)
    kind.save(SPEC, [found], tmp_path / "out")
    drawn = np.asarray(Image.open(found["drawn"]))
    assert drawn.shape == shown.shape
    differs = (drawn != shown).any(-1)
    assert differs[200:, :150].all()
    assert not differs[:190].any() and not differs[:, 300:].any()
    assert np.asarray(Image.open(found["file"])).shape == SIZE


def test_boxes_are_drawn_on_the_file_with_label_and_score(photo, tmp_path):
    path, shown = photo
    raw, kind = np.zeros((2, 6), np.float32), TASKS["detection"]
    raw[0] = 4, 8, 12, 14, 0.87, 1  # columns 150 to 450, rows 200 to 350
    found = predicted(kind, path, raw)
    assert found["boxes"][0]["box"] == pytest.approx([150, 200, 300, 150])
    kind.save(SPEC, [found], tmp_path / "out")
    drawn = np.asarray(Image.open(found["drawn"]))
    assert drawn.shape == shown.shape
    differs = (drawn != shown).any(-1)
    rows, columns = np.nonzero(differs)
    assert (columns.min(), columns.max(), rows.max()) == (150, 449, 349)
    assert differs[200, 150:450].all() and not differs[210:340, 160:440].any()
    assert 180 <= rows.min() < 190  # the label above the box
    again = predicted(kind, path, np.where(raw == np.float32(0.87), 0.88, raw))
    kind.save(SPEC, [again], tmp_path / "again")
    other = np.asarray(Image.open(again["drawn"]))
    assert (other != drawn).any()  # the score is written


def test_small_images_are_magnified(tmp_path):
    path = tmp_path / "digit.png"
    Image.new("L", (40, 28), 9).save(path)
    kind = TASKS["segmentation"]
    found = predicted(kind, path, np.ones((16, 16), np.uint8))
    kind.save(SPEC, [found], tmp_path)
    assert Image.open(found["drawn"]).size == (7 * 40, 7 * 28)
    assert Image.open(found["file"]).size == (40, 28)


def test_a_file_that_was_removed_meanwhile_is_an_error(photo, tmp_path):
    path, _ = photo
    kind = TASKS["detection"]
    found = predicted(kind, path, np.zeros((1, 6), np.float32))
    path.unlink()
    kind.save(SPEC, [found], tmp_path / "out")
    assert "photo.png: No such file" in found["error"]
    coco = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert not coco["annotations"]


def test_the_folder_of_drawings_is_that_of_out(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    assert folder_of(tmp_path, None) == tmp_path / "predictions"
    assert folder_of(weights, tmp_path / "a.csv") == tmp_path / "predictions"
    assert folder_of(tmp_path, tmp_path / "new") == tmp_path / "new"
    (tmp_path / "v1.2").mkdir()  # has a suffix, and exists
    assert folder_of(tmp_path, tmp_path / "v1.2") == tmp_path / "v1.2"
