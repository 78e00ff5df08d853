"""Reports of runs: their numbers, what they say, and comparisons."""

import dataclasses
import importlib
import json
import shlex
import shutil

import jax
import numpy as np
import pytest
from small_runs import SMALL, SMALL_MODEL
from test_train_clips import a_dot, features, write_gif

from experiments import optimization, report, train
from experiments.choices import to_dict
from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment, load_data
from experiments.flags import parse
from experiments.numbers import number
from experiments.presets import PRESETS
from experiments.reporting import compare
from experiments.reporting.diagnosis import diagnosis
from experiments.reporting.page import Code, Fold, Picture, Table, Words
from experiments.reporting.sections import (
    configuration,
    head,
    regularised,
    single,
    train_line,
)
from experiments.run.load_run import load_run
from experiments.run.sealed import write_sealed
from lstm_jax import metrics, training


def untrained(directory, name, **options):
    """A run that was stopped before its first step, and had saved its weights."""
    config = override(preset(name), options | dict(run_dir=str(directory)))
    dataset = load_data(config)
    about = Experiment(config, dataset=dataset).spec
    task = Experiment(config, about).task
    params = Experiment(config, about).init(jax.random.key(0))
    tx = optimization.optimizer(config, optimization.schedule(config, 1))
    state = training.TrainState(np.int32(0), params, tx.init(params), jax.random.key(0))
    values = {"preset": name, "config": to_dict(config), "data": about}
    write_sealed(directory / "config.json", values)
    with training.Checkpoints(
        directory / "checkpoints", monitor=task.monitor, mode=task.mode
    ) as checkpoints:
        checkpoints.save(0, state, to_dict(config), None, force=True)
    return directory


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Pictures of few dots, to save time."""
    monkeypatch.setattr("experiments.reporting.page.DPI", 40)


@pytest.fixture(scope="module")
def finished(odd_report):
    return odd_report


@pytest.fixture(scope="module")
def stopped(digits_run, tmp_path_factory):
    """The same run, as if it had been stopped at step 10 of 20."""
    directory = tmp_path_factory.mktemp("reports") / "stopped"
    shutil.copytree(digits_run.directory, directory)
    (directory / "report.json").unlink()
    shutil.rmtree(directory / "checkpoints" / "20")
    return directory


def blocks(sections, kind):
    """All blocks of a kind, folded ones too."""
    found, left = [], [block for section in sections for block in section.blocks]
    while left:
        block = left.pop(0)
        if isinstance(block, Fold):
            left = [*block.blocks, *left]
        elif isinstance(block, kind):
            found.append(block)
    return found


def cells(sections):
    """{first cell of a row: the rest of it}."""
    rows = [row for table in blocks(sections, Table) for row in table.rows]
    return {row[0]: row[1:] for row in rows}


def titles(sections):
    return [section.title for section in sections]


def test_the_numbers_are_those_of_the_run(finished, digits_run):
    stored, found = digits_run.report, finished.numbers
    assert found["finished"] and found["step"] == stored["train"]["checkpoint"]
    assert found["test"]["confusion_matrix"] == stored["test"]["confusion_matrix"]
    for name in ("accuracy", "loss", "top5_accuracy"):
        # another batch size rounds a float32 sum otherwise
        assert found["test"][name] == pytest.approx(stored["test"][name], rel=1e-5)
    assert found["model"]["parameters"] == stored["model"]["parameters"]
    low, high = found["intervals"]["accuracy"]
    assert low < found["test"]["accuracy"] < high
    json.dumps(found, allow_nan=False)
    table = cells(finished.sections)
    accuracy = found["test"]["accuracy"]
    assert table["accuracy"][:2] == (
        number(accuracy, "accuracy"),
        f"{number(low, 'accuracy')} to {number(high, 'accuracy')}",
    )
    svc = stored["baselines"]["svc"]["accuracy"]
    assert number(svc, "accuracy") in table["accuracy"]
    # rows: F = 8, D = 8, four gates, 8 steps
    assert table["layer_0"] == ("8x8", "544", f"{2 * 8 * 4 * 8 * (8 + 8):,}")
    assert table["parameters"] == ("2.5 KiB",)  # 634 of 4 bytes
    assert table["jax"] == (jax.__version__, jax.__version__)


def test_a_run_is_compared_with_its_baselines(finished, digits_run):
    """After 20 steps it is worse than all that look at the images."""
    (table,) = [
        block
        for block in blocks(finished.sections, Table)
        if block.header[0] == "this run minus"
    ]
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["majority", "nearest neighbour", "svc"]
    found = digits_run.report["baselines"]["svc"]
    low, high = found["difference"]["interval"]
    assert rows["svc"] == (
        number(found["difference"]["mean"]),
        f"{number(low)} to {number(high)}",
        "1,437",
        "360",
    )
    assert found["difference"]["mean"] == pytest.approx(
        digits_run.report["test"]["accuracy"] - found["accuracy"]
    )
    told = [row[0] for t in blocks(finished.sections, Table) for row in t.rows]
    assert any("not better than the baseline svc" in words for words in told)
    assert "balanced accuracy" in cells(finished.sections)


def test_what_it_has_to_say_of_a_classifier(finished):
    assert titles(finished.sections) == [
        "Test metrics",
        "Curves",
        "Errors",
        "Calibration",
        "Diagnosis",
        "Data",
        "Model",
        "Configuration",
        "Environment",
    ]
    words = " ".join(block.text for block in blocks(finished.sections, Words))
    assert "Guo et al. 2017" in words and f"{finished.numbers['test']['ece']:.4f}"
    assert len(blocks(finished.sections, Picture)) >= 6
    (line,) = (block.text for block in blocks(finished.sections, Code))
    assert "--steps=20" in line and "--model.features=8" in line


@pytest.mark.slow
def test_the_updates_of_a_run_are_diagnosed_and_drawn(finished, tmp_path):
    """Of the run as it is, and of one whose rate is far too high."""
    (run,) = finished.runs
    assert not any("norm" in words for words in told_updates(run))
    small = SMALL | SMALL_MODEL | dict(run_dir=tmp_path / "sick", log_every=5)
    sick = train("digits", **small, optimizer__learning_rate=3.0)
    bad = dataclasses.replace(run, rows=sick.history, params=sick.params)
    ratio = max(
        value
        for row in sick.history
        for name, value in row.items()
        if name.startswith("update_ratio/")
    )
    assert ratio > 0.1
    (words,) = [words for words in told_updates(bad) if "of its norm" in words]
    assert words.startswith("one step changes ") and f" by {ratio:.2g} " in words
    assert "--optimizer.schedule.warmup-steps" in told_updates(bad)[words]


def told_updates(evaluation):
    """{what a report finds: what may help}; the figure has a panel of updates."""
    section = diagnosis(evaluation)
    (figure,) = (
        block.figure for block in blocks([section], Picture) if "matrix" in block.words
    )
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert "Update per step" in titles
    return {row[0]: row[1] for t in blocks([section], Table) for row in t.rows}


def test_calibration_and_worst_answers_are_those_of_the_predictions(finished):
    experiment, params = load_run(finished.path.parent)
    test = experiment.dataset.splits["test"]
    p = jax.jit(experiment.predictions)(params, dict(inputs=test.inputs))
    p = np.asarray(p)
    found = finished.numbers["test"]
    # float32 probabilities of two batch sizes
    assert found["ece"] == pytest.approx(
        metrics.reliability(p, test.targets).ece, rel=1e-3
    )
    assert found["brier"] == pytest.approx(metrics.brier(p, test.targets), rel=1e-5)
    losses = -np.log(p[np.arange(360), test.targets])
    worst = losses.argsort()[::-1][:12]
    (table,) = [
        block
        for block in blocks(finished.sections, Table)
        if block.header[0] == "highest losses"
    ]
    assert [row[0] for row in table.rows] == [f"test example {k}" for k in worst]
    best = p[worst[0]].argmax()
    chosen, true = (experiment.spec.classes[k] for k in (best, test.targets[worst[0]]))
    assert f"says: {chosen} ({100 * p[worst[0], best]:.1f} %)" in table.rows[0][1]
    assert f"true: {true} (" in table.rows[0][1]


def test_a_stopped_run_says_so_and_two_runs_are_compared(finished, stopped, tmp_path):
    both = report(finished.path.parent, stopped, out=tmp_path / "both.html")
    assert both.path.exists()
    first, second = both.runs
    words = " ".join(block.text for block in head(second) if isinstance(block, Words))
    assert "stopped at step 10 of 20" in words and "checkpoint of step 10" in words
    assert not any("stopped" in b.text for b in head(first) if isinstance(b, Words))
    right = [run.known[0].argmax(-1) == run.known[1] for run in (first, second)]
    (pair,) = both.numbers["pairs"]
    assert pair["first_only"] == int(np.sum(right[0] & ~right[1])) > 0
    assert pair["second_only"] == int(np.sum(right[1] & ~right[0]))
    wanted = metrics.mcnemar(*right)
    assert (pair["statistic"], pair["p"]) == (wanted.statistic, wanted.p)
    assert pair["difference"] == pytest.approx(
        first.losses.mean() - second.losses.mean()
    )
    table = cells(both.sections)
    assert table["steps"] == ("20", "10 of 20, stopped")
    assert table["step tested"][1] == "10"
    assert table["parameters"] == ("634", "634")
    assert "run_dir" not in table


@pytest.mark.slow
def test_a_regression(tmp_path):
    small = dict(model__features=3, model__layers=1, steps=5)
    found = report(untrained(tmp_path / "angle", "digits-angle", **small))
    assert "Calibration" not in titles(found.sections)
    assert "Diagnosis" in titles(found.sections)
    assert found.numbers["test"]["mae"] > 5
    assert "degrees" in found.path.read_text()


def test_pairs_of_numbers_and_of_other_test_sets_have_no_mcnemar_test(finished):
    (run,) = finished.runs

    def numbers(seed):
        config = override(run.config, {"task": "regression", "seed": seed})
        return Experiment(config, run.spec, dataset=run.dataset)

    one = dataclasses.replace(run, experiment=numbers(seed=0))
    two = dataclasses.replace(
        run,
        experiment=numbers(seed=1),
        run=one.run.with_name("two"),
        losses=run.losses - 0.25,
    )
    three = dataclasses.replace(run, run=run.run.with_name("three"))
    _, _, sections, found = compare.comparison([one, two, three])
    same, *others = found["pairs"]
    assert same["difference"] == pytest.approx(0.25) and "p" not in same
    words = " ".join(block.text for block in blocks(sections, Words))
    assert "McNemar's test applies to classification only" in words
    for pair in others:
        assert "not tested on the same examples" in pair["left_out"]
    assert words.count("not tested on the same examples") == 2
    assert cells(sections)["seed"] == ("0", "1", "0")


def test_one_pixel_makes_another_test_set(finished):
    (run,) = finished.runs
    test = run.dataset.splits["test"]
    inputs = test.inputs.copy()
    inputs[7, 0, 0] ^= 1
    splits = run.dataset.splits | {"test": test._replace(inputs=inputs)}
    dataset = run.dataset._replace(splits=splits)
    changed = Experiment(run.config, run.spec, dataset=dataset)
    other = dataclasses.replace(run, experiment=changed)
    assert compare.fingerprint(run) == compare.fingerprint(dataclasses.replace(run))
    assert compare.fingerprint(run) != compare.fingerprint(other)


@pytest.mark.slow
def test_a_forecast_from_the_command_line(tmp_path, command):
    rng = np.random.default_rng(0)
    for k in range(24):
        write_gif(tmp_path / "films" / "all" / f"{k}.gif", a_dot("left", rng))
        write_gif(tmp_path / "films" / "more" / f"{k}.gif", a_dot("right", rng))
    run = untrained(
        tmp_path / "forecast",
        "moving-digits",
        data=str(tmp_path / "films"),
        data__frames=6,
        task__horizon=2,
        model__features=2,
        model__layers=1,
    )
    code, out, err = command("report", run, f"--out={tmp_path / 'sub' / 'page.html'}")
    assert code == 0, err
    found = {line.split("  ")[1]: line for line in out.splitlines() if "  " in line}
    # the frames and three simple guesses beside the network
    assert "copy last frame" in out and found["MSE per frame"].count(".") == 6
    assert {"encoder_0", "forecaster_0", "head", "+1", "+2"} <= found.keys()
    assert "Diagnosis" not in out and "Calibration" not in out
    assert f"written to {tmp_path}" in out
    page = (tmp_path / "sub" / "page.html").read_text()
    assert "<h2>Errors</h2>" in page and page.count("<img") == 4


@pytest.mark.slow
def test_labels_for_every_step_known_or_not(tmp_path):
    table = features(tmp_path, np.random.default_rng(0))
    options = dict(model__features=3, data=str(table))
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join(
            line[:-1] + f"{k % 2},1" if line.endswith(",,") else line
            for k, line in enumerate(lines)
        )
    )
    known = report(untrained(tmp_path / "run", "features", **options))
    cell = cells(known.sections)
    assert cell["bleeding"][-1] != "0" and cell["fracture"][0] == "–"
    assert any(name.startswith("29.npy") or "npy" in name for name in cell)
    assert known.numbers["intervals"]["macro.roc_auc"][0] < 1

    (run,) = known.runs
    predictions, targets = run.known
    nothing = targets * np.nan
    unknown = dataclasses.replace(
        run,
        known=(predictions, nothing),
        losses=run.task.example_losses(predictions, nothing),
        test=run.task.report(predictions, nothing),
        intervals={},
    )
    sections = single(unknown)[2]
    words = " ".join(block.text for block in blocks(sections, Words))
    assert "No test example has a known target" in words
    assert "Errors" not in titles(sections)


@pytest.mark.parametrize("name", PRESETS)
def test_the_train_line_makes_the_configuration_again(name):
    words = train_line(name, preset(name)).split()
    assert words == ["python", "-m", "experiments.train", name]
    changed = override(
        preset(name),
        dict(
            seed=3,
            steps=7,
            epochs=None,
            baselines=not preset(name).baselines,
            run_dir="runs/a b$c",
            data__size=None,
            optimizer__clip=None,
            optimizer="sgd",
            optimizer__nesterov=True,
            optimizer__schedule="restarts",
            optimizer__schedule__cycles=2,
        ),
    )
    line = shlex.split(train_line(name, changed))
    assert parse(line[3:]) == (name, changed)


def test_a_preset_that_is_gone_is_told(finished):
    (run,) = finished.runs
    section = configuration(dataclasses.replace(run, preset="gone"))
    words = " ".join(block.text for block in blocks([section], Words))
    assert "preset gone no longer exists; compared with digits" in words


def test_what_changed_since_the_run_is_told(finished):
    (run,) = finished.runs
    assert not any("differs" in block.text for block in head(run)[:-1])
    stored = run.finished | {"test": run.finished["test"] | {"accuracy": 0.99}}
    told = head(dataclasses.replace(run, finished=stored))
    words = " ".join(block.text for block in told if isinstance(block, Words))
    assert "accuracy was 99.0 %, is" in words


@pytest.mark.parametrize(
    "flags, losses, causes",
    [
        ([], (0.5, 0.4), "dropout and augmentation are"),
        (["--augment.translate=0"], (0.5, 0.4), "dropout is"),
        (["--model.dropout=0"], (0.5, 0.4), "augmentation is"),
        (["--augment.translate=0", "--model.dropout=0"], (0.5, 0.4), ""),
        ([], (0.4, 0.5), ""),
        ([], (0.4, None), ""),
    ],
)
def test_a_training_loss_above_the_validation_loss_is_explained(flags, losses, causes):
    rows = [
        {"split": split, "step": step, "loss": loss}
        for step in (1, 2)
        for split, loss in zip(("train", "validation"), losses, strict=True)
    ]
    found = regularised(rows, parse(["digits", *flags])[1])
    assert bool(found) == bool(causes) and causes in found


def test_mistakes(tmp_path, command, stopped):
    code, _, err = command("report", tmp_path)
    assert code == 2 and err.count("\n") == 1 and "holds no run" in err
    code, _, err = command("report", stopped, stopped)
    assert code == 2 and "given twice" in err
    with pytest.raises(UsageError, match="no run given"):
        report()
    shutil.copytree(stopped, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints")
    (tmp_path / "begun" / "report.html").unlink(missing_ok=True)
    code, _, err = command("report", tmp_path / "begun")
    assert code == 2 and err.count("\n") == 1 and "no checkpoint" in err
    assert not (tmp_path / "begun" / "report.html").exists()


def test_the_name_is_the_function_after_the_module_is_imported():
    import experiments

    module = importlib.import_module("experiments.report")
    assert experiments.report is module.report
