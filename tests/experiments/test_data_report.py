"""`train --check-data` prints what would be read, and does not train."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.train import main


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("Training", 6), ("Testing", 2)):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (8, 6 + 2 * (k == 0), 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return tmp_path / "photos"


def checked(capsys, *flags):
    code = main([*flags, "--check-data"])
    return code, capsys.readouterr().out


def test_what_would_be_read(tmp_path, photos, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (photos / "notes").mkdir()
    copy = (photos / "Training/cat/1.png").read_bytes()
    (photos / "Testing/cat/1.png").write_bytes(copy)
    code, out = checked(capsys, "--data=photos", "--batch-size=8")
    assert code == 0 and not (tmp_path / "runs").exists()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == (
        "photos: images in class folders in Testing/ and Training/, for classification"
    )
    for line in (
        "ignored notes/ holds no image, clip or features",
        "train 10: dog 5, cat 5",
        "validation 2: dog 1, cat 1",
        "test 4: dog 2, cat 2",
        "classes 2: cat, dog",
        "file sizes 8×6 (12), 8×8 (4)",
        "note images of 2 sizes: all resized to 32x32 (--data.size=N for another)",
        "this can be trained on: train with --data=photos",
    ):
        assert line in lines, out
    assert sum("notes/" in line for line in lines) == 1
    assert any(line.startswith("duplicates 1 of 4 test images") for line in lines)
    assert any(line.startswith("input 32×32×3, uint8, ") for line in lines)


@pytest.mark.parametrize(
    ("harm", "flags", "words"),
    [
        (
            lambda p: (p / "Training/cat").rename(p / "x"),
            [],
            "class 'cat' has too few images for training, 0 readable: it occurs only",
        ),
        (
            lambda p: None,
            ["--data.min-per-class=7"],
            "no class has 7 training images; give a smaller --data.min-per-class",
        ),
        (
            lambda p: (p / "Training").rename(p / "holdout"),
            [],
            "Testing/ holds class folders, but there is no train/; move holdout/ and",
        ),
    ],
)
def test_problems(photos, capsys, harm, flags, words):
    harm(photos)
    code, out = checked(capsys, f"--data={photos}", *flags)
    assert code == 1 and "problem: " in out and words in out


def test_a_path_that_does_not_exist(tmp_path, capsys):
    code, out = checked(capsys, f"--data={tmp_path}/gone/")
    assert code == 1 and out.startswith("problem: ") and "no such file" in out


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_sizes_of_the_files_of_boxes(tmp_path, capsys, kind):
    rng, home = np.random.default_rng(0), tmp_path / "p"
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    for name in ("images", "labels" if kind == "yolo" else "annotations"):
        (home / name).mkdir(parents=True)
    for k in range(10):
        pixels = rng.integers(0, 256, (20, 20 + 2 * (k < 3), 3), np.uint8)
        Image.fromarray(pixels).save(home / "images" / f"{k}.png")
        coco["images"].append({"id": k, "file_name": f"{k}.png"})
        box = {"id": k, "image_id": k, "category_id": 1, "bbox": [2, 2, 9, 9]}
        coco["annotations"].append(box)
        if kind == "yolo":
            (home / "labels" / f"{k}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        if kind == "voc":
            (home / "annotations" / f"{k}.xml").write_text(
                "<annotation><object><name>x</name><bndbox><xmin>2</xmin><ymin>2</ymin>"
                "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
            )
    if kind == "coco":
        (home / "annotations" / "instances_default.json").write_text(json.dumps(coco))
    flags = ["detect-digits", f"--data={home}", "--data.size=32", "--batch-size=4"]
    code, out = checked(capsys, *flags)
    assert code == 0, out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "file sizes 20×20 (7), 20×22 (3)" in lines, out
