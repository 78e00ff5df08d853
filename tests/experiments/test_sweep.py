"""A sweep that is stopped, anyhow, ends with the trials it would have had."""

import importlib
import json
import math
import os
import shlex
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SAVE_FIGURE, SMALL, SMALL_FLAGS, SMALL_MODEL

from experiments import sweep, train
from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.run import record
from experiments.run.folder import Run
from experiments.run.record import MetricsLog
from experiments.run.sealed import read_sealed, write_sealed
from experiments.search.figures import overview
from experiments.search.space import Choices, Range
from lstm_jax import training

pytest.importorskip("optuna", reason="it draws the trials")
SEARCH = "optimizer.learning_rate", "model.features"
TOTAL = 60  # steps of a fake run, validated every 20


@pytest.fixture
def fake(monkeypatch):
    """`_train` without training: accuracies are a formula, and runs can be resumed.

    `fake.at[trial, step] = error` raises that, once, before the row of that step.
    """
    module = importlib.import_module("experiments.train")

    def run(name, config, callbacks):
        trial = int(Path(config.run_dir).name.removeprefix("trial-"))
        log = MetricsLog(config.run_dir)
        done = max((row["step"] for row in log.rows()), default=0)
        fake.started.append((trial, done))
        Path(config.run_dir, "checkpoints").mkdir(parents=True, exist_ok=True)
        distance = abs(math.log10(config.optimizer.learning_rate) + 2)
        for step in range(done + 20, TOTAL + 1, 20):
            if (trial, step) in fake.at:
                raise fake.at.pop((trial, step))
            share = step / TOTAL
            accuracy = share / (1 + distance) + 0.1 * math.sin(config.model.features)
            row = {"step": step, "split": "validation", "accuracy": accuracy}
            log.append(row | {"loss": 1 - accuracy})
            for callback in callbacks:
                callback.on_log(row)
        return Run(Path(config.run_dir), config, {}, log.rows(), {}, None)

    def save_figure(path, figure):
        if fake.draws:  # a second each
            SAVE_FIGURE(path, figure)

    fake = run
    fake.at, fake.started, fake.draws = {}, [], False
    monkeypatch.setattr(module, "_train", fake)
    monkeypatch.setattr(record, "save_figure", save_figure)
    return fake


def search(folder, trials=20, **options):
    options = dict(steps=TOTAL, run_dir=folder, accelerator="cpu") | options
    options.setdefault("optimizer__learning_rate", "1e-4..1e-1")
    options.setdefault("model__features", "16,32,64")
    return sweep("digits", trials=trials, **options)


def numbers(path):
    with sqlite3.connect(path / "study.db") as study:
        return study.execute("select number, state from trials").fetchall()


@pytest.mark.slow
def test_killed_anywhere_it_ends_with_the_same_trials(fake, tmp_path):
    whole = search(tmp_path / "whole")
    late = [t["trial"] for t in whole.trials if t["state"] == "complete"]
    kills = {0: 20, late[6]: 60, 19: 20}
    fake.at |= {at: KeyboardInterrupt() for at in kills.items()}
    goes_on = (0, 0)
    for trial, step in sorted(kills.items()):
        fake.started.clear()
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "killed")
        assert fake.started[0] == goes_on
        goes_on = (trial, step - 20)  # where its own run was
        assert numbers(tmp_path / "killed")[-1] == (trial, "RUNNING")
    fake.started.clear()
    killed = search(tmp_path / "killed")
    assert fake.started == [(19, 0)]
    assert killed.trials == whole.trials and len(killed.trials) == 20
    states = {row["state"] for row in killed.trials}
    assert states == {"complete", "pruned"}
    assert [n for n, _ in numbers(tmp_path / "killed")] == list(range(20))
    fake.started.clear()
    again = search(tmp_path / "killed")
    assert not fake.started and again.trials == whole.trials
    more = search(tmp_path / "killed", trials=22)
    assert more.trials[:20] == whole.trials and len(more.trials) == 22


def test_trials_differ_and_the_second_half_looks_where_it_was_good(fake, tmp_path):
    tpe = search(tmp_path / "tpe", trials=30, pruner="none").trials
    rates = [row["parameters"][SEARCH[0]] for row in tpe]
    assert len(set(rates)) > 25  # a sampler seeded alike would draw ten twice
    assert all(row["state"] == "complete" for row in tpe)
    far = [abs(math.log10(rate) + 2) for rate in rates]  # the best is 1e-2
    # Of rates drawn anywhere the mean is 0.83, that of twenty 0.12 either side of it.
    assert statistics.mean(far[10:]) < 0.6
    assert {row["parameters"][SEARCH[1]] for row in tpe} == {16, 32, 64}


