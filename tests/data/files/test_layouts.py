"""Sixty layouts and tables: what is recognised, or the line that is said."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load
from lstm_jax.data.files.layouts import detect

# A layout is written as words: "cat*3" makes cat/0.png to cat/2.png, "notes/" an empty
# folder, "a->b" a link a to b (relative to the folder), "name=text" a text file, in
# which "|" ends a line and "_" is a space.


def make(root, words):
    root.mkdir(parents=True)
    for word in words.split():
        if "->" in word:
            link, target = word.split("->")
            (root / link).parent.mkdir(parents=True, exist_ok=True)
            (root / link).symlink_to(os.path.join(root, target))
        elif "=" in word:
            name, text = word.split("=", 1)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text.replace("|", "\n").replace("_", " "))
        elif "*" in word:
            name, number = word.split("*")
            for k in range(int(number)):
                image(root / name / f"{k}.png", word, k)
        elif word.endswith("/"):
            (root / word).mkdir(parents=True)
        else:
            image(root / word, word, 0)


def image(path, word, k):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*word.encode(), k])
    Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).save(path)


def told(root, **options):
    """Classes, examples by split, and notes; or the error."""
    options.setdefault("data_dir", root.parent / "cache")
    try:
        data = load(root, **options)
    except DataError as error:
        assert "\n" not in str(error)
        return str(error).replace(str(root), root.name)
    counts = "/".join(str(len(split.inputs)) for split in data.splits.values())
    notes = "; ".join(n for n in data.notes if "random split, seed" not in n)
    kind = {3: "images", 4: "clips", 2: "features"}[len(data.image_shape)]
    line = f"{kind} {','.join(data.classes)} {counts}"
    return (f"{line}; {notes}" if notes else line).replace(str(root), root.name)


GIVEN = "Train/a*4 Train/b*4 Test/a*2 Test/b*2"
FOLDERS = [
    # Class folders
    ("a*5 b*5", "images a,b 6/2/2"),
    ("a*5 b*5 c/", "images a,b 6/2/2; c/ holds no image, clip or features"),
    ("a*5 b*5 readme.txt=x .hidden/x*3", "images a,b 6/2/2"),
    ("a*5 b*5 stray.png", "6/2/2; left out 1 files directly in p/: they are in no c"),
    ("10*5 9*5", "images 9,10 6/2/2"),
    ("a*3", "p: one class only, 'a'; expected two or more"),
    ("a*3 b*1", "class 'b' has too few images for training, 1 readable; 3 or more"),
    ("0.png 1.png", "p: the images are not in class folders; put each into a folder"),
    ("x.docx=x y.docx=x", "p: no images (it holds 2 .docx); expected p/CLASS/image"),
    ("notes/", "p: no images; expected p/CLASS/image.png, at least two classes"),
    ("train*3 bus*3 car*3", "images bus,car,train"),  # a class that is called train
    ("test*3 control*3", "images control,test"),
    # Splits
    (GIVEN, "images a,b 6/2/4"),
    (GIVEN.replace("Train", "Training").replace("Test", "Testing"), "a,b 6/2/4"),
    (GIVEN.replace("Train", "seg_train").replace("Test", "seg_test"), "a,b 6/2/4"),
    (GIVEN.replace("Train", "TRAIN").replace("Test", "eval"), "images a,b 6/2/4"),
    (GIVEN.replace("Train", "Train_set").replace("Test", "test-images"), "a,b 6/2/4"),
    (f"{GIVEN} valid/a*1 valid/b*1", "images a,b 8/2/4"),
    (f"{GIVEN} dev/a*1 dev/b*1", "images a,b 8/2/4"),
    (f"{GIVEN} VALIDATION/a*1 VALIDATION/b*1", "images a,b 8/2/4"),
    (f"{GIVEN} notes/", "images a,b 6/2/4"),
    (f"{GIVEN} notes/x*3", "a,b 6/2/4; left out notes/: not a split (3 files)"),
    (f"{GIVEN} val/", "images a,b 6/2/4"),
    (f"{GIVEN} val*3", "a,b 6/2/4; left out val/: no class folders (3 files)"),
    (f"{GIVEN} x.png", "6/2/4; left out 1 files directly in p/: they are in no class"),
    (f"{GIVEN} Train/x.png", "left out 1 files directly in Train/: they are in no"),
    (f"{GIVEN} Train/c/", "6/2/4; Train/c/ holds no image, clip or features"),
    ("train/a*5 train/b*5", "images a,b 6/2/2"),
    ("my_train/a*9", "p: one class only, 'my_train'"),
    (
        "seg_train/seg_train/a*4 seg_train/seg_train/b*4 "
        "seg_test/seg_test/a*2 seg_test/seg_test/b*2",
        "images a,b 6/2/4",
    ),
    (f"{GIVEN} Test/c*2", "class 'c' .* it occurs only in test (2); add images of it"),
    (f"{GIVEN} val/a*1 valid/a*1", "p: holds both val and valid; keep one"),
    (f"{GIVEN} train/a*1", "p: holds both Train and train; keep one"),
    ("train*3 test*3", "p: train/ holds files, but no class folders; expected train/C"),
    ("train/ test/", "p: train/ holds no images or clips; expected train/CLASS/image"),
    ("train*3", "p: train/ holds files, but no class folders; expected train/CLASS"),
    (
        "train*3 test*3 bus*3",
        "p: holds test/, train/ without class folders, and bus/ beside them; for spl",
    ),
    (
        "train/a*3 train/b*3 bus*3",
        "p: holds train/ with class folders, and bus/ beside it; is train/ a split or",
    ),
    ("test/a*3 test/b*3", "test/ holds class folders, but there is no train/; expecte"),
    (
        "test/a*3 test/b*3 a*3 b*3",
        "test/ holds class folders, but there is no train/; move a/ and other classes",
    ),
    (
        "a/train*3 a/test*3 b/train*3 b/test*3",
        "p: a/ holds test/, train/, a split in a class; expected p/train/a/image",
    ),
    (
        "archive/a*3 archive/b*3",
        "p: its only folder with files is archive/, which holds a/, b/; give --data=",
    ),
    (f"{GIVEN.replace('T', 'archive/T')}", "which holds Test/, Train/; give --data=p"),
    # Folders in class folders
    (
        "a/x*2 a/y*2 b/x*2 b/y*2",
        "images a,b 4/2/2; images are in folders in their class folders, such as x/: "
        "each is one example; --data.frames=16 reads each folder as one clip",
    ),
    (
        "a/x*2 a/y*2 a/z*2 b/x*2 b/y*2 b/z*2",
        "one clip; the images of a folder stay in one split",
    ),
    ("a/images*5 b/images*5", "images a,b 6/2/2; images are in folders in their"),
    (
        "a*5 b*5 a/1_mask.png b/2_mask.png",
        "images a,b 6/2/2; left out 2 masks of images, such as a/1_mask.png",
    ),
    # Links
    ("a*5 b*5 a/up->", "6/2/2; left out p/a/up: a link to a folder that contains it"),
    ("a*5 b*5 up->", "6/2/2; left out p/up: a link to a folder that contains it"),
    ("a*5 b*5 a/b->b", "6/2/2; left out p/a/b: a link to a folder that was already"),
    ("a*5 b*5 c->b", "6/2/2; left out p/c: a link to a folder that was already read"),
    ("a*5 b->../out", "images a,b"),
    ("a*5 b*5 a/self->a/self", "images a,b 6/2/2"),
]


@pytest.mark.parametrize(("words", "line"), FOLDERS)
def test_layouts(tmp_path, words, line):
    make(tmp_path / "p", words)
    if "../out" in words:
        make(tmp_path / "out", "sub*4 0.png")
    found = told(tmp_path / "p")
    assert matches(line, found), found


def matches(line, found):
    """Whether the parts of a line, between " .* ", stand in a text in this order."""
    return bool(re.search(".*".join(map(re.escape, line.split(" .* "))), found))


XML = "<PcGts>"
NAMES = [
    # (layout, its name)
    ("a*2 b*2", "images in class folders"),
    (GIVEN, "images in class folders in Test/ and Train/"),
    ("images*2 masks*2", "images/ and masks/"),
    ("train/Images*2 train/Masks*2 test/images*2 test/masks*2", "images/ and masks/"),
    ("JPEGImages*2 SegmentationClass*2", "JPEGImages/ and SegmentationClass/"),
    ("1.png 1_mask.png", "images NAME and masks NAME_mask"),
    ("1.png 1.gt.txt=x", "lines of text (NAME.gt.txt, a column text, or ALTO or PA"),
    (f"1.png 1.xml={XML}", "lines of text (NAME.gt.txt, a column text, or ALTO or"),
    ("images*2 annotations.json={}", "boxes (annotations.json)"),
    ("train/1.png train/_annotations.coco.json={}", "boxes (_annotations.coco.json)"),
    ("train2017*2 annotations/instances_train2017.json={}", "boxes (instances_train"),
    (
        "JPEGImages*2 Annotations/0.xml=<annotation>",
        "boxes of Pascal VOC (*.xml)",
    ),
    ("images*2 labels/0.txt=0_.5_.5_.1_.1", "boxes of YOLO (labels/*.txt)"),
    ("images/train*2 labels/train/0.txt=0_.5_.5_.1_.1", "boxes of YOLO (labels/*.txt)"),
    ("train/images*2 train/labels/0.txt=0_.5_.5_.1_.1", "boxes of YOLO (labels/*.txt)"),
]


@pytest.mark.parametrize(("words", "name"), NAMES)
def test_names_of_layouts(tmp_path, words, name):
    make(tmp_path / "p", words)
    try:
        found = detect(tmp_path / "p", None).name
    except DataError as error:
        found = str(error).replace(str(tmp_path / "p"), "p")
    assert found.startswith(name), found


def test_nested_images_are_clips_if_asked_for(tmp_path):
    words = " ".join(f"{c}/{k}*4" for c in "ab" for k in range(4))
    make(tmp_path / "p", words)
    assert told(tmp_path / "p").startswith("images a,b")
    found = told(tmp_path / "p", frames=4)
    assert found == "clips a,b 4/2/2; 8 folders of images are read as one clip each"


def test_nested_folders_stay_in_one_split(tmp_path):
    words = " ".join(f"{c}/{k}*4" for c in "ab" for k in range(4))
    make(tmp_path / "p", words)
    data = load(tmp_path / "p", data_dir=tmp_path / "cache")
    homes = {
        split: {name.rpartition("/")[0] for name in names}
        for split, names in data.names.items()
    }
    assert sum(map(len, homes.values())) == 8 == len(set().union(*homes.values()))


ROWS = [(f"{k}.png", "ab"[k % 2]) for k in range(10)]


def rows(mark=",", head="path,label", change=lambda path: path):
    lines = [mark.join((change(path), label)) for path, label in ROWS]
    return "\n".join([*([head.replace(",", mark)] if head else []), *lines]) + "\n"


PLAIN = "images a,b 6/2/2"
TABLES = [
    # (what is in the file, options, what is told)
    (rows(), {}, PLAIN),
    (rows().encode("utf-8-sig"), {}, PLAIN),
    (rows().replace("\n", "\r\n"), {}, PLAIN),
    (rows(";"), {}, f"{PLAIN}; t.csv: separated by semicolons"),
    (rows("\t"), {}, f"{PLAIN}; t.csv: separated by tabs"),
    ("sep=;\n" + rows(";"), {}, f"{PLAIN}; t.csv: separated by semicolons"),
    (rows().encode("utf-16"), {}, f"{PLAIN}; t.csv: encoded as utf-16"),
    (rows(head="filename,class"), {}, "; t.csv: filename as path, class as label"),
    (rows(head="File,Category"), {}, "; t.csv: File as path, Category as label"),
    (rows(head=""), {}, f"{PLAIN}; t.csv: without a header, column 1 as path, colu"),
    (
        rows(head="x,y"),
        dict(columns="path:x,label:y"),
        f"{PLAIN}; t.csv: x as path, y as label",
    ),
    (
        rows(head="", change=lambda p: f"7,{p}"),
        dict(columns="path:2,label:3"),
        f"{PLAIN}; t.csv: without a header, column 2 as path, column 3 as label",
    ),
    (rows(change=lambda p: f"sub\\{p}"), {}, PLAIN),
    (
        rows().replace(",b", ",б").encode("cp1251"),
        dict(encoding="cp1251"),
        "images a,б 6/2/2; t.csv: encoded as cp1251",
    ),
    (rows("\t", head=""), {}, "separated by tabs, without a header, column 1 as path,"),
    (
        "".join(f"{label},{path}\n" for path, label in ROWS),
        {},
        f"{PLAIN}; t.csv: without a header, column 2 as path, column 1 as label",
    ),
    # Refused, with the cause
    (
        rows(head="").replace(",a", ",a,train").replace(",b", ",b,train"),
        {},
        "it has no header, its first row is '0.png', 'a', 'train'; name the columns in",
    ),
    (
        rows().replace(",b", ",б").encode("cp1251"),
        {},
        "t.csv: not a readable CSV file (row 3 is not UTF-8); save it as UTF-8, or gi",
    ),
    (rows().encode("utf-16-le"), {}, "if it is UTF-16, give --data.encoding=utf-16-le"),
    (b"PK\x03\x04....", {}, "(an Excel or ZIP file); save the sheet as CSV, UTF-8"),
    (rows(), dict(encoding="klingon"), "--data.encoding=klingon: no such encoding"),
    (
        rows(change=lambda p: f"../p/{p}"),
        {},
        PLAIN,
    ),
    (
        rows(change=lambda p: f"../{p}"),
        {},
        "t.csv: '../0.png' leads outside of the table's folder; --data.follow-outside",
    ),
    (rows(change=lambda p: f"../{p}"), dict(follow_outside=True), PLAIN),
    (
        rows(head="x,y"),
        {},
        "no column 'path', 'label'; its first line names 'x', 'y'. Expected columns: "
        "path,label and, optionally, group and split; or name the columns with "
        "--data.columns=path:NAME,label:NAME",
    ),
    (rows(head="x,y"), dict(columns="path:z"), "names 'z' as path, but its columns "),
    (rows(head="x,y"), dict(columns="file:x"), "expected ROLE:COLUMN, such as path:f"),
    (
        rows(head="", change=lambda p: f"7,{p}"),
        {},
        "it has no header, its first row is '7', '0.png', 'a'; name the columns in a "
        "first row, or give their numbers, such as --data.columns=path:2,label:1",
    ),
    (
        rows(head="file,image,label", change=lambda p: f"{p},{p}"),
        {},
        "'file', 'image' may all be the path; give --data.columns=path:file",
    ),
    (rows(head="path,label,label"), {}, "two columns are called 'label'; rename one"),
    (
        rows(change=lambda p: f"https://a.b/{p}"),
        {},
        "none of its 10 files exists: 'https://a.b/0.png' is a URL; download the files",
    ),
    (rows(change=lambda p: f"C:\\a\\{p}"), {}, "is a path on another machine; list pa"),
    (rows(change=lambda p: f"t/{p}"), {}, "'t/0.png' is in sub/; list it as sub/0.png"),
    (rows(change=lambda p: p[:-4]), {}, "'0' lacks its suffix; 0.png exists"),
    (rows(change=lambda p: f"x{p}"), {}, "x0.png: No such file or directory"),
    ("path\n0.png\n", {}, "no column 'label'; its first line names 'path'. It has one"),
    (rows(head="path,label,split").replace("g,a", "g,a,dew"), {}, "has 2 cells, the "),
]


@pytest.mark.parametrize(("content", "options", "line"), TABLES)
def test_tables(tmp_path, content, options, line):
    names = [f"{w}{path}" for path, _ in ROWS for w in ("sub/", "../", "")]
    if "t/0.png" in str(content):
        names = [name for name in names if "/" in name]
    make(tmp_path / "p", " ".join(names))
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "p" / "t.csv").write_bytes(content)
    found = told(tmp_path / "p" / "t.csv", **options, data_dir=tmp_path / "cache")
    assert matches(line, found), found


def test_paths_relative_to_the_working_directory(tmp_path, monkeypatch):
    make(tmp_path / "p", " ".join(path for path, _ in ROWS) + " lists/")
    (tmp_path / "p" / "lists" / "t.csv").write_text(rows())
    monkeypatch.chdir(tmp_path / "p")
    found = told(tmp_path / "p" / "lists" / "t.csv", data_dir=tmp_path / "cache")
    assert "'0.png' exists in the working directory, but paths are relative to" in found


def test_small_classes_are_left_out_if_asked_for(tmp_path):
    make(tmp_path / "p", "a*5 b*5 c*1 d*2")
    assert "class 'c' has too few images for training, 1 readable" in (
        found := told(tmp_path / "p")
    )
    assert "or --data.min-per-class=3 leaves it out" in found
    found = told(tmp_path / "p", min_per_class=3)
    line = "left out 2 classes with fewer than 3 training images: 'c' (1), 'd' (2)"
    assert found == f"images a,b 6/2/2; {line}"
    found = told(tmp_path / "p", min_per_class=9)
    assert "no class has 9 training images" in found


def test_small_classes_are_found_before_anything_is_decoded(tmp_path, monkeypatch):
    make(tmp_path / "p", "a*5 b*1")
    monkeypatch.setattr("lstm_jax.data.files.folders.decode_each", None)
    assert "class 'b' has too few" in told(tmp_path / "p")


def test_a_class_of_which_nothing_is_readable_is_not_lost(tmp_path):
    make(tmp_path / "p", "a*5 b*5 c/0.png=x c/1.png=x c/2.png=x")
    assert "no image of class 'c' can be read, such as p/c/" in told(tmp_path / "p")
    assert told(tmp_path / "p", min_per_class=2).startswith("images a,b 6/2/2")


@pytest.mark.parametrize(
    ("source", "option"),
    [
        ("digits", dict(group="(a)")),
        ("digits", dict(arrays="x:y")),
        ("digits", dict(encoding="utf-8")),
        ("digits", dict(min_per_class=3)),
        ("photos", dict(arrays="x:y")),
        ("photos", dict(follow_outside=True)),
        ("photos", dict(columns="path:file")),
        ("photos", dict(encoding="cp1251")),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, source, option):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(4):
            pixels = rng.integers(0, 256, (4, 4), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{k}.png")
    place = source if source == "digits" else tmp_path / source
    flag = next(iter(option)).replace("_", "-")
    with pytest.raises(DataError, match=f"--data.{flag} has no effect on it"):
        load(place, data_dir=tmp_path / "c", **option)
