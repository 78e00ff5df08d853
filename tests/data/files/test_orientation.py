"""The EXIF orientation turns the image, its mask, its boxes and its lines alike."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from lstm_jax.data import DataError, load, read_image
from lstm_jax.data.files.images import decode_mask, image_size, probe
from lstm_jax.data.files.orientation import Geometry
from lstm_jax.targets import CLASS, CORNERS

H, W = 4, 6
SQUARE = 6, 6
ORIENTATIONS = range(1, 9)
FORMATS = [".png", ".jpg", ".tiff", ".webp"]
# Where Pillow's own function puts the four corners of [[1, 2], [3, 4]].
CORNERS_OF = {
    1: [[1, 2], [3, 4]],
    2: [[2, 1], [4, 3]],
    3: [[4, 3], [2, 1]],
    4: [[3, 4], [1, 2]],
    5: [[1, 3], [2, 4]],
    6: [[3, 1], [4, 2]],
    7: [[4, 2], [3, 1]],
    8: [[2, 4], [1, 3]],
}


def scene(seed, shape=(H, W)):
    """A dark image with one bright rectangle, and the box of that: x0, y0, x1, y1."""
    rng = np.random.default_rng(seed)
    x0, y0 = rng.integers(0, shape[1] - 3), rng.integers(0, shape[0] - 2)
    pixels = np.zeros(shape, np.uint8)
    pixels[y0 : y0 + 2, x0 : x0 + 3] = 255
    return pixels, (int(x0), int(y0), int(x0) + 3, int(y0) + 2)


def save(path, pixels, orientation=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, exif=exif, **lossless)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_geometry_is_the_transform_of_the_standard(orientation):
    small = Geometry((2, 2), orientation).pixels(np.array([[1, 2], [3, 4]]))
    assert small.tolist() == CORNERS_OF[orientation]
    pixels, box = scene(1)
    geometry = Geometry((H, W), orientation)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(geometry.pixels(pixels), upright)
    assert upright.shape == geometry.shown
    x0, y0, x1, y1 = geometry.boxes(np.asarray(box)).astype(int)
    assert (upright[y0:y1, x0:x1] == 255).all() and upright.sum() == 6 * 255


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_format_is_read_upright(orientation, suffix, tmp_path):
    pixels = np.kron(scene(2)[0], np.ones((8, 8), np.uint8))
    path = save(tmp_path / f"x{suffix}", pixels, orientation)
    geometry = Geometry(pixels.shape, orientation)
    want = geometry.pixels(pixels)
    assert probe(path).geometry == geometry
    assert image_size(path) == probe(path).size == want.shape
    got = read_image(path, (*want.shape, 1))[..., 0]
    assert np.abs(got.astype(int) - want).max() <= (16 if suffix == ".jpg" else 0)
    if suffix in (".png", ".tiff"):
        with open(path, "rb") as file:
            np.testing.assert_array_equal(decode_mask(file, None, "x"), want)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(value, tmp_path):
    pixels = scene(3)[0]
    path = save(tmp_path / "x.png", pixels, value)
    np.testing.assert_array_equal(read_image(path, (H, W, 1))[..., 0], pixels)


# Where the targets of an image with an EXIF orientation were drawn.
PLACES = ["stored", "upright", "own tag"]


def mask_folder(root, orientation, place, shape=(H, W)):
    for k in range(8):
        pixels, _ = scene(k, shape)
        geometry = Geometry(shape, orientation)
        save(root / "images" / f"{k}.png", pixels, orientation)
        mask = (pixels > 0).astype(np.uint8)
        if place == "upright":
            mask = np.ascontiguousarray(geometry.pixels(mask))
        own = orientation if place == "own tag" else 1
        save(root / "masks" / f"{k}.png", mask, own)
    return root


def agreeing(data):
    """How many masks cover exactly the bright pixels of their image."""
    return sum(
        np.array_equal(image[..., 0] > 0, mask == 1)
        for split in data.splits.values()
        for image, mask in zip(split.inputs, split.targets, strict=True)
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_mask_is_turned_with_its_image(orientation, place, tmp_path):
    if place == "upright" and orientation in (2, 3, 4):
        pytest.skip("the size does not tell: see the next test")
    root = mask_folder(tmp_path / "q", orientation, place)
    data = load(root, data_dir=tmp_path / "cache", target_type="masks")
    assert data.image_shape[:2] == Geometry((H, W), orientation).shown
    assert agreeing(data) == 8
    turned = place == "stored" and orientation != 1
    told = [n for n in data.notes if "the masks are turned with the pixels" in n]
    assert len(told) == turned, data.notes
    doubt = [n for n in data.notes if "may refer to the turned or" in n]
    assert len(doubt) == (turned and orientation < 5), data.notes


def test_masks_whose_size_tells_decide_for_the_others(tmp_path):
    root = mask_folder(tmp_path / "q", 6, "upright")
    pixels, _ = scene(9)
    save(root / "images" / "9.png", pixels, 3)
    mask = np.ascontiguousarray((pixels > 0)[::-1, ::-1].astype(np.uint8))
    save(root / "masks" / "9.png", mask)
    data = load(
        root, data_dir=tmp_path / "cache", target_type="masks", size=12, fit="squash"
    )
    assert any("assumed: turned" in n and "9.png" in n for n in data.notes), data.notes
    assert not any("are turned with the pixels" in note for note in data.notes)
    masks = {
        name: target
        for split, part in data.splits.items()
        for name, target in zip(data.names[split], part.targets, strict=True)
    }
    assert len(masks) == 9
    enlarged = np.kron(mask, np.ones((3, 2), np.uint8))
    np.testing.assert_array_equal(masks["images/9.png"], enlarged)


def box_folder(root, orientation, place, shape=(H, W), sizes=True):
    images, boxes = [], []
    for k in range(8):
        pixels, box = scene(k, shape)
        geometry = Geometry(shape, orientation)
        save(root / f"{k}.png", pixels, orientation)
        height, width = shape
        if place == "upright":
            (height, width), box = geometry.shown, geometry.boxes(np.asarray(box))
        x0, y0, x1, y1 = map(int, box)
        images.append({"id": k, "file_name": f"{k}.png"})
        if sizes:
            images[-1] |= {"height": height, "width": width}
        where = [x0, y0, x1 - x0, y1 - y0]
        boxes.append({"id": k, "image_id": k, "category_id": 1, "bbox": where})
    about = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (root / "annotations.json").write_text(json.dumps(about))
    return root


def boxes_on_bright(data):
    """How many boxes hold exactly the bright pixels of their image."""
    count = 0
    for split in data.splits.values():
        for image, table in zip(split.inputs, split.targets, strict=True):
            ((x0, y0, x1, y1),) = table[table[:, CLASS] >= 0][:, CORNERS].astype(int)
            inside = image[y0:y1, x0:x1]
            count += bool((inside == 255).all() and image.sum() == inside.sum())
    return count


@pytest.mark.parametrize("shape", [(H, W), SQUARE])
@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_box_is_turned_with_its_image(orientation, place, shape, tmp_path):
    unsure = orientation in (2, 3, 4) or (shape == SQUARE and orientation != 1)
    if place == "upright" and unsure:
        pytest.skip("the size does not tell: the boxes are turned, and a note says so")
    root = box_folder(tmp_path / "q", orientation, place, shape)
    data = load(root, data_dir=tmp_path / "cache", target_type="boxes")
    assert boxes_on_bright(data) == 8
    told = [n for n in data.notes if "the boxes are turned with the pixels" in n]
    assert len(told) == (place == "stored" and orientation != 1), data.notes
    doubt = [n for n in data.notes if "may refer to the turned or" in n]
    assert len(doubt) == unsure, data.notes


def test_boxes_without_a_size_are_turned_and_a_note_says_so(tmp_path):
    root = box_folder(tmp_path / "q", 6, "stored", sizes=False)
    data = load(root, data_dir=tmp_path / "cache", target_type="boxes")
    assert boxes_on_bright(data) == 8
    assert any("assumed: stored" in note for note in data.notes)


def test_a_size_of_neither_is_refused(tmp_path):
    root = box_folder(tmp_path / "q", 6, "stored")
    text = (root / "annotations.json").read_text()
    (root / "annotations.json").write_text(text.replace('"height": 4', '"height": 5'))
    with pytest.raises(DataError, match="is 6x4, but its entry has height 5"):
        load(root, data_dir=tmp_path / "cache", target_type="boxes")


PAGE = (
    '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">'
    '<Page imageFilename="p.png" imageWidth="{w}" imageHeight="{h}">{lines}</Page>'
    "</PcGts>"
)
LINE = (
    '<TextLine id="l{k}"><Coords points="{points}"/><TextEquiv><Unicode>{text}'
    "</Unicode></TextEquiv></TextLine>"
)


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_lines_of_a_page_are_turned_with_it(orientation, place, tmp_path):
    if place == "upright" and orientation in (2, 3, 4):
        pytest.skip("the size does not tell: the lines are turned, and a note says so")
    upright = np.full((200, 100), 240, np.uint8)
    tops = range(10, 190, 30)
    for k, top in enumerate(tops):
        upright[top : top + 20, 10:30] = 20 * k
    # The pixels as the camera stored them, by the inverse transform.
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = np.ascontiguousarray(Geometry(upright.shape, inverse).pixels(upright))
    geometry = Geometry(stored.shape, orientation)
    np.testing.assert_array_equal(geometry.pixels(stored), upright)
    save(tmp_path / "q" / "p.png", stored, orientation)
    lines = []
    for k, top in enumerate(tops):
        points = itertools.product((10, 70), (top, top + 20))
        points = np.asarray(list(points))[[0, 2, 3, 1]]
        if place == "stored":
            points = Geometry(upright.shape, inverse).points(points)
        text = " ".join(f"{x:g},{y:g}" for x, y in points)
        lines.append(LINE.format(k=k, points=text, text="abc"[k % 3] + "abc"[k // 3]))
    h, w = stored.shape if place == "stored" else upright.shape
    xml = PAGE.format(w=w, h=h, lines="".join(lines))
    (tmp_path / "q" / "p.xml").write_text(xml)
    data = load(tmp_path / "q", data_dir=tmp_path / "cache", target_type="text")
    found = {
        int(name.rpartition("l")[2]): image[..., 0]
        for split, part in data.splits.items()
        for name, image in zip(data.names[split], part.inputs, strict=True)
    }
    assert len(found) == 6
    for k, image in found.items():
        assert image[16, 8] == 20 * k and image[16, -20] == 240
    told = [n for n in data.notes if "the lines are turned with the pixels" in n]
    assert len(told) == (place == "stored" and orientation != 1), data.notes