def test_what_is_pruned_was_worse_than_the_median_by_then(fake, tmp_path):
    done = search(tmp_path / "s")
    rows = {
        trial["trial"]: {
            row["step"]: row["accuracy"]
            for row in MetricsLog(tmp_path / "s" / f"trial-{trial['trial']:03}").rows()
        }
        for trial in done.trials
    }
    pruned = 0
    for trial in done.trials:
        number, own = trial["trial"], rows[trial["trial"]]
        assert trial["value"] == max(own.values())
        assert trial["step"] == min(s for s in own if own[s] == trial["value"])
        kept = (tmp_path / "s" / f"trial-{number:03}" / "checkpoints").exists()
        assert kept == (trial["state"] == "complete")
        before = [
            rows[t["trial"]]
            for t in done.trials
            if t["trial"] < number and t["state"] == "complete"
        ]
        for step in sorted(own):
            worse = len(before) >= 5 and 20 * step // TOTAL >= 6
            if worse:
                # Optuna's percentile of an even number is the mean of the middle two.
                median = statistics.median(other[step] for other in before)
                worse = max(v for s, v in own.items() if s <= step) < median
            ended = step == max(own) and trial["state"] == "pruned"
            assert worse == ended, (trial, step)
            pruned += ended
    assert pruned >= 3
    complete = [t for t in done.trials if t["state"] == "complete"]
    assert done.best == max(complete, key=lambda t: t["value"])


def test_a_trial_that_diverges_or_does_not_fit_is_not_the_end(fake, tmp_path):
    fake.at |= {
        (0, 40): training.Diverged("training diverged: the loss is nan. Try a lower"),
        (1, 20): training.Diverged("training diverged: at once. Try a lower"),
        (2, 20): ValueError("batch size 3 is odd"),
    }
    done = search(tmp_path / "s", trials=5)
    assert [t["state"] for t in done.trials[:3]] == ["diverged"] * 2 + ["failed"]
    assert [t["state"] for t in done.trials[3:]] == ["complete"] * 2
    assert [t["step"] for t in done.trials[:3]] == [20, None, None]
    assert done.trials[0]["why"] == "training diverged: the loss is nan"
    assert done.trials[2]["why"] == "batch size 3 is odd"
    assert [s for _, s in numbers(tmp_path / "s")] == ["PRUNED"] * 3 + ["COMPLETE"] * 2
    saved = read_sealed(tmp_path / "s" / "sweep.json")
    assert saved["trials"] == done.trials and saved["best"] == done.best


def test_the_first_trials_mistake_ends_it_and_a_full_disk_always(fake, tmp_path):
    fake.at[0, 20] = ValueError("wrong for all")
    with pytest.raises(ValueError, match="wrong for all"):
        search(tmp_path / "s", trials=3)
    fake.at[1, 20] = training.CheckpointError("the disk is full")
    with pytest.raises(training.CheckpointError):
        search(tmp_path / "s", trials=3)
    done = search(tmp_path / "s", trials=3)
    assert [t["state"] for t in done.trials] == ["complete"] * 3


@pytest.mark.parametrize("name, code", [("SIGTERM", 75), ("SIGINT", 130)])
def test_told_to_stop_it_says_so_and_goes_on(name, code, fake, command, tmp_path):
    line = (
        f"digits --accelerator=cpu --trials=3 --steps={TOTAL} --model.features=8,16 "
        f"--run-dir={tmp_path / 's'}"
    ).split()
    fake.at[1, 40] = training.Stopped("", name)
    result, out, err = command("sweep", *line)
    assert (result, err) == (code, "")
    assert (
        f"stopped by {name} in trial 1, 1 of 3 done; saved: rerun the same command"
        in out
    )
    assert "trial 0 (1 of 3)" in out and "trial 1 (" not in out
    fake.started.clear()
    result, out, err = command("sweep", *line)
    assert (result, err) == (0, "")
    assert fake.started == [(1, 20), (2, 0)]
    assert "1 of 3 trials are done" in out and "trial 2 (3 of 3)" in out


def test_nothing_completed_is_said_and_drawn(fake, command, tmp_path):
    fake.draws = True
    fake.at |= {(n, 20): training.Diverged("too hot. Try") for n in range(2)}
    result, out, err = command(
        *("sweep", "--trials=2", f"--steps={TOTAL}", "--model.features=8,16"),
        *("--accelerator=cpu", f"--run-dir={tmp_path / 's'}"),
    )
    assert result == 1 and "no trial was completed; the last error: too hot" in out
    assert read_sealed(tmp_path / "s" / "sweep.json")["line"] is None
    assert (tmp_path / "s" / "sweep.png").stat().st_size > 5000


