"""Runs on clips: forecasts, a folder of a person's films, files of features, live."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from small_runs import SAVE_FIGURE, kept_figures

from experiments import train
from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment
from experiments.predict import main as predict_main
from experiments.predict import predict
from experiments.prediction import trained as prediction
from lstm_jax import data, training

T, SIDE = 6, 12


def write_gif(path, frames):
    images = [Image.fromarray(frame) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(path, save_all=True, append_images=images[1:], optimize=False)


def a_dot(direction, rng, steps=T):
    """A dot that goes right or left over a noisy ground, uint8 [steps, H, W]."""
    frames = rng.integers(0, 40, (steps, SIDE, SIDE), np.uint8)
    row = rng.integers(1, SIDE - 3)
    for t in range(steps):
        column = 1 + t if direction == "right" else SIDE - 3 - t
        frames[t, row : row + 2, column : column + 2] = 255
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes that only the order of frames tells apart, and what goes wrong."""
    path, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for direction in ("left", "right"):
        for number in range(24):
            write_gif(path / direction / f"{number}.gif", a_dot(direction, rng))
    whole = (path / "left" / "0.gif").read_bytes()
    (path / "left" / "cut.gif").write_bytes(whole[: len(whole) // 2])
    (path / "right" / "empty.gif").write_bytes(b"")
    (path / "neither").mkdir()
    return path


def trained(folder, directory, steps):
    return train(
        "moving-motion",
        data=folder,
        data__frames=T,
        data__size=None,
        model__features=6,
        model__cell__kernel_size=3,
        steps=steps,
        batch_size=12,
        optimizer__learning_rate=2e-2,
        run_dir=directory,
    )


@pytest.fixture(scope="module")
def films(folder, tmp_path_factory):
    """A run, too short to learn the order of frames."""
    return trained(folder, tmp_path_factory.mktemp("runs") / "films", 20)


@pytest.mark.slow
def test_the_order_of_frames_is_learnt_from_a_folder(folder, tmp_path):
    run = trained(folder, tmp_path / "films", 60)
    assert run.report["test"]["accuracy"] >= 0.8


def test_the_answers_to_the_test_clips_are_a_submission(films):
    with open(films.directory / "submission.csv") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"path", "left", "right"}
    assert len(rows) == films.report["data"]["examples"]["test"]


def test_broken_clips_are_told_and_counted_in_the_report(films):
    notes = " ".join(films.report["data"]["notes"])
    assert "empty.gif" in notes and "neither" in notes and "cut.gif" in notes
    assert sum(films.report["data"]["examples"].values()) in (48, 49)


def test_a_clip_is_answered_live_as_it_is_offline(films, folder, capsys):
    clip = folder / "left" / "3.gif"
    (offline,) = predict(films.directory, clip)
    found = prediction.watch(films.directory, str(clip), every=1)
    assert found["frames"] == T
    wanted = [offline["probabilities"][name] for name in ("left", "right")]
    np.testing.assert_allclose(found["outputs"], wanted, atol=1e-6)
    assert "p99" in capsys.readouterr().out
    assert predict_main([str(films.directory), "--live", str(clip)]) == 0
    assert predict_main([str(films.directory), str(clip), str(folder / "no.gif")]) == 1


def test_a_folder_of_clips_is_many_and_of_frames_is_one(films, folder, tmp_path):
    frames = a_dot("left", np.random.default_rng(2))
    write_gif(tmp_path / "clip.gif", frames)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number}.png")
    paths = folder / "right", tmp_path / "clip.gif", tmp_path / "frames"
    answers = predict(films.directory, *paths)
    assert [row["path"] for row in answers[:2]] == [
        str(folder / "right" / "0.gif"),
        str(folder / "right" / "1.gif"),
    ]
    assert len(answers) == 27
    *_, clip, frames = answers
    assert frames["probabilities"] == pytest.approx(clip["probabilities"], abs=1e-6)
    assert ["error" in row for row in answers].count(True) == 1  # the empty one


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Options of a forecast of the last two of six frames."""
    path, rng = tmp_path_factory.mktemp("short"), np.random.default_rng(0)
    for number in range(24):
        direction = ("left", "right")[number % 2]
        write_gif(path / direction / f"{number}.gif", a_dot(direction, rng))
    return dict(data=path, data__frames=T, data__size=None, task__horizon=2)


FORECAST = dict(
    model__features=2,
    model__layers=1,
    model__cell__kernel_size=3,
    model="stacked",
    model__engine="scan",
    model__scheduled_sampling="reverse",
    steps=3,
    batch_size=6,
    test_checkpoint="last",
)


@pytest.fixture(scope="module")
def forecast_and_figures(short, tmp_path_factory):
    """A run that makes no step, which takes long to compile, and its figures."""

    def no_step(state, *_, callbacks, **__):
        for callback in callbacks:
            callback.on_save(0, state, None)
        return state

    directory = tmp_path_factory.mktemp("runs") / "forecasts"
    with kept_figures() as kept, pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit", no_step)
        run = train("moving-digits", run_dir=directory, **short, **FORECAST)
    return run, kept


@pytest.fixture(scope="module")
def forecasts(forecast_and_figures):
    return forecast_and_figures[0]


def test_a_forecast_is_judged_beside_what_needs_no_network(forecasts):
    test = forecasts.report["test"]
    assert {"copy last frame", "mean frame", "all zeros"} == set(test["references"])
    assert len(test["per_frame"]) == test["horizon"] == 2
    assert (forecasts.directory / "forecast.gif").stat().st_size > 1000
    saved = json.loads((forecasts.directory / "report.json").read_text())
    assert saved["test"] == test


@pytest.mark.slow
def test_a_forecast_is_trained(short, tmp_path):
    run = train("moving-digits", run_dir=tmp_path / "run", **short, **FORECAST)
    assert run.report["train"]["steps"] == 3
    assert np.isfinite(run.report["test"]["loss"])


def test_the_figures_of_a_forecast_are_drawn(forecast_and_figures, tmp_path):
    run, kept = forecast_and_figures
    for name in ("strip.png", "error_over_time.png"):
        SAVE_FIGURE(tmp_path / name, kept[run.directory / name])
        assert (tmp_path / name).stat().st_size > 1000


def test_the_frames_after_a_clip_become_a_film(forecasts, tmp_path, capsys):
    rng = np.random.default_rng(1)
    write_gif(tmp_path / "clip.gif", a_dot("right", rng, 3))
    assert predict_main([str(forecasts.directory), str(tmp_path / "clip.gif")]) == 1
    assert "3 frames, but the run reads 4" in capsys.readouterr().err
    write_gif(tmp_path / "clip.gif", np.concatenate([a_dot("right", rng, 3)] * 2))
    (row,) = predict(forecasts.directory, tmp_path / "clip.gif")
    assert row["frames"].shape == (2, SIDE, SIDE, 1) and len(row["seen"]) == 4
    assert predict_main([str(forecasts.directory), str(tmp_path / "clip.gif")]) == 0
    film = Image.open(forecasts.directory / "predictions" / "clip.gif")
    assert film.n_frames == 6
    assert (
        prediction.watch(forecasts.directory, str(tmp_path / "clip.gif"))["frames"] == 6
    )


def features(folder, rng):
    """Studies of 4 to 9 slices, two labels a slice; the last six studies unlabelled."""
    rows = ["path,step,group,split,bleeding,fracture"]
    for study in range(30):
        steps = int(rng.integers(4, 10))
        xs = rng.standard_normal((steps, 5)).astype(np.float32)
        xs[:, 0] += 2 * np.sign(xs[:, 0])  # a margin: few studies suffice to learn it
        np.save(folder / f"{study}.npy", xs)
        split = "test" if study >= 24 else "validation" if study >= 20 else "train"
        for t in range(steps):
            labels = (xs[t, 0] > 0, xs[: t + 1, 1].sum() > 0)
            words = ["", ""] if split == "test" else [str(int(x)) for x in labels]
            line = [f"{study}.npy", str(t), f"patient{study // 2}", split, *words]
            rows.append(",".join(line))
    table = folder / "slices.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def test_files_of_features_train_by_one_line_and_leave_a_submission(tmp_path, capsys):
    table = features(tmp_path, np.random.default_rng(0))
    run = train(
        "features",
        data=table,
        model__features=16,
        model__bidirectional=False,
        model__dropout=0.0,
        optimizer__learning_rate=1e-2,
        steps=300,
        eval_every=100,
        batch_size=8,
        run_dir=tmp_path / "run",
    )
    said = capsys.readouterr().out
    assert "no test example has a label" in said and "Test set" not in said
    with open(run.directory / "submission.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "step", "bleeding", "fracture"]
    wanted = sum(len(np.load(tmp_path / f"{k}.npy")) for k in range(24, 30))
    assert len(rows) == wanted
    right = total = 0
    for row in rows:
        xs = np.load(tmp_path / row["path"])[: int(row["step"]) + 1]
        right += (float(row["bleeding"]) > 0.5) == (xs[-1, 0] > 0)
        total += 1
    assert right / total > 0.8
    (answer,) = predict(run.directory, tmp_path / "29.npy")
    last = [float(row["fracture"]) for row in rows if row["path"] == "29.npy"]
    np.testing.assert_allclose(answer["probabilities"]["fracture"], last, atol=1e-5)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"model": "classifier"}, "forecasting has encoder_forecaster and"),
        ({"model__patch": 5}, "does not divide"),
        ({"task__horizon": 20}, "leaves none to read"),
        ({"task__loss": "huber"}, "huber"),
        ({"augment__mixup": 0.2}, "mixup"),
        ({"data": "digits"}, "wants clips"),
    ],
)
def test_a_forecast_that_cannot_be_is_refused(options, said, short, tmp_path):
    options = short | options
    with pytest.raises(UsageError, match=said):
        train("moving-digits", **options, run_dir=tmp_path, steps=1)


def test_clips_without_labels_are_for_forecasts_only():
    clips, none = np.zeros((4, 20, 8, 8, 1), np.uint8), np.full(4, -1, np.int32)
    splits = {name: data.Split(clips, none) for name in ("train", "validation", "test")}
    robots = data.Dataset("robots", splits, (), ())
    for task in ("classification", "regression"):
        config = override(preset("moving-motion"), {"task": task})
        with pytest.raises(UsageError, match="no labels; .* moving-digits --data=rob"):
            Experiment(config, dataset=robots).kind.check_data(config, robots)
    about = Experiment(preset("moving-digits"), dataset=robots).spec
    assert about.image_shape == [20, 8, 8, 1] and about.outputs == 0
