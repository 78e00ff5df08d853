"""Your own images with boxes in the format of Pascal VOC."""

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load
from lstm_jax.targets import CLASS, CROWD

SIZE = 20, 40  # H, W


def xml(objects, size=SIZE, filename="other.jpg", more=""):
    """An annotation; objects are (name, xmin, ymin, xmax, ymax, further elements)."""
    h, w = size
    parts = "".join(
        f"<object><name>{name}</name>{rest}<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1, rest in objects
    )
    return (
        f"{more}<annotation><filename>{filename}</filename><size><width>{w}</width>"
        f"<height>{h}</height><depth>3</depth></size>{parts}</annotation>"
    )


ONE = ("cat", 6, 6, 15, 10, "")
PLACES = [  # where images and annotations are
    ("JPEGImages", "Annotations"),
    ("images", "annotations"),
    ("", ""),
]


def write(folder, number, text, places=PLACES[0], exif=None):
    for place in places:
        (folder / place).mkdir(parents=True, exist_ok=True)
    image = Image.new("L", SIZE[::-1], number)
    options = {"exif": exif} if exif else {}
    image.save(folder / places[0] / f"{number}.png", **options)
    (folder / places[1] / f"{number}.xml").write_text(text)


def boxes(folder, tmp_path, **options):
    options |= dict(data_dir=tmp_path / "cache", target_type="boxes")
    return load(folder, **options)


def rows(data):
    """The rows of boxes of all examples, by the value of their pixels."""
    found = {}
    for split in data.splits.values():
        for image, table in zip(split.inputs, split.targets, strict=True):
            found[int(image[0, 0, 0])] = table[table[:, CLASS] >= 0].tolist()
    return found


@pytest.mark.parametrize("places", PLACES)
def test_pixels_are_counted_from_1(tmp_path, places):
    """A box of xmin 1 to xmax 40 is the whole width of 40 pixels."""
    dog = ("dog", 1, 1, 40, 20, "<truncated>1</truncated><difficult>0</difficult>")
    for k in range(8):
        write(tmp_path / "p", k, xml([ONE, dog] if k else []), places)
    data = boxes(tmp_path / "p", tmp_path)
    assert data.classes == ("cat", "dog") and data.target_type == "boxes"
    found = rows(data)
    assert found.pop(0) == []
    wanted = [[5, 5, 15, 10, 0, 0, 0], [0, 0, 40, 20, 1, 0, 0]]
    assert found == dict.fromkeys(range(1, 8), wanted)
    assert all("random split" in note for note in data.notes), data.notes


def test_a_box_at_0_tells_that_pixels_are_counted_from_0(tmp_path):
    for k in range(6):
        write(tmp_path / "p", k, xml([("cat", 0, 5, 10, 20, "")]))
    data = boxes(tmp_path / "p", tmp_path)
    assert rows(data)[0] == [[0, 5, 10, 20, 0, 0, 0]]
    assert any("pixels are counted from 0, not 1" in note for note in data.notes)


def test_pixels_are_counted_alike_in_all_splits(tmp_path):
    for k in range(8):
        split = "train" if k < 5 else "valid" if k < 7 else "test"
        box = ("cat", 2 * (k != 6), 5, 10, 20, "")
        write(tmp_path / "p" / split, k, xml([box]), PLACES[2])
    data = boxes(tmp_path / "p", tmp_path)
    found = rows(data)
    assert found[6] == [[0, 5, 10, 20, 0, 0, 0]]
    assert found[0] == [[2, 5, 10, 20, 0, 0, 0]]
    assert sum("pixels are counted from 0, not 1" in note for note in data.notes) == 1


def test_difficult_objects_need_not_be_detected(tmp_path):
    hard = ("cat", 1, 1, 9, 9, "<difficult>1</difficult>")
    for k in range(6):
        write(tmp_path / "p", k, xml([ONE, hard]))
    (table,) = [t for t in boxes(tmp_path / "p", tmp_path).splits["test"].targets][:1]
    assert table[:, CROWD].tolist() == [0, 1]


def test_parts_of_an_object_are_no_objects(tmp_path):
    part = (
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
        "<ymax>2</ymax></bndbox></part>"
    )
    for k in range(6):
        write(tmp_path / "p", k, xml([(*ONE[:5], part)]))
    data = boxes(tmp_path / "p", tmp_path)
    assert data.classes == ("cat",)
    assert rows(data)[0] == [[5, 5, 15, 10, 0, 0, 0]]


