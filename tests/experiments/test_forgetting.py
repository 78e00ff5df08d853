"""What a run forgot of the test set of the run that it began with."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from small_runs import SMALL, SMALL_MODEL

from experiments import train
from experiments.config import override
from experiments.evaluation.forgetting import forgetting
from experiments.experiment import Experiment
from experiments.numbers import percent
from experiments.run.display import diagnosis_lines
from experiments.run.load_run import load_run
from experiments.run.sealed import read_sealed, write_sealed
from lstm_jax.inspect import read_results


@pytest.fixture(scope="module")
def donor(digits_run):
    return load_run(digits_run.directory)


def tuned(donor, source, spec=None, **options):
    """The experiment of a run that began with `source`."""
    config = override(donor[0].config, options | {"init_from": str(source)})
    return Experiment(config, spec or donor[0].spec)


def test_weights_that_did_not_change_forget_nothing(donor, digits_run):
    source = digits_run.directory
    found = forgetting(tuned(donor, source), donor[1])["forgotten"]
    # the donor's own report has it; another batch size rounds otherwise
    assert found["examples"] == 360 and found["dataset"] == "digits"
    assert found["before"] == pytest.approx(digits_run.report["test"]["accuracy"])
    assert found["after"] == found["before"] and found["interval"] == [0, 0]
    assert read_results({"forgotten": found}) == []
    (line,) = diagnosis_lines({"forgotten": found})
    value = percent(found["before"])
    assert line == (
        f"{source}: on 360 of its own test examples the accuracy was {value} before "
        f"this training and is {value} now"
    )


def test_what_is_forgotten_is_told(donor, digits_run):
    spec = donor[0].spec
    spec = dataclasses.replace(spec, classes=[*spec.classes, "ten"], outputs=11)
    params = jax.tree.map(np.copy, jax.device_get(donor[1]))
    head = params["head"]
    head["kernel"] = np.pad(head["kernel"], ((0, 0), (0, 1)))
    head["bias"] = np.r_[head["bias"], np.float32(100)]  # ten, always
    made = tuned(donor, digits_run.directory, spec)
    found = forgetting(made, params)["forgotten"]
    assert found["after"] == 0 < found["before"]
    low, high = found["interval"]
    assert low < -found["before"] < high < 0
    (diagnostic,) = read_results({"forgotten": found})
    assert diagnostic.name == "forgotten"


def test_classes_in_another_order_and_more_of_them_are_found_by_name(donor, digits_run):
    old = donor[0].spec.classes
    classes = ["ten", *old[::-1]]
    spec = dataclasses.replace(donor[0].spec, classes=classes, outputs=11)
    params = jax.tree.map(np.copy, jax.device_get(donor[1]))
    head = params["head"]
    head["kernel"] = np.c_[np.zeros(len(head["kernel"]), "f"), head["kernel"][:, ::-1]]
    head["bias"] = np.r_[np.float32(-100), head["bias"][::-1]]
    found = forgetting(tuned(donor, digits_run.directory, spec), params)["forgotten"]
    assert found["after"] == pytest.approx(found["before"])


@pytest.mark.parametrize(
    "case, words",
    [
        ("gone", "it no longer exists"),
        ("weights", "it holds only weights"),
        ("data", "its data, nowhere/, are not available"),
        ("task", "its task, classification, is different"),
        ("shape", "its examples are 8x8x1, those of this run are 9x9x1"),
        ("classes", "some of its classes do not occur in this run"),
    ],
)
def test_what_cannot_be_measured_is_said(case, words, donor, digits_run, tmp_path):
    source, spec, options = digits_run.directory, donor[0].spec, {}
    if case == "gone":
        source = tmp_path / "gone"
    if case == "weights":
        source = tmp_path / "model.pt"
        source.write_bytes(b"")
    if case == "data":
        source = tmp_path / "run"
        shutil.copytree(digits_run.directory, source)
        saved = read_sealed(source / "config.json")
        saved["config"]["data"]["source"] = "nowhere/"
        write_sealed(source / "config.json", saved)
    if case == "task":
        options = {"task": "regression"}
        spec = dataclasses.replace(spec, classes=[], outputs=1)
    if case == "shape":
        spec = dataclasses.replace(spec, image_shape=[9, 9, 1])
    if case == "classes":
        spec = dataclasses.replace(spec, classes=[*spec.classes[:9], "ten"])
    made = tuned(donor, source, spec, **options)
    found = forgetting(made, donor[1])["forgotten"]
    assert words in found["skipped"]
    assert diagnosis_lines({"forgotten": found}) == [
        f"{source}: not tested again, {found['skipped']}"
    ]
    assert read_results({"forgotten": found}) == []


def test_a_run_with_random_weights_has_nothing_to_forget(donor):
    assert forgetting(donor[0], donor[1]) == {}


@pytest.mark.slow
def test_a_run_measures_what_it_forgot(digits_run, tmp_path, capsys):
    options = dict(steps=60, data__limit=100)
    options |= dict(init_from=digits_run.directory, run_dir=tmp_path / "tuned")
    run = train("digits", **SMALL | SMALL_MODEL | options)
    found = run.report["forgotten"]
    assert found["examples"] == 360
    assert found["after"] == pytest.approx(run.report["test"]["accuracy"], abs=1e-6)
    assert "of its own test examples the accuracy was" in capsys.readouterr().out
