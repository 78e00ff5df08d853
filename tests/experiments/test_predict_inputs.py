"""predict on inputs that do not fit the run, and what it writes about them."""

import csv
import dataclasses
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.prediction.inputs import listed
from experiments.prediction.lines import text_files
from experiments.prediction.predictor import Predictor, _clip_files
from experiments.run import record
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax import data


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "good.png"
    Image.new("L", (9, 7), 200).save(path)
    return path


def test_a_path_that_cannot_be_used_does_not_stop_the_others(
    command, digits_run, image, tmp_path
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("label,size\ncat,3\n")
    (tmp_path / "scan.pdf").write_bytes(b"%PDF-1.4\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "b.pdf").write_bytes(b"%PDF-1.4\n")
    (tmp_path / "renamed.png").write_bytes(b"%PDF-1.4\n")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    wrong = {
        "gone.png": "no such file or folder",
        "empty": "no image in this folder",
        "table.csv": "no column 'path'",
        "scan.pdf": "pdftoppm -png -r 300 scan.pdf page",
        "book": "pdftoppm -png -r 300 b.pdf page",
        "renamed.png": "a PDF, which holds pages",
        "a.npy": "an array file, but the run was trained on images",
    }
    paths = [tmp_path / name for name in wrong]
    out = tmp_path / "out.jsonl"
    code, said, err = command(
        "predict", digits_run.directory, *paths, image, f"--out={out}"
    )
    assert code == 1 and "good.png" in said
    lines = err.splitlines()
    assert len(lines) == len(wrong)
    for line, (name, words) in zip(lines, wrong.items(), strict=True):
        assert line.startswith(str(tmp_path / name)) and words in line
    rows = [json.loads(row) for row in out.read_text().splitlines()]
    assert ["error" in row for row in rows] == [True] * len(wrong) + [False]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.pt", "a PyTorch file"),
        ("model.onnx", "ONNX Runtime"),
        ("weights.h5", "a Keras file"),
        ("photo.png", "neither a run folder nor its weights"),
    ],
)
def test_a_model_file_of_another_format_is_refused(command, tmp_path, name, words):
    (tmp_path / name).write_bytes(b"PK\3\4" + bytes(100))
    code, _, err = command("predict", tmp_path / name, "digit.png")
    assert code == 2 and len(err.splitlines()) == 1
    assert words in err and "give a run folder" in err and ".safetensors" in err


def features_predictor(width):
    """On sequences of four steps; the output is constant."""
    spec = DataSpec("steps", ["a", "b"], [4, width], 2, [0.0], [1.0])
    kind = TASKS["classification"]
    return Predictor(kind, spec, lambda b: np.eye(2)[[0] * len(b["inputs"])], "uniform")


@pytest.mark.parametrize("width", [1, 6, 13])
def test_another_number_of_features_is_refused(tmp_path, width):
    np.save(tmp_path / "bad.npy", np.zeros((5, width), np.float32))
    np.save(tmp_path / "good.npy", np.zeros((5, 12), np.float32))
    (tmp_path / "clip.gif").write_bytes(b"GIF89a")
    predictor = features_predictor(12)
    paths = [tmp_path / name for name in ("bad.npy", "clip.gif", "good.npy")]
    bad, clip, good = predictor.kind.predict(predictor, paths)
    assert (
        f"bad.npy: {width} features per step, but the run was trained on 12"
        in (bad["error"])
    )
    assert "give .npy files of shape [steps, 12]" in clip["error"]
    assert good["label"] == "a"


def test_a_table_of_steps_lists_each_file_once(tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 12), np.float32))
    lines = [f"{name}.npy,{step}" for name in ("b", "a", "gone") for step in range(2)]
    (tmp_path / "steps.csv").write_text("\n".join(["path,step", *lines]) + "\n")
    predictor = features_predictor(12)
    rows = list(predictor.kind.predict(predictor, [tmp_path / "steps.csv"]))
    names = ("b", "a", "gone")
    assert [row["path"] for row in rows] == [str(tmp_path / f"{n}.npy") for n in names]
    assert ["error" in row for row in rows] == [False, False, True]


