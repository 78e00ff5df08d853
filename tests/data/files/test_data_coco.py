"""Your own images with boxes, from COCO files: what loads and what not."""

import json

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load

COUNT = 8
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def picture(path, value, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def content(count=COUNT):
    """Image k, of the grey 10 k, holds one cat [k, 2, 4, 6]."""
    images = [
        {"id": 100 + k, "file_name": f"{k}.png", "height": 16, "width": 16}
        for k in range(count)
    ]
    boxes = [
        {"id": k, "image_id": 100 + k, "category_id": 3, "bbox": [k, 2, 4, 6]}
        for k in range(count)
    ]
    return {
        "images": images,
        "annotations": boxes,
        "categories": [dict(c) for c in CATEGORIES],
    }


def fill(folder, count=COUNT, file="annotations.json", pictures=".", change=None):
    """A folder of images and the file about them, which `change` alters."""
    for k in range(count):
        picture(folder / pictures / f"{k}.png", 10 * k)
    found = content(count)
    if change:
        change(found)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(found))
    return folder


def boxes(path, tmp_path, **options):
    options = dict(data_dir=tmp_path / "cache", target_type="boxes") | options
    return load(path, **options)


def renamed(number, name):
    def change(found):
        found["images"][number]["file_name"] = str(name)

    return change


@pytest.mark.parametrize("way", ["../secret.png", "a/../../secret.png", "absolute"])
def test_an_image_outside_is_refused_unless_asked_for(way, tmp_path):
    secret = tmp_path / "secret.png"
    picture(secret, 200)
    name = secret if way == "absolute" else way
    (tmp_path / "q" / "a").mkdir(parents=True)
    root = fill(tmp_path / "q", change=renamed(3, name))
    words = f"images\\[3\\]: file_name '{str(name)[:60]}.* leads outside of the data"
    with pytest.raises(DataError, match=words) as error:
        boxes(root, tmp_path)
    assert "\n" not in str(error.value)
    data = boxes(root, tmp_path, follow_outside=True)
    assert sorted(all_of(data)) == [0, 1, 2, 4, 5, 6, 7, 20]


def test_an_absolute_path_from_elsewhere_is_found_by_its_name(tmp_path):
    root = fill(tmp_path / "q", change=renamed(3, "/home/someone/3.png"))
    assert sorted(all_of(boxes(root, tmp_path))) == [*range(COUNT)]
    root = fill(tmp_path / "p", change=renamed(3, tmp_path / "p" / "3.png"))
    assert sorted(all_of(boxes(root, tmp_path))) == [*range(COUNT)]
    file = "annotations/instances_train.json"
    root = fill(tmp_path / "r", file=file, change=renamed(3, "../3.png"))
    assert sorted(all_of(boxes(root, tmp_path))) == [*range(COUNT)]


def all_of(data):
    """{number that the grey tells: table of boxes} over all splits."""
    return {
        int(image[0, 0, 0]) // 10: table
        for split in data.splits.values()
        for image, table in zip(split.inputs, split.targets, strict=True)
    }


@pytest.mark.parametrize("pictures", [".", "images"])
@pytest.mark.parametrize("size", [None, 8])
def test_boxes_become_corners_of_the_resized_picture(tmp_path, pictures, size):
    def change(found):
        found["annotations"] += [
            {"image_id": 102, "category_id": 7, "bbox": [0, 0, 2.5, 16], "iscrowd": 1}
        ]
        found["annotations"][0]["segmentation"] = [[0, 0, 1, 1, 1, 0]]
        del found["annotations"][5]

    folder = fill(tmp_path / "p", pictures=pictures, change=change)
    data = boxes(folder, tmp_path, size=size)
    assert data.target_type == "boxes" and data.classes == ("cat", "dog")
    side = size or 16
    assert data.image_shape == (side, side, 1) and data.name == "p"
    assert [len(s.inputs) for s in data.splits.values()] == [5, 1, 2]
    found, share = all_of(data), side / 16
    empty = [0, 0, 0, 0, -1, 0, 0]
    for number in range(COUNT):
        table = found[number]
        assert table.dtype == np.float32 and table.shape == (2, 7)
        cat = [*(share * c for c in (number, 2, number + 4, 8)), 0, 0, 0]
        dog = [0, 0, 2.5 * share, side, 1, 1, 0]
        wanted = {2: [cat, dog], 5: [empty, empty]}.get(number, [cat, empty])
        np.testing.assert_array_equal(table, wanted)
    for split, inside in data.splits.items():
        for name, image in zip(data.names[split], inside.inputs, strict=True):
            assert name == f"{image[0, 0, 0] // 10}.png"
    assert len(data.notes) == 1 and "random split, seed 0" in data.notes[0]


