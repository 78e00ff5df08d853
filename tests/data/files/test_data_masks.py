"""Your own images with masks: what loads, and what is said of what does not."""

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load, select_fold
from lstm_jax.data.files.images import decode_mask

COUNT = 8


def picture(path, value, size=(16, 16), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode != "RGB" else (value, 0, 0)
    Image.new(mode, size, colour).save(path)


def mask_of(number, values=(0, 1)):
    """The left part of the second value, as wide as the number."""
    mask = np.full((16, 16), values[0], np.uint8)
    mask[:, : number + 1] = values[1]
    return mask


def fill(folder, count=COUNT, values=(0, 1), mode="L"):
    """Images whose grey is 10 times their number, and masks that tell it, too."""
    for number in range(count):
        picture(folder / "images" / f"{number}.png", 10 * number)
        path = folder / "masks" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(mask_of(number, values))
        if mode == "P":
            image = image.convert("P")
            image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
            image.putdata(mask_of(number, values).ravel().tolist())
        image.save(path)
    return folder


def masks(path, tmp_path, **options):
    options = dict(data_dir=tmp_path / "cache", target_type="masks") | options
    return load(path, **options)


def all_of(data):
    """{number that the grey tells: mask} over all splits."""
    return {
        int(image[0, 0, 0]) // 10: mask
        for split in data.splits.values()
        for image, mask in zip(split.inputs, split.targets, strict=True)
    }


@pytest.mark.parametrize(
    ("mode", "values", "names", "classes", "wanted", "note"),
    [
        ("L", (0, 1), None, ("background", "1"), (0, 1), ""),
        ("P", (0, 2), None, ("background", "1", "2"), (0, 2), ""),
        ("L", (255, 1), "sky\nsea", ("sky", "sea"), (255, 1), ""),
        ("L", (0, 255), None, ("background", "object"), (0, 1), "the class 'object'"),
        ("L", (0, 255), "no\ncell\n", ("no", "cell"), (0, 1), "the class 'cell'"),
        ("L", (0, 255), "a\nb\nc", ("a", "b", "c"), (0, 255), ""),
    ],
)
def test_pixels_are_classes(tmp_path, mode, values, names, classes, wanted, note):
    folder = fill(tmp_path / "p", values=values, mode=mode)
    if names:
        (folder / "classes.txt").write_text(names)
    data = masks(folder, tmp_path)
    assert data.target_type == "masks" and data.classes == classes
    assert data.image_shape == (16, 16, 1) and data.name == "p"
    assert [len(s.inputs) for s in data.splits.values()] == [5, 1, 2]
    assert any("255 is the class" in line for line in data.notes) == bool(note)
    assert any(note in line for line in data.notes)
    found = all_of(data)
    assert sorted(found) == list(range(COUNT))
    for number, mask in found.items():
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, mask_of(number, wanted))
    for split, inside in data.splits.items():
        for name, image in zip(data.names[split], inside.inputs, strict=True):
            assert name == f"images/{image[0, 0, 0] // 10}.png"
    again = masks(folder, tmp_path)
    assert again.notes == data.notes
    for name, split in data.splits.items():
        np.testing.assert_array_equal(split.targets, again.splits[name].targets)


def test_masks_are_resized_to_the_nearest_pixel(tmp_path):
    data = masks(fill(tmp_path / "p", values=(0, 3)), tmp_path, size=8)
    assert data.image_shape == (8, 8, 1)
    for number, mask in all_of(data).items():
        assert set(np.unique(mask)) <= {0, 3}
        assert (mask == 3).sum() // 8 in (number // 2, number // 2 + 1)


def test_sizes_that_differ_become_64(tmp_path):
    folder = fill(tmp_path / "p")
    picture(folder / "images" / "0.png", 7, (20, 10), "RGB")
    Image.new("L", (20, 10), 1).save(folder / "masks" / "0.png")
    data = masks(folder, tmp_path)
    assert data.image_shape == (64, 64, 3)
    assert "images of 2 sizes: all resized to 64x64" in data.notes[0]


