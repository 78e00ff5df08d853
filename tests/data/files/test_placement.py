"""One transform for images, masks and boxes: squash, crop and letterbox."""

import json

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load, place_image, read_image
from lstm_jax.data.files import decoding
from lstm_jax.data.files.placement import FITS, PAD
from lstm_jax.targets import VOID

SIZES = [(60, 120), (120, 60), (90, 90), (31, 200)]
OUTS = [(32, 32), (24, 48), (48, 24)]


def scene(size):
    """A dark image with a bright rectangle near the centre; the rectangle's corners."""
    h, w = size
    pixels = np.full((h, w, 3), 20, np.uint8)
    box = round(0.45 * w), round(0.4 * h), round(0.6 * w), round(0.7 * h)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 250
    return pixels, box


def corners(bright):
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("out", OUTS)
@pytest.mark.parametrize("size", SIZES)
def test_image_mask_and_boxes_agree(size, out, fit):
    pixels, box = scene(size)
    placement = place_image(size, out, fit)
    array = decoding.to_array(Image.fromarray(pixels), (*out, 3), fit)
    mask = Image.fromarray(np.uint8(pixels[..., 0] > 128))
    mask = np.asarray(placement.image(mask, Image.Resampling.NEAREST, VOID))
    moved = placement.boxes(np.asarray(box))
    np.testing.assert_allclose(placement.on_image(moved), box, atol=1e-9)
    moved = np.clip(moved, 0, np.tile(out[::-1], 2))  # a crop may lose some of it
    box = placement.on_image(moved)
    assert np.abs(corners(array[..., 0] > 135) - moved).max() <= 1.01
    assert np.abs(corners(mask == 1) - moved).max() <= 1.01
    border = (mask == VOID).mean()
    assert (array[mask == VOID] == PAD).all()
    ratio = (size[1] / size[0]) / (out[1] / out[0])
    lost = 1 - min(ratio, 1 / ratio)  # of the array, beside a letterboxed image
    assert abs(border - (lost if fit == "letterbox" else 0)) < 0.03
    drawn = placement.mask_on_image(np.where(mask == VOID, 0, mask), size)
    seen = drawn != VOID
    assert abs((1 - seen.mean()) - (lost if fit == "crop" else 0)) < 0.03
    scale = max(size[0] / out[0], size[1] / out[1], 1)
    assert np.abs(np.subtract(corners(drawn == 1), box)).max() <= scale + 1


def test_the_aspect_ratio_is_kept():
    for fit in FITS[1:]:
        placement = place_image((300, 100), (64, 64), fit)
        x0, y0, x1, y1 = placement.boxes(np.asarray([40, 140, 60, 160]))
        assert abs((x1 - x0) - (y1 - y0)) < 0.7  # whole pixels of the target


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_large_images_are_placed_alike(tmp_path, monkeypatch, suffix, fit, orientation):
    pixels, _ = scene((400, 1000))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"1{suffix}"
    Image.fromarray(pixels).save(file, exif=exif)
    small = read_image(file, (32, 40, 3), fit=fit)
    monkeypatch.setattr(decoding, "_LARGE", 1000)
    large = read_image(file, (32, 40, 3), fit=fit)
    found = [corners(np.abs(a[..., 0] - 250.0) < 120) for a in (small, large)]
    assert np.abs(np.subtract(*found)).max() <= 1
    border = [(a == PAD).all(-1) for a in (small, large)]
    np.testing.assert_array_equal(*border)
    assert border[0].any() == (fit == "letterbox")


def folder(root, sizes, each=4):
    """Class folders with a scene of each size in each class."""
    rng = np.random.default_rng(0)
    for label in "ab":
        (root / label).mkdir(parents=True)
        for k, size in enumerate(sizes * each):
            pixels, _ = scene(size)
            pixels[:3, :3] = rng.integers(0, 256, (3, 3, 3))
            Image.fromarray(pixels).save(root / label / f"{k}.png")
    return root


def test_mixed_aspect_ratios_are_letterboxed(tmp_path):
    path = folder(tmp_path / "p", [(40, 60), (60, 40)])
    found = load(path, data_dir=tmp_path / "c")
    assert found.fit == "letterbox"
    (note,) = [n for n in found.notes if "letterbox" in n]
    assert note == (
        "aspect ratios from 0.67 to 1.50: images are letterboxed, with a grey border "
        "(--data.fit=crop or squash for another)"
    )
    for inputs in (split.inputs for split in found.splits.values()):
        assert all((image == PAD).all(-1).any() for image in inputs)
    cropped = load(path, data_dir=tmp_path / "c", fit="crop")
    assert cropped.fit == "crop"
    assert not any("aspect" in note for note in cropped.notes)
    assert not (cropped.splits["train"].inputs == PAD).all(-1).any()


def test_images_of_one_aspect_ratio_are_squashed(tmp_path):
    path = folder(tmp_path / "p", [(40, 60), (80, 120)])
    found = load(path, data_dir=tmp_path / "c")
    assert found.fit == "squash" and not any("aspect" in n for n in found.notes)
    name = found.names["train"][0]
    pixels = read_image(path / name, (32, 32, 3))
    np.testing.assert_array_equal(found.splits["train"].inputs[0], pixels)


def test_masks_have_the_border_of_their_images(tmp_path):
    """Also where 255 is a class, because masks hold 0 and 255 only."""
    for values in ((0, 1), (0, 255)):
        path = tmp_path / f"p{values[1]}"
        for k, size in enumerate([(40, 60), (60, 40)] * 5):
            pixels, box = scene(size)
            pixels[0, 0] = k
            mask = np.where(pixels[..., 0] > 128, *values[::-1]).astype(np.uint8)
            for name, image in (("images", pixels), ("masks", mask)):
                (path / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path / name / f"{k}.png")
        found = load(path, data_dir=tmp_path / "c", target_type="masks", size=32)
        assert found.fit == "letterbox"
        for split in found.splits.values():
            border = (split.inputs == PAD).all(-1)
            assert border.any((1, 2)).all()
            np.testing.assert_array_equal(split.targets == VOID, border)
            bright = split.inputs[..., 0] > 135
            assert ((split.targets == 1) == bright).mean() > 0.98
            assert bright.any((1, 2)).all()


@pytest.mark.parametrize("fit", [None, *FITS])
def test_boxes_are_placed_with_their_images(tmp_path, fit):
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    for k, size in enumerate([(40, 60), (60, 40)] * 5):
        pixels, (x0, y0, x1, y1) = scene(size)
        pixels[0, 0] = k
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        coco["images"].append({"id": k, "file_name": f"{k}.png"})
        box = {"id": k, "image_id": k, "category_id": 1}
        coco["annotations"].append(box | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    options = dict(target_type="boxes", data_dir=tmp_path / "c", size=32, fit=fit)
    found = load(tmp_path, **options)
    assert found.fit == (fit or "letterbox")
    for split in found.splits.values():
        for image, boxes in zip(split.inputs, split.targets, strict=True):
            seen = corners(image[..., 0] > 135)
            assert np.abs(boxes[0, :4] - seen).max() <= 1.01


def test_a_fit_without_effect_or_unknown_is_refused(tmp_path):
    with pytest.raises(DataError, match="--data.fit has no effect on it"):
        load("digits", data_dir=tmp_path, fit="crop")
    with pytest.raises(DataError, match="fit is squash, crop, letterbox; got 'pad'"):
        load("digits", data_dir=tmp_path, fit="pad")