def test_pictures_that_are_not_square_and_differ(tmp_path):
    def change(found):
        found["images"][0] |= {"height": 10, "width": 20}
        found["annotations"][0]["bbox"] = [5, 5, 10, 5]

    folder = fill(tmp_path / "p", change=change)
    picture(folder / "0.png", 0, (20, 10))
    data = boxes(folder, tmp_path, fit="squash")
    assert data.image_shape == (64, 64, 1)
    assert "images of 2 sizes: all resized to 64x64" in data.notes[0]
    np.testing.assert_array_equal(all_of(data)[0][0, :4], [16, 32, 48, 64])


def test_a_file_alone_and_one_picture_twice(tmp_path):
    def change(found):
        found["images"] += [dict(i, id=i["id"] + 50) for i in found["images"]]

    folder = fill(tmp_path / "p", file="my.json", change=change)
    data = boxes(folder / "my.json", tmp_path)
    assert data.name == "my.json"
    greys = [set(s.inputs[:, 0, 0, 0].tolist()) for s in data.splits.values()]
    assert sum(map(len, greys)) == COUNT  # an image is in one split only


@pytest.mark.parametrize(
    ("file", "pictures"),
    [
        ("{}/_annotations.coco.json", ("train", "valid", "test")),
        ("{}/annotations.json", ("train/images", "val/images", "test/images")),
        ("annotations/instances_{}.json", ("images", "images", "images")),
        ("annotations/instances_{}2017.json", ("train2017", "val2017", "test2017")),
        (
            "annotations/instances_{}.json",
            ("images/train", "images/val", "images/test"),
        ),
    ],
)
def test_splits_as_they_are_written(tmp_path, file, pictures):
    names = ("train", "valid" if "valid" in pictures else "val", "test")
    for name, folder, count in zip(names, pictures, (6, 2, 3), strict=True):
        fill(tmp_path / "p", count, file.format(name), folder)
    data = boxes(tmp_path / "p", tmp_path)
    assert [len(s.inputs) for s in data.splits.values()] == [6, 2, 3]
    for split in data.splits.values():
        np.testing.assert_array_equal(
            split.targets[:, 0, 0], split.inputs[:, 0, 0, 0] // 10
        )
    assert data.notes == ()


def test_cvat_and_roboflow_have_ways_of_their_own(tmp_path):
    def change(found):
        found["categories"] = [
            {"id": 0, "name": "animals", "supercategory": "none"},
            *({**c, "supercategory": "animals"} for c in CATEGORIES),
        ]
        for entry in found["images"]:
            entry["file_name"] = "sub\\" + entry["file_name"]

    file = "annotations/instances_default.json"
    data = boxes(fill(tmp_path / "p", 8, file, "images", change), tmp_path)
    assert data.classes == ("cat", "dog") and len(data.splits["train"].inputs) == 5
    assert data.notes[0] == "'animals' is a supercategory without boxes: left out"


