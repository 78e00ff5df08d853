"""Options of the craft of training, by what they do to a run."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import SMALL, SMALL_MODEL

from experiments import train
from experiments.config import blank, check, override, preset
from experiments.errors import UsageError
from experiments.evaluation import baselines
from experiments.evaluation.seeds import _directory, train_seeds
from experiments.experiment import Experiment
from experiments.run.load_run import load_run
from experiments.run.sealed import read_sealed
from experiments.spec import DataSpec
from experiments.train import _train
from lstm_jax.training import LambdaCallback, flatten_params

OPTIONS = SMALL | SMALL_MODEL | dict(eval_every=4)


def leaves(run):
    return flatten_params(load_run(run.directory)[-1])


def test_early_stopping_ends_and_tests_the_best(tmp_path, command, capsys):
    # Nothing is better by 1: the first validation stays the best.
    wanted = dict(early_stopping_patience=2, min_delta=1.0, run_dir=tmp_path / "a")
    run = train("digits", **OPTIONS | wanted)
    assert "early stopping at step 12" in " ".join(capsys.readouterr().out.split())
    assert run.report["train"]["steps"] == 12
    accuracy = [r["accuracy"] for r in run.history if r["split"] == "validation"]
    assert len(accuracy) == 3
    best = 4 * (1 + int(np.argmax(accuracy)))
    assert run.report["train"]["checkpoint"] == best
    # What was tested is what answers, and the same line goes no further.
    for path, leaf in flatten_params(run.params).items():
        np.testing.assert_array_equal(leaf, leaves(run)[path])
    again = train("digits", **OPTIONS | wanted)
    assert again.report["test"] == run.report["test"]
    assert again.report["train"]["steps"] == 12


@pytest.mark.slow
def test_the_average_is_tested_and_answers(tmp_path):
    plain = train("digits", **OPTIONS, run_dir=tmp_path / "plain")
    options = OPTIONS | dict(optimizer__ema=0.9, run_dir=tmp_path / "ema")
    run = train("digits", **options)
    assert run.report["test"]["loss"] != plain.report["test"]["loss"]
    answered, tested = leaves(run), flatten_params(run.params)
    moved = [
        np.abs(answered[path] - leaf).max() for path, leaf in leaves(plain).items()
    ]
    assert max(moved) > 1e-4
    for path in tested:
        np.testing.assert_array_equal(answered[path], tested[path])


@pytest.mark.slow
def test_the_rate_falls_on_a_plateau(tmp_path):
    run = train(
        "digits",
        **OPTIONS,
        run_dir=tmp_path,
        log_every=4,
        optimizer__schedule="plateau",
        optimizer__schedule__min_delta=1.0,
        optimizer__schedule__warmup_steps=0,
        optimizer__schedule__patience=2,
        optimizer__schedule__decay_rate=0.5,
    )
    rates = [r["learning_rate"] for r in run.history if r["split"] == "train"]
    # validations after 4, 8, 12, 16, 20; the first is the best
    np.testing.assert_allclose(np.array(rates) / rates[0], [1, 1, 1, 0.5, 0.5])


def test_a_warm_start_takes_what_fits_and_freezes(tmp_path, digits_run, capsys):
    run = train(
        "digits-angle",
        **OPTIONS | dict(steps=4),
        run_dir=tmp_path / "b",
        data__size=8,
        init_from=digits_run.directory,
        optimizer__freeze="layer_0/w",
        optimizer__lr_multipliers="layer_0/b=0",
    )
    out = " ".join(capsys.readouterr().out.split())
    assert "loaded 3 of 5 parameters" in out
    assert "not in the file: head/bias, head/kernel" in out
    donor, ours = leaves(digits_run), leaves(run)
    for path, leaf in ours.items():
        if not path.startswith("head"):
            np.testing.assert_array_equal(leaf, donor[path])
    assert np.abs(ours["head/kernel"]).max() > 0


def test_classes_of_the_same_name_keep_their_columns(tmp_path, digits_run):
    from experiments.run.init_from import weights_from

    experiment, params = load_run(digits_run.directory)
    about = experiment.spec
    other = DataSpec(**about.__dict__ | {"classes": ["9", "ten", "0"]})
    layer = {"b": np.ones(32)}
    ours = {
        "head": {"kernel": np.zeros((8, 3)), "bias": np.zeros(3)},
        "layer_0": layer,
    }
    filled, lines = weights_from(str(digits_run.directory), other, ours)
    kernel = flatten_params(params)["head/kernel"]
    np.testing.assert_allclose(filled["head"]["kernel"][:, 0], kernel[:, 9])
    np.testing.assert_allclose(filled["head"]["kernel"][:, 2], kernel[:, 0])
    assert (filled["head"]["kernel"][:, 1] == 0).all()
    assert "in part, for 2 classes of the same name: head/bias, head/kernel" in str(
        lines
    )
    np.testing.assert_array_equal(
        filled["layer_0"]["b"], flatten_params(params)["layer_0/b"]
    )
    # As many classes in another order are not the same classes.
    other = DataSpec(**about.__dict__ | {"classes": about.classes[::-1]})
    filled, _ = weights_from(str(digits_run.directory), other, params)
    np.testing.assert_array_equal(filled["head"]["kernel"], kernel[:, ::-1])


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(init_from="nowhere"), "nowhere holds no run"),
        (dict(optimizer__freeze="nobody"), "paths begin with head, layer_0"),
        (
            dict(optimizer__lr_multipliers="head"),
            "is not PATTERN=FACTOR, such as encoder=0.1",
        ),
        (dict(optimizer__lr_multipliers="head=-1"), "is not PATTERN=FACTOR"),
        (
            dict(early_stopping_patience=0),
            "early_stopping_patience=0, but it must be 1 or more",
        ),
        (dict(optimizer__ema=1.0), r"must be in \[0, 1\)"),
        (
            dict(optimizer__schedule="plateau", optimizer__schedule__decay_rate=1.0),
            r"must be in \[0, 1\)",
        ),
        (
            dict(optimizer__schedule="plateau", optimizer__schedule__decay_rate=0.0),
            "must be more",
        ),
        (
            dict(min_delta=0.1),
            "min_delta=0.1 is given without early_stopping_patience",
        ),
        (
            dict(optimizer__schedule__patience=5),
            "an option of optimizer.schedule=plateau, not of cosine",
        ),
        (dict(optimizer__schedule__cycles=2), "of optimizer.schedule=restarts, not"),
        (
            dict(optimizer="rmsprop", optimizer__nesterov=True),
            "an option of optimizer=sgd or adam or adamw, not of rmsprop",
        ),
        (
            dict(model__cell="gru", model__cell__forget_bias="chrono"),
            "forget_bias is an option of model.cell=lstm or conv_lstm, not of gru",
        ),
        (
            dict(model__cell__activation="relu"),
            "an option of model.cell=rnn, not of lstm",
        ),
        (dict(model__remat="step"), "an option of model=encoder_forecaster or stacked"),
        (dict(data__buckets=2), "an option of task=text_recognition, not of"),
        (dict(model__cell__forget_bias="crono"), "did you mean 'chrono'"),
        (dict(data__limit=3), "3 training examples are fewer than its 10 classes"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        train("digits", **OPTIONS | options, run_dir=tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_a_warm_start_goes_on_without_its_donor(tmp_path, digits_run, monkeypatch):
    donor = tmp_path / "donor"
    shutil.copytree(digits_run.directory, donor)
    options = OPTIONS | dict(init_from=str(donor), run_dir=tmp_path / "a")

    class Killed(RuntimeError):
        pass

    def killed(row):
        if row["step"] == 12:
            raise Killed

    config = check(override(preset("digits"), options))
    with pytest.raises(Killed):
        _train("digits", config, [LambdaCallback(on_log=killed)])
    shutil.rmtree(donor)
    assert _train("digits", config).report["train"]["steps"] == 20


def test_a_warm_start_that_takes_nothing_is_refused(digits_run):
    from experiments.run.init_from import weights_from

    about = load_run(digits_run.directory)[0].spec
    head = {"kernel": np.zeros((4, 10)), "bias": np.zeros(10)}  # its bias would fit
    for ours in ({"layer_0": {"w_h": np.zeros((4, 16))}, "head": head}, {"cell": head}):
        with pytest.raises(
            UsageError, match="no parameter .* matches one .*by name and sha"
        ):
            weights_from(str(digits_run.directory), about, ours)


def test_initialisers_by_name():
    def drawn(**options):
        options = {f"model.{k.replace('__', '.')}": v for k, v in options.items()}
        config = override(blank("classification", "classifier"), options)
        return config.model.cells(784)[0].init(jax.random.key(0), (4,))

    identity = drawn(cell="rnn", cell__activation="relu", recurrent_init="identity")
    np.testing.assert_array_equal(identity["w_h"], np.eye(128))
    for name, variance in (("glorot", 1 / 128), ("he", 2 / 128)):
        w_h = drawn(cell="rnn", recurrent_init=name)["w_h"]
        assert w_h.var() == pytest.approx(variance, rel=0.05)  # 16,384 draws
    forget = drawn(cell__forget_bias="chrono")["b"][128:256]
    assert 0 <= forget.min() and forget.max() <= np.log(783)
    assert np.exp(forget).mean() == pytest.approx(392, rel=0.2)  # of U(1, 783)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    directory = tmp_path_factory.mktemp("seeds")
    changes = OPTIONS | dict(seed=3, run_dir=str(directory), test_checkpoint="best")
    config = check(override(preset("digits"), changes))
    fits, real = [], baselines.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "fit", lambda one: fits.append(1) or real(one))
        summary = train_seeds("digits", config, 2)
    assert fits == [1]  # all seeds share them
    return summary, directory


def test_each_of_many_seeds_is_its_single_run(seeds, tmp_path):
    summary, directory = seeds
    assert summary["seeds"] == [3, 4]
    alone = train(
        "digits", **OPTIONS | dict(seed=4, test_checkpoint="best"), run_dir=tmp_path
    )
    mine = read_sealed(directory / "seed-4" / "report.json")
    assert mine.keys() == alone.report.keys()
    assert mine["splits"].keys() == {"train", "validation", "test"}
    for name, found in alone.report["splits"].items():
        assert mine["splits"][name].keys() == found.keys()
    majority = mine["baselines"]["majority"]
    assert majority["accuracy"] == alone.report["baselines"]["majority"]["accuracy"]
    assert [d["name"] for d in mine["diagnosis"]] == [
        d["name"] for d in alone.report["diagnosis"]
    ]
    # the same sums in another order, after 20 steps in float32
    assert mine["test"]["loss"] == pytest.approx(alone.report["test"]["loss"], rel=1e-4)
    assert mine["train"]["checkpoint"] == alone.report["train"]["checkpoint"]
    for path, leaf in flatten_params(load_run(directory / "seed-4")[-1]).items():
        np.testing.assert_allclose(leaf, leaves(alone)[path], rtol=1e-3, atol=1e-5)
    lines = (directory / "seed-4" / "metrics.jsonl").read_text().splitlines()
    got = [json.loads(line) for line in lines]
    for ours, theirs in zip(got, alone.history, strict=True):
        assert (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_the_spread_over_seeds(seeds):
    summary, directory = seeds
    losses = [
        json.loads((directory / f"seed-{s}" / "report.json").read_text())["test"][
            "loss"
        ]
        for s in (3, 4)
    ]
    assert summary["test"]["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert summary["test"]["loss"]["sd"] == pytest.approx(np.std(losses, ddof=1))
    assert summary["baselines"]["majority.accuracy"]["sd"] == 0
    assert read_sealed(directory / "seeds.json") == summary


def test_seeds_begin_with_the_weights_of_a_file(monkeypatch, tmp_path):
    class Read(Exception):
        pass

    real = Experiment.init

    def init(self, key, *, pretrained=False):
        if pretrained:
            raise Read
        return real(self, key)  # of the shapes alone

    monkeypatch.setattr(Experiment, "init", init)
    config = check(override(preset("digits"), OPTIONS | dict(run_dir=str(tmp_path))))
    with pytest.raises(Read):
        train_seeds("digits", config, 8)


def test_seeds_start_in_a_folder_of_their_own(seeds, tmp_path):
    _, directory = seeds

    def place(**options):
        return _directory("digits", override(preset("digits"), OPTIONS | options))

    assert place() == Path("runs/digits-seeds")
    assert place(run_dir=tmp_path) == tmp_path
    (tmp_path / ".lock").touch()  # left by a process that was killed
    assert place(run_dir=tmp_path) == tmp_path
    with pytest.raises(UsageError, match="contains seeds.*--overwrite"):
        place(run_dir=directory)
    assert place(run_dir=directory, overwrite=True) == directory
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="contains other files"):
        place(run_dir=tmp_path, overwrite=True)


@pytest.mark.parametrize(
    "options, words",
    [
        (
            dict(early_stopping_patience=2),
            "--seeds does not support early_stopping_patience",
        ),
        (dict(parallel="pmap"), "does not support parallel=pmap"),
        (dict(tensorboard=True), "--seeds does not support tensorboard"),
        (dict(profile=True), "--seeds does not support profile"),
    ],
)
def test_seeds_refuse_what_parts_them(options, words):
    config = check(override(preset("digits"), OPTIONS | options))
    with pytest.raises(UsageError, match=words):
        train_seeds("digits", config, 2)
    with pytest.raises(UsageError, match="for one seed use experiments.train"):
        train_seeds("digits", preset("digits"), 1)
