"""Runs on made data of which the truth is known: what their reports say, or do not."""

import json

import numpy as np
import pytest
from small_runs import SMALL, SMALL_MODEL

from experiments import train
from lstm_jax import data

LARGER = dict(steps=300, model__features=32, optimizer__learning_rate=1e-2)
RUN = SMALL | SMALL_MODEL | dict(task__label_smoothing=0.0, test_checkpoint="best")


def images(rng, targets, signal=150):
    """Noise of 8x8 with a row that is brighter: the second of class 0, and so on."""
    pixels = rng.integers(0, 60, (len(targets), 8, 8, 1)).astype(np.uint8)
    pixels[np.arange(len(targets)), 1 + targets] += signal
    return data.Split(pixels, targets.astype(np.int32))


def made(shares, make=images, sizes=(300, 100, 150), seed=0):
    """A data set of classes a, b, … with these shares."""
    rng = np.random.default_rng(seed)
    splits = {}
    for name, count in zip(("train", "validation", "test"), sizes, strict=True):
        counts = np.round(np.asarray(shares) * count).astype(int)
        splits[name] = make(rng, np.repeat(np.arange(len(shares)), counts))
    return data.Dataset("made", splits, tuple("abcdef"[: len(shares)]), ())


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """`(dataset, **options) -> run`, of made data."""

    def run(dataset, name="digits", **options):
        monkeypatch.setattr("experiments.experiment.load_data", lambda *_: dataset)
        own = RUN | dict(run_dir=tmp_path / "run") | options
        if name != "digits":  # the options of another task
            own.pop("task__label_smoothing")
        return train(name, **own)

    return run


def names(run):
    found = json.loads((run.directory / "report.json").read_text())["diagnosis"]
    assert found == run.report["diagnosis"]
    return [diagnostic["name"] for diagnostic in found]


def noise(rng, targets):
    return images(rng, targets, signal=0)


def two_alike(rng, targets):
    """Class c looks as class a does."""
    return images(rng, np.where(targets == 2, 0, targets))._replace(
        targets=targets.astype(np.int32)
    )


@pytest.mark.slow
def test_noise_of_which_most_is_one_class(trained, capsys):
    """95:5: always the majority would have an accuracy of 95 %."""
    run = trained(made((0.95, 0.05), noise), steps=40)
    assert run.report["test"]["accuracy"] > 0.9
    assert names(run)[0] == "one_class_predicted"
    out = capsys.readouterr().out
    assert "balanced accuracy" in out and "majority" in out
    assert "found: a is predicted for " in out and "but only 94.7 % are" in out
    assert "may help: --task.class-weights=balanced" in out


@pytest.mark.slow
def test_a_class_that_is_never_found(trained):
    run = trained(made((0.5, 0.4, 0.1), two_alike), steps=200)
    assert run.report["test"]["per_class"][2]["recall"] < 0.2
    assert "class_hardly_found" in names(run)


@pytest.mark.slow
def test_a_network_that_is_weaker_than_its_baselines(trained):
    """After a few steps."""
    dataset = made((0.25,) * 4)
    run = trained(dataset, steps=3, baselines=True, optimizer__learning_rate=1e-4)
    assert run.report["baselines"]["svc"]["accuracy"] == 1
    assert "no_better_than_baseline" in names(run)


@pytest.mark.slow
def test_labels_that_are_learned_by_heart(trained):
    """Few examples, whose classes are random."""
    dataset = made((0.5, 0.5), noise, sizes=(40, 100, 150))
    run = trained(dataset, steps=600, model__features=32, test_checkpoint="last")
    splits = run.report["splits"]
    assert splits["train"]["accuracy"] > 0.95 > 0.7 > splits["test"]["accuracy"]
    assert "generalization_gap" in names(run)


@pytest.mark.slow
def test_a_validation_split_of_six(trained, capsys):
    dataset = made((0.5, 0.5), sizes=(300, 6, 100))
    run = trained(dataset, **LARGER)
    assert names(run) == ["small_validation"]
    assert (
        "6 examples (3 of a); the 95 % interval of its accuracy is"
        in (run.report["diagnosis"][0]["words"])
    )
    assert capsys.readouterr().out.count("too small to choose a checkpoint") == 1
    # where it chooses nothing it may be small
    again = trained(dataset, **LARGER, test_checkpoint="last", overwrite=True)
    assert names(again) == []


def features(rng, targets):
    """Two labels for each of five steps: the signs of two features."""
    inputs = rng.normal(size=(len(targets), 5, 4)).astype(np.float32)
    return data.Split(inputs, np.float32(inputs[..., :2] > 0))


def brightness(rng, targets):
    pixels = rng.integers(0, 60, (len(targets), 8, 8, 1)).astype(np.uint8)
    values = rng.integers(0, 190, len(targets))
    pixels += values[:, None, None, None].astype(np.uint8)
    return data.Split(pixels, values[:, None].astype(np.float32))


HEALTHY = {
    "two classes": (made((0.5, 0.5)), {}),
    "four classes": (made((0.25,) * 4), {}),
    "a rare class": (made((0.85, 0.15)), {"baselines": True}),
    "labels by step": (
        made((1.0,), features)._replace(classes=("x", "y")),
        {"name": "features"},
    ),
    "regression": (
        made((1.0,), brightness)._replace(classes=()),
        {"name": "digits-angle"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HEALTHY)
def test_of_healthy_runs_nothing_is_said(case, trained, capsys):
    dataset, options = HEALTHY[case]
    run = trained(dataset, **LARGER | options)
    assert names(run) == [], run.report["diagnosis"]
    assert "found:" not in capsys.readouterr().out
