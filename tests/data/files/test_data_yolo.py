"""Your own images with boxes in the format of YOLO."""

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load

LINES = {  # of an image of 20 x 40: what is written, and corners in pixels
    "0 0.5 0.5 0.25 0.5": (0, 15, 5, 25, 15),
    "1 0.25 0.25 0.5 0.5": (1, 0, 0, 20, 10),
    "1 0.25 0.5 0.5 0.5 0.5 1.0 0.25 0.75": (1, 10, 10, 20, 20),  # a polygon
}


def write(folder, place, number, text):
    """An image, and its labels where `place` has {half} as images or labels."""
    image = folder / place.format(half="images") / f"{number}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 20), number).save(image)
    labels = folder / place.format(half="labels") / f"{number}.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text(text)


def boxes(folder, tmp_path):
    return load(folder, data_dir=tmp_path / "cache", target_type="boxes")


@pytest.mark.parametrize(
    ("places", "counts"),
    [
        (["{half}"], [5, 1, 2]),
        (["{half}/train", "{half}/val"], None),
        (["train/{half}", "valid/{half}"], None),
    ],
)
def test_boxes_become_corners_in_pixels(tmp_path, places, counts):
    texts = ["", *LINES, "\n".join(LINES)] * 2
    for number, text in enumerate(texts[:8]):
        write(tmp_path / "p", places[number >= 6 and -1 or 0], number, text)
    (tmp_path / "p" / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")
    data = boxes(tmp_path / "p", tmp_path)
    assert data.classes == ("cat", "dog") and data.target_type == "boxes"
    sizes = [len(split.inputs) for split in data.splits.values()]
    assert sum(sizes) == 8
    assert sizes == counts if counts else sizes[1] == 2
    for split in data.splits.values():
        for image, table in zip(split.inputs, split.targets, strict=True):
            wanted = [LINES[line] for line in texts[image[0, 0, 0]].splitlines()]
            found = [(row[4], *row[:4]) for row in table.tolist() if row[4] >= 0]
            np.testing.assert_allclose(sorted(found), sorted(wanted), atol=1e-4)


def test_names_among_the_labels_do_not_hide_the_splits(tmp_path):
    for number in range(8):
        place = "{half}/val" if number > 5 else "{half}/train"
        write(tmp_path / "p", place, number, [*LINES][number % 2])
    (tmp_path / "p" / "labels" / "classes.txt").write_text("cat\ndog\n")
    data = boxes(tmp_path / "p", tmp_path)
    assert data.classes == ("cat", "dog")
    assert len(data.splits["validation"].inputs) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "cat\ndog\n"),
        ("data.yaml", "names:\n  0: cat\n  1: dog\n"),
        ("data.yml", "names:\n- cat\n- dog\n"),
    ],
)
def test_names_of_classes(tmp_path, name, text):
    for number in range(6):
        write(tmp_path / "p", "{half}", number, "1 .5 .5 .1 .1")
    assert boxes(tmp_path / "p", tmp_path).classes == ("0", "1")
    (tmp_path / "p" / name).write_text(text)
    assert boxes(tmp_path / "p", tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("labels/3.txt", "0 .5 .5", "3.txt: line 1 is '0 .5 .5'; expected class x y w"),
        ("labels/3.txt", "\n-1 .5 .5 .1 .1", "line 2 is '-1 .5 .5 .1 .1'; expected cl"),
        (
            "labels/3.txt",
            "0 nan .5 .1 .1",
            "line 1 is '0 nan .5 .1 .1'; expected",
        ),
        ("labels/3.txt", "cat .5 .5 .1 .1", "line 1 is 'cat .5 .5 .1 .1'; expected cl"),
        ("data.yaml", "names: [", "data.yaml: no class names can be read"),
        ("data.yaml", "nc: 2", "data.yaml: no class names can be read"),
    ],
)
def test_what_is_refused(tmp_path, file, text, words):
    for number in range(6):
        write(tmp_path / "p", "{half}", number, "0 .5 .5 .1 .1")
    (tmp_path / "p" / file).write_text(text)
    with pytest.raises(DataError, match=words) as error:
        boxes(tmp_path / "p", tmp_path)
    assert "\n" not in str(error.value)


def test_a_class_without_a_name_is_told(tmp_path):
    for number in range(6):
        write(tmp_path / "p", "{half}", number, f"{number % 3} .5 .5 .1 .1")
    (tmp_path / "p" / "classes.txt").write_text("cat\ndog")
    notes = boxes(tmp_path / "p", tmp_path).notes
    assert any("category_id that is not listed" in note for note in notes), notes