def with_box(box, **more):
    entry = {"image_id": 101, "category_id": 3, "bbox": box} | more
    return lambda found: found["annotations"].append(entry)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            with_box([12, 12, 8, 8]),
            "clipped 1 box at the border; the first: annotations[8] of "
            "annotations.json, bbox [12.0, 12.0, 8.0, 8.0] in 16x16",
        ),
        (
            with_box([16, 2, 3, 3]),
            "skipped 1 box outside the image; the first: annotations[8] of "
            "annotations.json, bbox [16.0, 2.0, 3.0, 3.0] in 16x16",
        ),
        (with_box([-9, 2, 3, 3]), "skipped 1 box outside the image; the first: ann"),
        (
            with_box([1, 1, 0, 2]),
            "skipped 1 box without area; the first: annotations[8]",
        ),
        (
            with_box([1, 1, 2, -2]),
            "skipped 1 box without area; the first: annotations[8]",
        ),
        (
            with_box([1, float("nan"), 2, 2]),
            "skipped 1 box with NaN or infinity; the fir",
        ),
        (
            with_box([1, float("inf"), 2, 2]),
            "skipped 1 box with NaN or infinity; the fir",
        ),
        (
            with_box([1, 10**400, 2, 2]),
            "skipped 1 box with NaN or infinity; the first: ",
        ),
        (
            with_box([1, 1, 2, 2], category_id=9),
            "skipped 1 box with a category_id that is not listed; the first: "
            "annotations[8] of annotations.json, category_id 9",
        ),
        (
            with_box([1, 1, 2, 2], image_id=9),
            "skipped 1 box with an image_id that is not listed; the first: "
            "annotations[8] of annotations.json, image_id 9",
        ),
        (
            lambda f: [with_box([1, 1, 0, 2])(f) for _ in range(3)],
            "skipped 3 boxes without",
        ),
        (
            lambda f: f["images"][3].update(file_name="no.png"),
            "skipped {p}/no.png: No such file or directory",
        ),
        (
            lambda f: f["images"][3].update(file_name="cut.png"),
            "skipped {p}/cut.png: not a readable image (",
        ),
        (
            lambda f: f["images"][3].update(height=10**9, width=10**9),
            "skipped {p}/3.png: is 16x16, but its entry has height 1000000000 and",
        ),
    ],
)
def test_what_is_skipped_is_told(tmp_path, change, note):
    folder = fill(tmp_path / "p", change=change)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:44])
    data = boxes(folder, tmp_path)
    assert data.notes[0].startswith(note.format(p=folder)), data.notes
    assert len(data.notes) == 2 and "\n" not in data.notes[0]
    left = 7 if "png:" in note else 8
    assert sum(len(s.inputs) for s in data.splits.values()) == left
    table = all_of(data)[1]
    if "clipped" in note:
        np.testing.assert_array_equal(table[1, :4], [12, 12, 16, 16])
    else:
        assert len(table) == 1 and table[0, 0] == 1
    assert boxes(folder, tmp_path).notes == data.notes  # of the cache, too


def drop(name, number=0, of="annotations"):
    return lambda found: found[of][number].pop(name)