def test_splits_by_lists_and_by_folders(tmp_path):
    lists = tmp_path / "p" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for k in range(8):
        write(tmp_path / "p", k, xml([ONE]))
    for name, text in {
        "train": "0\n1\n2\n3\n",
        "val": "4\n5\n",
        "trainval": "0\n1\n2\n3\n4\n5\n",
        "test": "6\n9\n",
        "cat_train": "0  1\n1 -1\n",
    }.items():
        (lists / f"{name}.txt").write_text(text)
    data = boxes(tmp_path / "p", tmp_path)
    counts = {name: len(split.inputs) for name, split in data.splits.items()}
    assert counts == {"train": 4, "validation": 2, "test": 1}
    assert any("test.txt: 1 names without XML: 9" in note for note in data.notes)
    assert any("left out 1 XML files in no list" in note for note in data.notes)

    for k in range(8):
        split = "train" if k < 5 else "valid" if k < 7 else "test"
        write(tmp_path / "q" / split, k, xml([ONE]), PLACES[2])
    data = boxes(tmp_path / "q", tmp_path)
    counts = {name: len(split.inputs) for name, split in data.splits.items()}
    assert counts == {"train": 5, "validation": 2, "test": 1}


@pytest.mark.parametrize(("size", "turned"), [(SIZE, True), (SIZE[::-1], False)])
def test_orientation_turns_boxes_with_the_pixels(tmp_path, size, turned):
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored 20x40 pixels are shown as 40x20
    for k in range(6):
        write(tmp_path / "p", k, xml([("cat", 1, 1, 10, 4, "")], size), exif=exif)
    data = boxes(tmp_path / "p", tmp_path)
    assert data.image_shape == (40, 20, 1)
    (box,) = rows(data)[0]
    assert box[:4] == ([16, 0, 20, 10] if turned else [0, 0, 10, 4])


BOMB = (
    '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>'
    "<annotation><filename>&c;</filename></annotation>"
)
FAULTS = [  # (an annotation, what is said)
    (BOMB, "skipped {p}: not a readable XML file (it has a DOCTYPE"),
    ("<annotation><object>", "skipped {p}: not a readable XML file ("),
    (xml([("cat", "a", 1, 2, 3, "")]), "object 0: bndbox is a, 1, 2, 3; expected the"),
    (xml([("", 1, 1, 2, 3, "")]), "skipped {p}: object 0 has no name"),
    ("<annotation><object><name>x</name></object></annotation>", "None, None, None"),
    (xml([("cat", "1e999", 1, 9, 9, "")]), "skipped 1 box with NaN or infinity"),
    (xml([("cat", "nan", 1, 9, 9, "")]), "skipped 1 box with NaN or infinity"),
    (xml([("cat", 9, 1, 5, 9, "")]), "skipped 1 box without area"),
    (xml([("cat", 50, 1, 60, 9, "")]), "skipped 1 box outside the image"),
    (xml([("cat", 30, 1, 60, 9, "")]), "clipped 1 boxes at the border"),
    (xml([ONE], (30, 30)), "is 20x40, but its entry has height 30 and width 30"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS)
def test_faults_are_told_in_one_line(tmp_path, text, words):
    for k in range(8):
        write(tmp_path / "p", k, xml([ONE]) if k else text)
    data = boxes(tmp_path / "p", tmp_path)
    words = words.replace("{p}", str(tmp_path / "p" / "Annotations" / "0.xml"))
    words = words.replace("clipped 1 boxes", "clipped 1 box")
    told = [note for note in data.notes if "random split" not in note]
    assert len(told) == 1 and words in told[0] and "\n" not in told[0], told


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    for k in range(8):
        write(tmp_path / "p", k, xml([ONE] * (1 if k else 50)))
    monkeypatch.setattr("lstm_jax.data.files.xml_files._LARGEST", 4096)
    told = [n for n in boxes(tmp_path / "p", tmp_path).notes if "skipped" in n]
    assert len(told) == 1 and "MiB of XML, over the limit of" in told[0]


def test_an_image_without_xml_is_left_out(tmp_path):
    for k in range(6):
        write(tmp_path / "p", k, xml([ONE]))
    Image.new("L", SIZE[::-1]).save(tmp_path / "p" / "JPEGImages" / "bare.png")
    notes = boxes(tmp_path / "p", tmp_path).notes
    assert any("bare.png: has no bare.xml" in note for note in notes)


def test_a_file_name_cannot_lead_outside(tmp_path):
    Image.new("L", SIZE[::-1]).save(tmp_path / "outside.png")
    for k in range(6):
        write(tmp_path / "p", k, xml([ONE], filename="../../outside.png"))
    (tmp_path / "p" / "JPEGImages" / "0.png").unlink()
    with pytest.raises(DataError, match="leads outside of the data set's folder"):
        boxes(tmp_path / "p", tmp_path)


def test_with_labels_as_targets_the_preset_is_named(tmp_path):
    write(tmp_path / "p", 0, xml([ONE]))
    with pytest.raises(DataError, match="Pascal VOC .*; use the preset detect-digits"):
        load(tmp_path / "p", data_dir=tmp_path / "cache")


def test_numbers_in_sizes_are_bounded(tmp_path):
    for k in range(6):
        write(tmp_path / "p", k, xml([ONE], ("9" * 5000, 40)))
    data = boxes(tmp_path / "p", tmp_path)
    assert len(rows(data)) == 6 and np.isfinite(data.splits["test"].targets).all()