def test_split_folders_are_kept_and_folds_taken(tmp_path):
    for name, count in (("train", 6), ("valid", 2), ("test", 3)):
        fill(tmp_path / "p" / name, count)
    data = masks(tmp_path / "p", tmp_path)
    assert [len(s.inputs) for s in data.splits.values()] == [6, 2, 3]
    assert data.notes == () and data.names["test"][0] == "test/images/0.png"
    fold = select_fold(data, 4, 0, validation=0.2, seed=0)
    assert fold.target_type == "masks" and len(fold.splits["test"].targets) == 2


def test_folders_inside_keep_their_names(tmp_path):
    fill(tmp_path / "q")
    for half in ("images", "masks"):
        (tmp_path / "p" / half).mkdir(parents=True)
        (tmp_path / "q" / half).rename(tmp_path / "p" / half / "monday")
    data = masks(tmp_path / "p", tmp_path)
    assert data.names["test"][0].startswith("images/monday/")


def cut(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 30])


@pytest.mark.parametrize(
    ("harm", "words", "left"),
    [
        (
            lambda p: (p / "masks/3.png").unlink(),
            "skipped {p}/images/3.png: has no mask masks/3.png",
            7,
        ),
        (
            lambda p: picture(p / "masks/x.png", 0),
            "left out {p}/masks/x.png: has no image in images/",
            8,
        ),
        (
            lambda p: cut(p / "masks/3.png"),
            "skipped {p}/masks/3.png: not a readable mask (",
            7,
        ),
        (
            lambda p: cut(p / "images/3.png"),
            "skipped {p}/images/3.png: not a readable image (",
            7,
        ),
        (
            lambda p: picture(p / "masks/3.png", 0, (16, 8)),
            "skipped {p}/masks/3.png: is 8x16, but its image is 16x16",
            7,
        ),
        (
            lambda p: picture(p / "masks/3.png", 9, mode="RGB"),
            "skipped {p}/masks/3.png: not a readable mask (in colours, such as 9 0 0; "
            "name the class of each colour in classes.txt, in lines NAME R G B)",
            7,
        ),
        (
            lambda p: (
                picture(p / "masks/3.jpg", 0),
                (p / "masks/3.png").unlink(),
            ),
            "skipped {p}/masks/3.jpg: not a readable mask (a JPEG changes the pixels' "
            "classes; save it as PNG)",
            7,
        ),
        (
            lambda p: picture(p / "images/3.jpg", 0),
            "skipped {p}/images/3.png: 3.jpg has the same name",
            8,
        ),
        (
            lambda p: picture(p / "masks/3.tif", 0),
            "left out {p}/masks/3.tif: another mask has the same name",
            8,
        ),
    ],
)
def test_what_is_skipped_is_told(tmp_path, harm, words, left):
    folder = fill(tmp_path / "p")
    harm(folder)
    data = masks(folder, tmp_path)
    assert data.notes[0].startswith(words.format(p=folder)), data.notes
    assert sum(len(s.inputs) for s in data.splits.values()) == left
    assert all("\n" not in note for note in data.notes)