def test_another_sweep_or_other_files_in_the_folder_are_refused(fake, tmp_path):
    folder = tmp_path / "s"
    search(folder, trials=1)
    for other in (
        dict(optimizer__learning_rate="1e-4..1e-2"),
        dict(model__layers=[1, 2]),
        dict(seed=1),
        dict(sampler="random"),
    ):
        with pytest.raises(UsageError, match=r"another sweep \(.* was .*, is .*\)"):
            search(folder, trials=1, **other)
    assert len(search(folder, trials=1, log_every=7).trials) == 1  # changes no number
    done = search(folder, trials=1, seed=1, overwrite=True)
    assert not any(fake.started[-1][1:]) and len(done.trials) == 1
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="contains other files"):
            search(tmp_path / "own", overwrite=overwrite)
    (folder / "sweep.json").write_text("{}")
    with pytest.raises(UsageError, match="no format number"):
        search(folder, trials=1)
    write_sealed(folder / "sweep.json", {})
    with pytest.raises(UsageError, match="does not describe a sweep"):
        search(folder, trials=1)


MISTAKES = {
    "nothing to search": ("--steps=5", "nothing to search", "1e-4..1e-2"),
    "unknown preset": ("digit --model.features=8,16", "Did you mean digits?"),
    "a flag without its group": ("--features=8,16", "--model.features"),
    "unknown flag": ("--model.feature=8,16", "--model.features"),
    "unknown flag of its own": ("--trails=3 --model.features=8,16", "--trails"),
    "no trials": ("--trials=0 --model.features=8,16", "trials=0", "1 or more"),
    "sampler": ("--sampler=grid --model.features=8,16", "tpe", "random"),
    "values": ("--model.features=0,16", "model.features=0", "1 or more"),
    "many processes": (
        "--distributed --model.features=8,16",
        "does not support --distributed",
    ),
    "folds": ("--folds=3 --model.features=8,16", "--folds"),
    "data": ("--data=./nowhere --model.features=8,16", "no such file or folder"),
    "range test of a range": (
        "--lr-find --model.features=8,16",
        "--lr-find excludes",
        "leave out the range of model.features",
    ),
    "seeds of a range": ("--seeds=2 --model.features=8,16", "--seeds excludes"),
    "both": ("--seeds=2 --lr-find", "leave out --seeds"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_message(case, command, own_folder):
    line, *words = MISTAKES[case]
    code, out, err = command("sweep", *line.split(), "--accelerator=cpu")
    assert code == 2 and "Traceback" not in out + err
    for word in words:
        assert word in err
    assert not list(own_folder.iterdir())


def test_seeds_are_trained_by_their_own_function(command, monkeypatch):
    asked = []
    seeds = importlib.import_module("experiments.evaluation.seeds")
    monkeypatch.setattr(seeds, "train_seeds", lambda *given: asked.append(given))
    result = command("sweep", "digits-angle", "--seeds=3", "--steps=7")
    assert result == (0, "", "")
    config = override(preset("digits-angle"), {"steps": 7})
    assert asked == [("digits-angle", config, 3)]


def test_mistakes_of_the_function():
    for wrong in (dict(sampler="grid"), dict(pruner="hyperband")):
        with pytest.raises(UsageError, match="must be .* or "):
            sweep("digits", model__features=[8, 16], **wrong)
    with pytest.raises(UsageError, match="did you mean model.features"):
        sweep("digits", model__feature=[8, 16])


def test_without_optuna_it_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = command("sweep", "--model.features=8,16", "--accelerator=cpu")
    assert code == 2 and err.startswith("error: ") and "pip install optuna" in err


def test_the_picture_holds_every_trial():
    values = [0.5, 0.9, 0.91, 0.93, None, 0.92, 0.1]
    states = ["complete"] * 4 + ["diverged", "complete", "pruned"]
    tried = [
        {"trial": n, "state": state, "value": value, "step": 1, "why": ""}
        | {"parameters": {"model.cell": ["lstm", "gru"][n % 2], "model.layers": n + 1}}
        for n, (state, value) in enumerate(zip(states, values, strict=True))
    ]
    space = {
        "model.cell": Choices(("lstm", "gru")),
        "model.layers": Range(1, 7, False, True),
    }
    fig = overview(tried, space, "accuracy", "max", {})
    history, importance, cell, layers = fig.axes
    low, high = history.get_ylim()
    assert 0.5 < low < 0.9 and 0.93 < high < 1  # 0.5 is the fifth of five
    for ax, xs in (
        (history, range(7)),
        (cell, [n % 2 for n in range(7)]),
        (layers, range(1, 8)),
    ):
        points = [
            tuple(p.get_offsets()[0]) for p in ax.collections if len(p.get_offsets())
        ]
        shown = [n for n in range(7) if values[n] is not None]
        assert points == [(xs[n], max(values[n], low)) for n in shown]
    assert [tick.get_text() for tick in cell.get_xticklabels()] == ["lstm", "gru"]
    assert not importance.axison


# --- with real training --------------------------------------------------------------

REAL = [
    "digits",
    *SMALL_FLAGS,
    *("--trials=2", "--eval-every=5", "--model.cell=rnn"),
    "--optimizer.learning-rate=1e-3..1e-1",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished sweep, its folder and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    module = importlib.import_module("experiments.sweep")
    assert module.main([*REAL, f"--run-dir={folder}"]) == 0
    return folder


def trials_of(folder):
    return read_sealed(folder / "sweep.json")["trials"]


def validations(folder):
    rows = [r for r in MetricsLog(folder).rows() if r["split"] == "validation"]
    return [(row["step"], row["accuracy"], row["loss"]) for row in rows]


def test_the_line_of_the_best_makes_its_number_again(whole, command):
    saved = read_sealed(whole / "sweep.json")
    words = shlex.split(saved["line"])
    code, out, err = command("train", *words[3:])
    assert code == 0, err
    again = validations(whole / "best")
    assert again == validations(whole / f"trial-{saved['best']['trial']:03}")
    assert max(a for _, a, _ in again) == saved["best"]["value"]
    everything = {t["trial"]: t["value"] for t in saved["trials"]}
    assert saved["best"]["value"] == max(everything.values())
    assert len(set(everything.values())) > 1


def test_the_test_pictures_choose_nothing(whole):
    for trial in trials_of(whole):
        folder = whole / f"trial-{trial['trial']:03}"
        accuracies = [accuracy for _, accuracy, _ in validations(folder)]
        assert len(accuracies) == 4 and trial["value"] == max(accuracies)
        report = json.loads((folder / "report.json").read_text())
        assert list(report["baselines"]) == ["majority"]  # fits none in a trial


@pytest.mark.slow
def test_interrupted_while_it_trains_it_goes_on_to_the_same(whole, command, tmp_path):
    folder, line = tmp_path / "s", [*REAL, f"--run-dir={tmp_path / 's'}"]
    real, seen = MetricsLog.append, []

    def append(log, row):
        real(log, row)
        seen.append(row["step"])
        if (
            log.path.parent.name == "trial-001"
            and row["step"] == 10
            and folder.exists()
        ):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "append", append)
        code, out, _ = command("sweep", *line)
    assert code == 130 and "rerun the command to resume" in out
    assert numbers(folder) == [(0, "COMPLETE"), (1, "RUNNING")]
    code, out, err = command("sweep", *line)
    assert code == 0, err
    assert trials_of(folder) == trials_of(whole)
    for number in range(2):
        one, two = (f / f"trial-{number:03}" for f in (whole, folder))
        assert validations(one) == validations(two)


@pytest.mark.slow
def test_killed_in_the_shell_it_goes_on_to_the_same(whole, tmp_path):
    folder = tmp_path / "s"
    line = [sys.executable, "-m", "experiments.sweep", *REAL, f"--run-dir={folder}"]
    environment = os.environ | {"JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    options = dict(env=environment, stdout=subprocess.PIPE, text=True)
    child = subprocess.Popen(line, **options)
    log, end = folder / "trial-001" / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and log.stat().st_size):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert numbers(folder) == [(0, "COMPLETE"), (1, "RUNNING")]
    done = subprocess.run(line, timeout=300, **options)
    assert done.returncode == 0 and "trial 1 (2 of 2)" in done.stdout
    assert trials_of(folder) == trials_of(whole)


def test_the_function_returns_what_the_command_writes(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "s")
    options = SMALL | SMALL_MODEL | dict(eval_every=5, model__cell="rnn")
    options["optimizer__learning_rate"] = "1e-3..1e-1"
    done = sweep("digits", trials=2, run_dir=tmp_path / "s", **options)
    saved = read_sealed(tmp_path / "s" / "sweep.json")
    assert done.trials == saved["trials"] == trials_of(whole)
    assert (done.best, done.line) == (saved["best"], saved["line"])
    titles = [ax.get_title("left") for ax in done.figure.axes]
    assert titles == ["By trial", "Importance", SEARCH[0]]
    assert train is not sweep and callable(train)
