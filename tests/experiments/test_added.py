"""A task and a network of somebody else work with all commands.

The exercise of docs/design/0008-experiments.md: nothing in `experiments` knows them.
"""

import importlib
import sys

import numpy as np
import pytest
from small_runs import SMALL, draw

from experiments import export, predict, report, sweep, train
from experiments.config import check, override, preset
from experiments.errors import UsageError
from experiments.flags import parse
from experiments.models import MODELS
from experiments.options import ModelOptions, TaskOptions
from experiments.run.load_run import load_run
from experiments.tasks import TASKS
from experiments.train import _train
from lstm_jax.training import LambdaCallback

OPTIONS = SMALL | dict(
    task="ordinal",
    task__temperature=2.0,
    model="bag_of_patches",
    model__features=8,
    eval_every=10,
)


@pytest.fixture(scope="module", autouse=True)
def added():
    """The package, imported for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        for family in (TaskOptions, ModelOptions):
            patch.setattr(family, "kinds", dict(family.kinds))
        importlib.import_module("added")
        yield
    for table, name in ((TASKS, "ordinal"), (MODELS, "bag_of_patches")):
        del table[name]
    for name in [name for name in sys.modules if name.partition(".")[0] == "added"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in a folder for each grade: a bar across, or down."""
    path, rng = tmp_path_factory.mktemp("grades"), np.random.default_rng(0)
    for number in range(48):
        label = ("across", "down")[number % 2]
        draw(path / label / f"{number}.png", label, rng)
    return path


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    return train("digits", **OPTIONS, data=folder, run_dir=tmp_path_factory.mktemp("r"))


def test_it_trains_and_is_loaded(run):
    assert run.report["test"]["task"] == "ordinal"
    assert 0 <= run.report["test"]["mae"] <= 1
    assert {row["split"] for row in run.history} == {"train", "validation"}
    experiment, params = load_run(run.directory)
    assert experiment.config == run.config and set(params) == {"patches", "head"}
    assert experiment.config.task.temperature == 2.0


def test_a_run_that_was_stopped_goes_on(run, folder, tmp_path):
    class Stopped(Exception):
        pass

    def stop(row):
        if row["step"] == 10 and row["split"] == "validation":
            raise Stopped

    options = OPTIONS | dict(data=str(folder), run_dir=str(tmp_path))
    config = check(override(preset("digits"), options))
    with pytest.raises(Stopped):
        _train("digits", config, [LambdaCallback(on_log=stop)])
    again = train("digits", **options)
    assert again.report["test"] == run.report["test"]


def test_it_predicts(run, folder):
    answers = predict(run.directory, folder / "across")
    assert len(answers) == 24
    assert {answer["label"] for answer in answers} <= {"across", "down"}


def test_it_is_reported(run, tmp_path):
    page = report(run.directory, out=tmp_path / "page.html").path
    text = page.read_text()
    assert "grades off, on average" in text and "true: " in text


def test_it_is_exported(run, folder, tmp_path):
    file = tmp_path / "model.jaxexport"
    export(run.directory, out=file)
    alone, whole = (
        [answer["label"] for answer in predict(source, folder / "down")]
        for source in (file, run.directory)
    )
    assert alone == whole


def test_it_is_swept(folder, tmp_path):
    found = sweep(
        "digits",
        trials=2,
        **OPTIONS | dict(task__temperature=[1.0, 3.0]),
        data=folder,
        run_dir=tmp_path / "sweep",
    )
    assert [trial["state"] for trial in found.trials] == ["complete"] * 2
    assert "--task=ordinal" in found.line and "--model=bag_of_patches" in found.line


def test_its_flags_are_its_own(capsys):
    words = ["digits", "--task=ordinal", "--model=bag_of_patches"]
    _, config = parse([*words, "--model.side=2", "--task.temperature=0.5"])
    assert (config.model.side, config.task.temperature) == (2, 0.5)
    with pytest.raises(SystemExit):
        parse([*words, "--help"])
    shown = capsys.readouterr().out
    assert "--model.side" in shown and "--model.cell" not in shown
    with pytest.raises(UsageError, match="--model=bag_of_patches is for ordinal"):
        parse(["digits", "--model=bag_of_patches"])