def test_many_without_a_mask_are_counted(tmp_path):
    folder = fill(tmp_path / "p", 16)
    for number in range(8):
        (folder / "masks" / f"{number}.png").unlink()
    notes = masks(folder, tmp_path).notes
    assert notes[5] == "skipped 3 more images without a mask"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda p: p.mkdir(),
            "p: no images with masks; expected p/images/NAME.jpg and p/masks/NAME",
        ),
        (
            lambda p: [(p / n).mkdir(parents=True) for n in ("images", "masks")],
            "p: no images with masks; expected",
        ),
        (lambda p: picture(p / "cat" / "1.png", 1), "no images with masks; expected"),
        (
            lambda p: [picture(p / "images/1.png", 1), (p / "masks").mkdir()],
            "none of its 1 images has a mask; the first: .*images/1.png: has no mask",
        ),
        (
            lambda p: [write(p / h / "1.png", b"x") for h in ("images", "masks")],
            "none of its 1 images can be read; the first: .*images/1.png: not a read",
        ),
        (
            lambda p: (
                [fill(p), picture(p / "masks/3.png", 2)]
                + [write(p / "classes.txt", b"a\nb")]
            ),
            r"masks/3.png: a pixel is 2, but classes.txt names 2 classes, 0 to 1; 2",
        ),
        (
            lambda p: fill(p, values=(0, 170)),
            "its masks hold the values 0, 170, most classes below 170 do not occur",
        ),
        (
            lambda p: fill(p, values=(0, 0)),
            "one class only, every pixel of its masks is",
        ),
        (lambda p: fill(p, values=(255, 255)), "one class only, .* masks is 255"),
        (
            lambda p: fill(p, 2),
            "p: it has too few images for training, 2 readable; 3",
        ),
        (
            lambda p: [fill(p), write(p / "classes.txt", b"a")],
            "classes.txt: names 1 classes; expected 2 to 255",
        ),
        (
            lambda p: [fill(p), write(p / "classes.txt", b"a\n\nb")],
            "classes.txt: line 2 is empty; name the class",
        ),
        (
            lambda p: [fill(p), write(p / "classes.txt", b"a\nb\na")],
            "classes.txt: names 'a' twice",
        ),
        (
            lambda p: [fill(p), write(p / "classes.txt", b"\xff\xfe\x81")],
            "classes.txt: not a readable text",
        ),
        (
            lambda p: [fill(p / "train"), picture(p / "test/images/1.png", 1)],
            "test: expected test/images/ and test/masks/, as in the other splits",
        ),
        (
            lambda p: [fill(p / n) for n in ("train", "val", "valid")],
            "p: holds both val and valid; keep one",
        ),
    ],
)
def test_folders_of_masks_that_cannot_be_learned_from(tmp_path, make, words):
    make(tmp_path / "p")
    with pytest.raises(DataError, match=words) as caught:
        masks(tmp_path / "p", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target_type", ["labels", "boxes"])
def test_masks_where_something_else_is_asked_for(tmp_path, target_type):
    folder = fill(tmp_path / "p")
    wanted = (
        f"{folder}: holds images/ and masks/; use the preset segment-digits: "
        f"experiments.train segment-digits --data={folder}"
    )
    with pytest.raises(DataError) as caught:
        masks(folder, tmp_path, target_type=target_type)
    assert str(caught.value) == wanted


def test_pictures_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("lstm_jax.data.files.masks.LARGEST", 1000)
    with pytest.raises(DataError, match="GiB of images at 16x16.*smaller --data.si"):
        masks(fill(tmp_path / "p"), tmp_path)


def test_a_mask_of_bits_and_one_of_16_bits(tmp_path):
    for mode, dtype in (("1", bool), ("I;16", np.uint16)):
        image = Image.fromarray(mask_of(3).astype(dtype))
        assert image.mode == mode
        image.save(tmp_path / "m.png")
        with open(tmp_path / "m.png", "rb") as file:
            np.testing.assert_array_equal(decode_mask(file, None, "m"), mask_of(3))


def coloured(path, values, colors):
    """A mask of two values in colours."""
    table = np.asarray(colors, np.uint8)
    Image.fromarray(table[mask_of(values, (0, 1))]).save(path)


TABLES = {
    "classes.txt": "sky 0 0 128\ncar 255 0 0\n",
    "class_dict.csv": "name,r,g,b\nsky,0,0,128\ncar,255,0,0\n",
    "label_colors.txt": "0 0 128\tsky\n255 0 0\tcar\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nsky:0,0,128::\ncar:255,0,0::\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_masks_in_colours(tmp_path, name):
    folder = fill(tmp_path / "p")
    for number in range(COUNT):
        path = folder / "masks" / f"{number}.png"
        coloured(path, number, [(0, 0, 128), (255, 0, 0)])
    (folder / name).write_text(TABLES[name])
    data = masks(folder, tmp_path)
    assert data.classes == ("sky", "car")
    found = all_of(data)
    assert sorted(found) == list(range(COUNT))
    for number, mask in found.items():
        np.testing.assert_array_equal(mask, mask_of(number))


def test_a_colour_that_is_ignored_and_one_that_is_unknown(tmp_path):
    folder = fill(tmp_path / "p")
    for number in range(COUNT):
        path = folder / "masks" / f"{number}.png"
        coloured(path, number, [(0, 0, 128), (255, 255, 255)])
    coloured(folder / "masks" / "5.png", 5, [(0, 0, 128), (1, 2, 3)])
    (folder / "classes.txt").write_text("sky 0 0 128\nvoid 255 255 255\ncar 9 9 9")
    data = masks(folder, tmp_path)
    assert data.classes == ("sky", "car") and data.notes[0] == (
        f"skipped {folder / 'masks' / '5.png'}: not a readable mask (a pixel has the "
        "colour 1 2 3, which classes.txt does not name)"
    )
    for number, mask in all_of(data).items():
        np.testing.assert_array_equal(mask, mask_of(number, (0, 255)))
    (folder / "classes.txt").write_text("sky 0 0 128\ncar")
    with pytest.raises(DataError, match="'car' has no colour; expected NAME R G B"):
        masks(folder, tmp_path)


def test_black_and_white_in_three_channels(tmp_path):
    folder = fill(tmp_path / "p")
    for number in range(COUNT):
        path = folder / "masks" / f"{number}.png"
        coloured(path, number, [(0, 0, 0), (255, 255, 255)])
    data = masks(folder, tmp_path)
    assert data.classes == ("background", "object")
    for number, mask in all_of(data).items():
        np.testing.assert_array_equal(mask, mask_of(number))


def moved(folder, images, masks):
    """The example folder with its images and masks at other places."""
    for old, new in (("images", images), ("masks", masks)):
        for file in sorted((folder / old).iterdir()):
            part = "train" if int(file.stem) < 6 else "test"
            path = folder / new.format(stem=file.stem, part=part)
            path.parent.mkdir(parents=True, exist_ok=True)
            file.rename(path)
        (folder / old).rmdir() if not any((folder / old).iterdir()) else None


@pytest.mark.parametrize(
    ("images", "where", "counts"),
    [
        ("JPEGImages/{stem}.jpg", "SegmentationClass/{stem}.png", [5, 1, 2]),
        ("imgs/{stem}.png", "labels/{stem}.png", [5, 1, 2]),
        ("{stem}.png", "{stem}_mask.png", [5, 1, 2]),
        ("{part}/{stem}.png", "{part}/{stem}-mask.png", [5, 1, 2]),
        ("images/{stem}.png", "masks/{stem}_mask.png", [5, 1, 2]),
        ("images/{part}/{stem}.png", "masks/{part}/{stem}.png", [5, 1, 2]),
    ],
)
def test_other_places_of_masks(tmp_path, images, where, counts):
    folder = fill(tmp_path / "p")
    moved(folder, images, where)
    data = masks(folder, tmp_path)
    assert [len(split.inputs) for split in data.splits.values()] == counts
    tested = {int(image[0, 0, 0]) // 10 for image in data.splits["test"].inputs}
    assert ("{part}" in images) == (tested == {6, 7})
    for number, mask in all_of(data).items():
        np.testing.assert_array_equal(mask, mask_of(number))


def test_the_lists_of_pascal_voc(tmp_path):
    folder = fill(tmp_path / "p")
    moved(folder, "JPEGImages/{stem}.png", "SegmentationClass/{stem}.png")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n3\n")
    (lists / "val.txt").write_text("4\n5\n6\n")
    (lists / "trainval.txt").write_text("0\n1\n2\n3\n4\n5\n6\n")
    data = masks(folder, tmp_path)
    held = {int(image[0, 0, 0]) // 10 for image in data.splits["validation"].inputs}
    assert held == {4, 5, 6}
    assert any("7.png: in no list of ImageSets/Segmentation/" in n for n in data.notes)


def test_two_folders_of_masks_are_refused(tmp_path):
    folder = fill(tmp_path / "p")
    picture(folder / "labels" / "0.png", 1)
    with pytest.raises(DataError, match="holds both masks/ and labels/; keep one"):
        masks(folder, tmp_path)


def test_hidden_folders_do_not_hide_the_splits(tmp_path):
    rng, counts = np.random.default_rng(0), {"train": 4, "val": 2, "test": 3}
    for split, count in counts.items():
        for part in ("images", "masks"):
            (tmp_path / "d" / part / split).mkdir(parents=True)
        for k in range(count):
            image = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(image).save(tmp_path / f"d/images/{split}/{k}.png")
            Image.fromarray(image % 2).save(tmp_path / f"d/masks/{split}/{k}.png")
    (tmp_path / "d/images/.ipynb_checkpoints").mkdir()
    data = load(tmp_path / "d", data_dir=tmp_path, target_type="masks")
    assert [len(s.inputs) for s in data.splits.values()] == [*counts.values()]
