"""Runs that find: a person's masks and boxes, what predict writes, the twin."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from small_runs import SAVE_FIGURE

from experiments import train
from experiments.config import override, preset
from experiments.experiment import Experiment
from experiments.predict import predict
from experiments.run import record
from experiments.spec import DataSpec
from experiments.tasks import TASKS

pytestmark = pytest.mark.slow  # it trains two networks

SIDE, PICTURES = 16, 120
KINDS = ("round", "square")
SMALL = dict(accelerator="cpu", batch_size=8, model__features=16, data__size=SIDE)


def draw(rng):
    """A disc or a square of side 6 somewhere, in a picture of 32x24: and its box."""
    kind = int(rng.integers(2))
    image, mask = rng.integers(0, 60, (24, 32)), np.zeros((24, 32), int)
    y, x = (int(rng.integers(0, n - 8)) for n in image.shape)
    rows, columns = np.mgrid[:8, :8] - 3.5
    inside = rows**2 + columns**2 < 16 if kind == 0 else np.ones((8, 8), bool)
    image[y : y + 8, x : x + 8][inside] = 255
    mask[y : y + 8, x : x + 8][inside] = kind + 1
    return image.astype(np.uint8), mask.astype(np.uint8), kind, [x, y, 8, 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """images/, masks/ and annotations.json of the same pictures, two of them broken."""
    path, rng = tmp_path_factory.mktemp("things"), np.random.default_rng(0)
    coco = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": 10 * k, "name": n} for k, n in enumerate(KINDS, 1)]
    for part in ("masks/images", "masks/masks", "boxes/images"):
        (path / part).mkdir(parents=True)
    (path / "masks" / "classes.txt").write_text("\n".join(("background", *KINDS)))
    for k in range(PICTURES):
        image, mask, kind, box = draw(rng)
        name = f"{k:03}.png"
        for place in ("masks", "boxes"):
            Image.fromarray(image).save(path / place / "images" / name)
        Image.fromarray(mask).save(path / "masks" / "masks" / name)
        coco["images"].append({"id": k, "file_name": name, "height": 24, "width": 32})
        coco["annotations"].append(
            {"id": k, "image_id": k, "category_id": 10 * (kind + 1), "bbox": box}
            | {"area": 64, "iscrowd": 0}
        )
    coco["annotations"].append(
        coco["annotations"][-1] | {"id": k + 1, "bbox": [99, 99, 5, 5]}
    )
    (path / "boxes" / "annotations.json").write_text(json.dumps(coco))
    cut = path / "masks" / "masks" / "003.png"
    cut.write_bytes(cut.read_bytes()[:60])
    return path


@pytest.fixture(scope="module")
def masks_run(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "save_figure", SAVE_FIGURE)
        return train(
            "segment-digits",
            data=folder / "masks",
            run_dir=folder / "segmenter",
            steps=120,
            optimizer__learning_rate=1e-2,
            **SMALL,
        )


@pytest.fixture(scope="module")
def boxes_run(folder):
    return train(
        "detect-digits",
        data=folder / "boxes",
        run_dir=folder / "detector",
        steps=120,
        optimizer__learning_rate=1e-2,
        **SMALL,
    )


def test_a_persons_masks_are_learnt(masks_run):
    report = masks_run.report
    assert report["test"]["mean_iou"] > 0.4  # background alone: 0.33
    assert any("003.png" in note for note in report["data"]["notes"])
    assert (masks_run.directory / "examples.png").stat().st_size > 5_000


def test_predict_writes_masks_of_the_files_size(masks_run, folder, command):
    good, bad = folder / "masks" / "images" / "000.png", folder / "cut.png"
    bad.write_bytes(good.read_bytes()[:50])
    code, out, err = command(
        "predict", masks_run.directory, good, bad, f"--out={folder / 'm.jsonl'}"
    )
    assert code == 1 and len(err.splitlines()) == 1 and "cut.png" in err
    assert "background" in out
    row = json.loads((folder / "m.jsonl").read_text().splitlines()[0])
    mask = Image.open(row["file"])
    assert mask.size == (32, 24)
    counts = np.bincount(np.asarray(mask).ravel(), minlength=3) / (32 * 24)
    for name, share in row["shares"].items():
        assert share == pytest.approx(counts[("background", *KINDS).index(name)])
    assert Image.open(row["drawn"]).mode == "RGB"


def test_a_persons_boxes_are_learnt(boxes_run):
    report = boxes_run.report
    assert set(report["test"]["classes"]) == set(KINDS)
    assert report["test"]["f1"] > 0.3
    assert any("outside the image" in note for note in report["data"]["notes"])


def test_predict_writes_coco_in_pixels_of_the_file(boxes_run, folder, command):
    from pycocotools.coco import COCO

    pictures = folder / "boxes" / "images"
    code, _, err = command("predict", boxes_run.directory, pictures)
    assert (code, err) == (0, "")
    written = COCO(boxes_run.directory / "predictions" / "detections.json")
    assert len(written.imgs) == PICTURES and written.anns
    answers = predict(boxes_run.directory, pictures)
    assert sum(len(row["boxes"]) for row in answers) == len(written.anns)
    found = [box for row in answers for box in row["boxes"]]
    assert all(box["label"] in KINDS and box["score"] >= 0.5 for box in found)
    corners = np.array([box["box"] for box in found])
    assert (corners[:, :2] + corners[:, 2:] <= [32, 24]).all()
    # things are as wide as high in the file, and less so in what was seen
    shape = np.median(corners[:, 2] / corners[:, 3])
    assert 0.7 < shape < 1.5


@pytest.mark.parametrize("name", ["segment-digits", "detect-digits"])
def test_the_twin_has_hardly_fewer_parameters(name):
    config = preset(name)
    about = DataSpec(name, list("0123456789"), [48, 48, 1], 10, [0.0], [1.0])

    def size(**model):
        own = override(config, model)
        key = jax.random.key(0)
        params = jax.eval_shape(lambda: Experiment(own, about).init(key))
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    ours, twin = size(), size(model__feedforward=True)
    assert 0.95 * ours < twin <= ours


def test_answers_to_clips_are_by_frame(tmp_path):
    seen = np.zeros((3, 16, 16, 1), np.uint8)
    raw = np.zeros((3, 4, 6), np.float32)
    raw[:2, 0] = 1, 2, 5, 8, 0.9, 1
    raw[0, 1] = 0, 0, 4, 4, 0.4, 0  # not sure enough
    clip = tmp_path / "a.gif"
    row = {"path": str(clip)}
    detection, segmentation = TASKS["detection"], TASKS["segmentation"]
    spec = DataSpec("clips", list(KINDS), [3, 16, 16, 1], 2, [0.0], [1.0])
    row |= detection.describe(spec, seen, raw, clip)
    assert [len(boxes) for boxes in row["boxes"]] == [1, 1, 0]
    assert row["boxes"][0][0]["box"] == [1, 2, 4, 6]
    twice = [row, dict(row)]  # two files of one name
    detection.save(spec, twice, tmp_path)
    drawn = [tmp_path / "a.gif", tmp_path / "a-2.gif"]
    assert [row["drawn"] for row in twice] == list(map(str, drawn))
    coco = json.loads((tmp_path / "detections.json").read_text())
    assert [image["frame"] for image in coco["images"]] == [0, 1, 2] * 2
    assert [a["image_id"] for a in coco["annotations"]] == [1, 2, 4, 5]
    mask = np.ones((3, 16, 16), np.uint8)
    spec = DataSpec("clips", ["0", "1"], [3, 16, 16, 1], 2, [0.0], [1.0])
    row = {"path": "b.gif"} | segmentation.describe(spec, seen, mask, clip)
    segmentation.save(spec, [row], tmp_path)
    names = sorted(p.name for p in (tmp_path / "b").iterdir())
    assert names == ["0000.png", "0001.png", "0002.png"]
    assert segmentation.words(row) == "1 100.0 %"


def test_a_set_of_the_other_kind_is_told(folder, command):
    code, _, err = command("train", "detect-digits", f"--data={folder / 'masks'}")
    assert code == 2 and "segment-digits" in err and len(err.splitlines()) == 1
