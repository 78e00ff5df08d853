"""A person's own pictures: train on a folder, ask about others."""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL, SMALL_FLAGS, draw

from experiments import train
from experiments.experiment import Experiment
from experiments.spec import DataSpec

FLAGS = [*SMALL_FLAGS, "--steps=60", "--optimizer.learning-rate=0.02"]


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A run on the folder, and what it told."""
    directory, told = tmp_path_factory.mktemp("runs") / "photos", io.StringIO()
    options = SMALL | dict(steps=60, optimizer__learning_rate=0.02)
    options |= dict(model__features=8, model__layers=1)  # both axes, both ways
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        run = train("digits", run_dir=directory, data=photos, **options)
    return run, told.getvalue()


@pytest.fixture(scope="module")
def photos_run(trained):
    return trained[0]


def test_a_folder_trains_and_names_the_bad_file_once(trained):
    run, told = trained
    assert told.count("cut.png") == 1
    assert "skipped" in told and "all resized to 32x32" in told
    report = json.loads((run.directory / "report.json").read_text())
    assert report["test"]["classes"] == ["across", "down"]
    saved = json.loads((run.directory / "config.json").read_text())
    assert saved["data"]["image_shape"] == [32, 32, 3]


@pytest.mark.slow
def test_how_a_picture_is_read_is_drawn(command, photos, photos_run, drawn):
    picture = photos / "down" / "00.png"
    code, out, err = command("predict", photos_run.directory, picture, "--explain")
    assert code == 0, err
    place = photos_run.directory / "predictions" / "00"
    assert f"steps for 00.png: {place}.png, {place}.gif" in out
    with Image.open(f"{place}.gif") as film:
        assert film.n_frames == 32  # a step for each row, both axes at once
    with Image.open(f"{place}.png") as figure:
        assert figure.width > 900


def test_bars_are_learnt(photos_run):
    assert photos_run.report["test"]["accuracy"] >= 0.8


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_folder_is_answered_but_for_the_bad_file(
    command, photos, photos_run, own_folder, suffix
):
    out_file = own_folder / "new" / f"x.{suffix}"
    code, out, err = command(
        "predict", photos_run.directory, photos, f"--out={out_file}"
    )
    assert code == 1
    (line,) = err.splitlines()
    assert "across/cut.png: not a readable image" in line
    if suffix == "csv":
        rows = list(csv.DictReader(out_file.open()))
        chosen = [row for row in rows if row["label"]]
        sums = [float(row["p_across"]) + float(row["p_down"]) for row in chosen]
    else:
        rows = [json.loads(text) for text in out_file.read_text().splitlines()]
        chosen = [row for row in rows if "label" in row]
        sums = [sum(row["probabilities"].values()) for row in chosen]
    assert len(rows) == 49 and len(chosen) == 48
    assert [row["path"] for row in rows if row.get("error")] == [
        str(photos / "across" / "cut.png")
    ]
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    right = sum(row["label"] in row["path"] for row in chosen)
    assert right >= 40
    assert out.count("across") + out.count("down") >= 48
    assert [path.name for path in out_file.parent.iterdir()] == [out_file.name]


def test_pictures_of_any_size_and_a_table_of_paths(command, photos_run, tmp_path):
    rng = np.random.default_rng(1)
    draw(tmp_path / "huge.png", "across", rng, size=(700, 300), mode="RGB")
    draw(tmp_path / "tiny.png", "down", rng, size=(5, 4))
    (tmp_path / "table.csv").write_text("path,more\nhuge.png,1\ntiny.png,2\n")
    code, out, err = command("predict", photos_run.directory, tmp_path / "table.csv")
    assert code == 0 and not err
    assert "huge.png" in out and "tiny.png" in out
    answers = photos_run.predict(tmp_path / "tiny.png", tmp_path / "huge.png")
    assert [row["path"][-8:] for row in answers] == ["tiny.png", "huge.png"]


def test_an_answer_is_that_of_the_test(photos_run, photos):
    """Reading a file for an answer and reading it for training are one."""
    import jax

    from lstm_jax import data

    about = DataSpec(
        **json.loads((photos_run.directory / "config.json").read_text())["data"]
    )
    path = photos / "down" / "05.jpg"
    image = data.read_image(path, tuple(about.image_shape), fit=about.fit)
    apply = Experiment(photos_run.config, about).outputs
    wanted = jax.nn.softmax(apply(photos_run.params, image[None]))[0]
    (answer,) = photos_run.predict(path)
    np.testing.assert_allclose(
        list(answer["probabilities"].values()), wanted, atol=1e-5
    )
    assert answer["label"] == about.classes[int(wanted.argmax())]


def test_mistakes_of_a_prediction(command, photos_run, photos, own_folder, tmp_path):
    run, picture = photos_run.directory, photos / "down" / "05.jpg"
    for arguments, words in (
        ([tmp_path / "none", picture], ["holds no run", "experiments.train"]),
        ([photos, picture], ["holds no run"]),
        ([run], ["no files given"]),
        ([run, picture, "--out=x.txt"], [".csv or .jsonl"]),
    ):
        code, out, err = command("predict", *arguments)
        assert code == 2 and "Traceback" not in err, (arguments, err)
        for word in words:
            assert word in err
        assert len(err.splitlines()) == 1
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    code, _, err = command("predict", tmp_path / "broken", picture)
    assert code == 2 and "config.json cannot be read" in err
    assert not list(own_folder.iterdir())


def test_a_run_without_a_checkpoint_is_told(command, copied_run, photos):
    import shutil

    directory, _ = copied_run
    shutil.rmtree(directory / "checkpoints")
    code, _, err = command("predict", directory, photos / "down" / "05.jpg")
    assert code == 2 and "there is no checkpoint in" in err


@pytest.mark.slow
def test_a_regression_answers_with_values(command, tmp_path, own_folder):
    """Brightness as a target, two of them unreadable as classes: a table of numbers."""
    from PIL import Image

    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for i in range(60):
        grey = int(rng.integers(0, 256))
        Image.new("L", (6, 6), grey).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{grey / 255:.4f}")
    (tmp_path / "grey.csv").write_text("\n".join(lines) + "\n")
    code, out, err = command(
        "train", "digits-angle", *FLAGS, f"--data={tmp_path / 'grey.csv'}"
    )
    assert code == 0, err
    directory = own_folder / "runs" / "grey"
    report = json.loads((directory / "report.json").read_text())
    assert report["test"]["mae"] < 0.2
    out_file = own_folder / "values.csv"
    code, out, err = command(
        "predict", directory, tmp_path / "grey.csv", f"--out={out_file}"
    )
    assert code == 0, err
    rows = list(csv.DictReader(out_file.open()))
    values = np.array([float(row["value"]) for row in rows])
    wanted = np.array([float(line.split(",")[1]) for line in lines[1:]])
    assert np.abs(values - wanted).mean() < 0.2
    assert "value" in out
