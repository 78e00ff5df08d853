"""Predictions undo the placement of an image that training used."""

import numpy as np
import pytest
from PIL import Image

from experiments.prediction import exported
from experiments.prediction.predictor import Predictor, predict_images
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax import data
from lstm_jax.data.files.placement import FITS


def spec(fit, side=32):
    classes = ["background", "object"]
    return DataSpec("x", classes, [side, side, 3], 2, [0.0] * 3, [1.0] * 3, fit=fit)


@pytest.fixture
def file(tmp_path):
    """An image of 120x240 with a bright rectangle at x 100 to 140, y 40 to 80."""
    pixels = np.full((120, 240, 3), 20, np.uint8)
    pixels[40:80, 100:140] = 250
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


@pytest.mark.parametrize("fit", FITS)
def test_a_network_is_given_what_it_was_trained_on(file, fit):
    given = []

    def apply(batch):
        given.append(batch["inputs"])
        return np.full((1, 2), 0.5)

    predictor = Predictor(TASKS["classification"], spec(fit), apply, "uniform")
    (row,) = predict_images(predictor, [file])
    assert "error" not in row
    wanted = data.read_image(file, (32, 32, 3), fit=fit)
    np.testing.assert_array_equal(given[0][0], wanted)


@pytest.mark.parametrize("fit", FITS)
def test_boxes_are_told_in_pixels_of_the_file(file, fit, tmp_path):
    seen = data.read_image(file, (32, 32, 3), fit=fit)
    rows, columns = np.nonzero(seen[..., 0] > 135)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    output = np.asarray([[*box, 0.9, 1]], np.float32)
    kind = TASKS["detection"]
    found = kind.describe(spec(fit), seen, output, file) | {"path": str(file)}
    (one,) = found["boxes"]
    assert np.abs(np.subtract(one["box"], [100, 40, 40, 40])).max() <= 9  # 8 a pixel
    page = kind.drawn(found, spec(fit))
    assert page.shape[:2] == (120, 240) or page.shape[0] % 120 == 0


@pytest.mark.parametrize("fit", FITS)
def test_masks_have_the_size_of_the_file(file, fit):
    seen = data.read_image(file, (32, 32, 3), fit=fit)
    output = np.uint8(seen[..., 0] > 135)
    kind = TASKS["segmentation"]
    found = kind.describe(spec(fit), seen, output, file) | {"path": str(file)}
    mask = found["mask"]
    assert mask.shape == (120, 240)
    assert (mask == 255).mean() == (0.5 if fit == "crop" else 0)
    true = np.zeros((120, 240), bool)
    true[40:80, 100:140] = True
    inter, union = ((mask == 1) & true).sum(), ((mask == 1) | true).sum()
    assert inter / union > 0.6  # pixels of the network are up to 8 of the file's
    assert abs(sum(found["shares"].values()) - 1) < 1e-9
    kind.drawn(found, spec(fit))


def test_an_exported_file_keeps_the_fit():
    inputs = {"kind": "images", "shape": [32, 32, 3], "fit": "crop"}
    about = {"task": "classification", "classes": ["a"], "inputs": inputs}
    assert exported._spec(about).fit == "crop"
    del inputs["fit"]
    assert exported._spec(about).fit == "squash"