def put(of, number=0, **values):
    return lambda found: found[of][number].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda f: f.pop("categories"),
            r"annotations.json: no list 'categories', found",
        ),
        (lambda f: f.update(images=3), r"no list 'images', found images, annotations"),
        (
            lambda f: f.update(images=[3]),
            r"annotations.json: images\[0\] is not an object",
        ),
        (drop("bbox", 2), r"annotations.json: annotations\[2\] has no 'bbox'"),
        (drop("image_id"), r"annotations\[0\] has no 'image_id'"),
        (drop("category_id"), r"annotations\[0\] has no 'category_id'"),
        (drop("file_name", 1, "images"), r"images\[1\] has no 'file_name'"),
        (drop("id", 1, "images"), r"images\[1\] has no 'id'"),
        (drop("name", 1, "categories"), r"categories\[1\] has no 'name'"),
        (
            put("annotations", bbox=[1, 2, 3]),
            r"bbox is \[1, 2, 3\], expected \[x, y, ",
        ),
        (
            put("annotations", bbox=["1", 2, 3, 4]),
            r"bbox is \['1', 2, 3, 4\], expected",
        ),
        (
            put("annotations", bbox={}),
            r"annotations\[0\]: bbox is {}, expected a list",
        ),
        (
            put("annotations", category_id=None),
            "category_id is None, expected an integer",
        ),
        (put("images", file_name="a\0b"), r"file_name 'a\\x00b' is not a file name"),
        (put("images", 1, id=100), r"images\[1\] has the id 100 of an earlier one"),
        (
            put("categories", 1, id=7),
            r"\[1\] is 'cat' with the id 7, which was 'dog' bef",
        ),
        (
            put("categories", 1, name="dog"),
            "the categories 3, 7 have the same name 'dog'",
        ),
        (
            lambda f: f.update(annotations=[]),
            "p: no box to train on; the list 'annotations' is empty",
        ),
        (
            lambda f: [a.update(bbox=[99, 99, 1, 1]) for a in f["annotations"]],
            "p: no box to train on; skipped 8 boxes outside the image; the first",
        ),
        (
            lambda f: [a.update(category_id=9) for a in f["annotations"]],
            "p: no box to train on; skipped 8 boxes with a category_id that is not",
        ),
        (lambda f: f.update(images=[]), "p: no images; the list 'images' is empty"),
        (
            lambda f: f.update(categories=[]),
            "p: no classes; the list 'categories' is e",
        ),
        (
            lambda f: [i.update(file_name="x/y.png") for i in f["images"]],
            "none of its 8 images can be read; the first: .*p/x/y.png: No such file",
        ),
        (
            lambda f: f.update(images=f["images"][:2]),
            "too few images for training, 2",
        ),
    ],
)
def test_files_that_cannot_be_learned_from(tmp_path, change, words):
    folder = fill(tmp_path / "p", change=change)
    with pytest.raises(DataError, match=words) as caught:
        boxes(folder, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", r"a.json: not readable JSON \(ends too early"),
        (json.dumps(content())[:900].encode(), r"a.json: not readable JSON \("),
        (b'{"images": [', r"not readable JSON \(ends too early, Expecting value"),
        (b"[1]", "a.json: no list 'images', found no JSON object; a COCO file has"),
        (b"{}", "a.json: no list 'images', found nothing; a COCO file has the lists"),
        (b"\xff\x00\x81", r"a.json: not readable JSON \('utf-8' codec"),
        (b"[" * 100_000, r"a.json: not readable JSON \(too deeply nested\)"),
        (b'{"a": ' + b"1" * 5000 + b"}", r"a.json: not readable JSON \(Exceeds the li"),
    ],
)
def test_files_that_are_no_coco(tmp_path, text, words):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(DataError, match=words) as caught:
        boxes(tmp_path / "a.json", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "p: no boxes; expected a COCO file, p/annotations.json"),
        (lambda p: picture(p / "cat/1.png", 1), "p: no boxes; expected a COCO file"),
        (
            lambda p: fill(p, file="annotations/instances_val.json"),
            "p: has no boxes to train on, only instances_val.json",
        ),
        (
            lambda p: [
                fill(p, file=f"annotations/instances_train{year}.json")
                for year in (2014, 2017)
            ],
            "instances_train2014.json and instances_train2017.json are both for train",
        ),
    ],
)
def test_folders_without_a_file_to_train_on(tmp_path, make, words):
    make(tmp_path / "p")
    with pytest.raises(DataError, match=words):
        boxes(tmp_path / "p", tmp_path)


@pytest.mark.parametrize("target_type", ["labels", "masks"])
def test_boxes_where_something_else_is_asked_for(tmp_path, target_type):
    folder = fill(tmp_path / "p")
    for path in (folder, folder / "annotations.json"):
        with pytest.raises(DataError) as caught:
            boxes(path, tmp_path, target_type=target_type)
        assert str(caught.value) == (
            f"{path}: holds boxes (annotations.json); use the preset "
            f"detect-digits: experiments.train detect-digits --data={path}"
        )


def test_masks_and_boxes_in_one_folder(tmp_path):
    folder = fill(tmp_path / "p", pictures="images")
    for k in range(COUNT):
        picture(folder / "masks" / f"{k}.png", k % 2)
    assert boxes(folder, tmp_path).target_type == "boxes"
    assert boxes(folder, tmp_path, target_type="masks").target_type == "masks"
    with pytest.raises(
        DataError, match="target_type is labels, masks, boxes, text; got 'box'"
    ):
        boxes(folder, tmp_path, target_type="box")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("_LARGEST_FILE", 100, r"GiB of JSON, over the 0 GiB .*leave out outlines"),
        ("LARGEST", 1000, r"GiB of images at 16x16.*smaller --data.size"),
        (
            "COLUMNS",
            2**40,
            r"one image has 1 boxes; an array of that many for each of 8 im",
        ),
    ],
)
def test_sizes_beyond_memory(tmp_path, monkeypatch, name, value, words):
    home = "coco" if name.startswith("_") else "box_files"
    monkeypatch.setattr(f"lstm_jax.data.files.{home}.{name}", value)
    with pytest.raises(DataError, match=words):
        boxes(fill(tmp_path / "p"), tmp_path)