def test_a_still_image_is_no_clip(tmp_path, image):
    frames = [Image.new("L", (8, 8), 90 * k) for k in range(3)]
    for name in ("a.gif", "a.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    spec = DataSpec("clips", ["a", "b"], [4, 8, 8, 1], 2, [0.0], [1.0])
    rows = [*listed([image, tmp_path / "a.gif", tmp_path / "a.tiff"], list, spec)]
    assert "good.png: a single image, but the run was trained on" in rows[0]["error"]
    assert not any("error" in row or "note" in row for row in rows[1:])


def test_an_image_of_several_pages_is_noted(command, digits_run, tmp_path):
    pages = [Image.new("L", (8, 8), 90 * k) for k in range(3)]
    path, out = tmp_path / "scan.tiff", tmp_path / "out.csv"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    code, said, err = command("predict", digits_run.directory, path, f"--out={out}")
    assert code == 0 and "scan.tiff" in said
    assert err == f"{path}: only the first of its pages or frames is used\n"
    with open(out) as file:
        (row,) = csv.DictReader(file)
    assert row["note"] == err.strip() and list(row)[-1] == "note"


def test_cells_of_a_csv_are_not_executed(tmp_path):
    texts = ["=1+1", "+cmd", "-x", "@a", "\t=1", "\r=1", "-5", "+1.5e3", "a=b", "", "é"]
    rows = [{"=name": text, "n": -0.5} for text in texts]
    record.write_table(tmp_path / "a.csv", rows)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        header, *found = csv.reader(file)
    assert header == ["'=name", "n"] and {row[1] for row in found} == {"-0.5"}
    wanted = [f"'{text}" for text in texts[:6]] + texts[6:]
    assert [row[0] for row in found] == wanted


@pytest.mark.skipif(sys.platform != "linux", reason="other file names are Unicode")
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_names_that_are_not_utf8_or_hold_control_characters(
    command, digits_run, image, tmp_path, suffix
):
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"=caf\xe9.png", b"\x1b[31m.png"]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(image.read_bytes())
    out = tmp_path / f"out.{suffix}"
    code, said, err = command(
        "predict", digits_run.directory, folder, folder / "[/b].png", f"--out={out}"
    )
    assert code == 1 and "[/b].png: no such file" in err, err
    assert "caf\\udce9.png" in said and "\\x1b[31m.png" in said and "\x1b" not in said
    text = out.read_text(encoding="utf-8")
    if suffix == "csv":
        assert len(list(csv.DictReader(text.splitlines()))) == 3
        assert "=caf\\udce9.png" in text
    else:
        paths = [os.fsencode(json.loads(row)["path"]) for row in text.splitlines()]
        assert {os.path.basename(path) for path in paths} >= set(names)


@pytest.fixture
def table(tmp_path):
    """A table in cp1251, separated by tabs, whose second column names a file."""
    np.save(tmp_path / "кот.npy", np.zeros((2, 12), np.float32))
    text = "id\tfoto\n1\tкот.npy\n2\tнет.npy\n"
    (tmp_path / "t.tsv").write_bytes(text.encode("cp1251"))
    return tmp_path / "t.tsv"


FORM = data.table_format("path:foto", "cp1251")


@pytest.mark.parametrize("listing", ["images", "clips", "lines"])
def test_tables_are_read_as_in_training(table, listing):
    expand = {
        "images": data.image_paths,
        "clips": _clip_files,
        "lines": text_files,
    }[listing]
    assert expand([table], FORM) == [table.parent / f"{n}.npy" for n in ("кот", "нет")]
    with pytest.raises(data.DataError, match="not UTF-8"):
        expand([table], data.TableFormat())


def test_a_predictor_is_given_the_options_of_tables(table):
    predictor = dataclasses.replace(features_predictor(12), tables=FORM)
    found, missing = predictor.kind.predict(predictor, [table])
    assert "error" not in found and "нет.npy" in missing["error"]


@pytest.mark.parametrize("written", ["../out.npy", "{tmp}/out.npy", "a/../../out.npy"])
def test_a_table_cannot_lead_outside_of_its_folder(tmp_path, written):
    (tmp_path / "p" / "a").mkdir(parents=True)
    np.save(tmp_path / "out.npy", np.zeros((2, 12), np.float32))
    np.save(tmp_path / "p" / "in.npy", np.zeros((2, 12), np.float32))
    table = tmp_path / "p" / "t.csv"
    table.write_text(f"path\nin.npy\n{written.format(tmp=tmp_path)}\n")
    predictor = features_predictor(12)
    (row,) = predictor.kind.predict(predictor, [table])
    assert row["error"].endswith(
        "leads outside of the table's folder; --data.follow-outside allows that"
    )
    follow = data.table_format(None, None, follow_outside=True)
    predictor = dataclasses.replace(predictor, tables=follow)
    rows = predictor.kind.predict(predictor, [table])
    assert not any("error" in row for row in rows)


def test_the_home_folder_in_out_and_the_flags_of_tables(
    command, digits_run, tmp_path, monkeypatch, image
):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    table = image.parent / "t.csv"
    table.write_bytes(f"n;foto;é\n1;{image.name};x\n".encode("cp1252"))
    flags = ["--data.encoding=cp1252", "--data.columns=path:foto", "--out=~/o.csv"]
    code, _, err = command("predict", digits_run.directory, table, *flags)
    assert code == 0, err
    assert image.name in (tmp_path / "home" / "o.csv").read_text()
