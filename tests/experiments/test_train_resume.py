"""A run that is stopped, anyhow and often, ends with the same bits."""

import importlib
import json
import os
import re
import signal
import time

import jax
import numpy as np
import pytest
from selection import slow
from small_runs import SMALL, SMALL_FLAGS, SMALL_MODEL, last_of_each

from experiments import train
from experiments.errors import UsageError
from lstm_jax import data, training

STEADY = "--accelerator=cpu --no-baselines --log-every=10 --eval-every=100000".split()
OPTIONS = SMALL | SMALL_MODEL | dict(test_checkpoint="last", model__dropout=0.2)


def assert_same_run(one, two):
    for a, b in zip(
        jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert one.report["test"] == two.report["test"]
    lines = (two.directory / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == two.history
    keys = [(row["step"], row["split"]) for row in rows]
    assert keys == [(row["step"], row["split"]) for row in one.history]
    assert len(keys) == len(set(keys))
    for old, new in zip(one.history, rows, strict=True):
        for row in (old, new):
            row.pop("images_per_second", None)  # the only number of the clock
        assert old == new


FORTY = OPTIONS | dict(steps=40, eval_every=5, log_every=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train("digits", run_dir=tmp_path_factory.mktemp("whole"), **FORTY)


@pytest.mark.parametrize("name, code", [slow("SIGINT", 130), ("SIGTERM", 75)])
def test_told_to_stop_at_step_15_of_40_and_resumed(
    name, code, whole, tmp_path, monkeypatch, capsys
):
    real = data.train_rows

    def signalled(*arguments, step, **rest):
        if step == 17:  # read while steps 10 to 14 run
            signal.raise_signal(getattr(signal, name))
        return real(*arguments, step=step, **rest)

    main = importlib.import_module("experiments.train").main
    flags = [*SMALL_FLAGS, f"--run-dir={tmp_path / 'cut'}"]
    flags += "--steps=40 --test-checkpoint=last --model.dropout=0.2".split()
    flags = last_of_each([*flags, "--eval-every=5", "--log-every=5"])
    with monkeypatch.context() as patch:
        patch.setattr(data, "train_rows", signalled)
        capsys.readouterr()
        assert main(flags) == code
        out = capsys.readouterr().out
        assert f"stopped by {name} at step 15 of 40; saved" in out
    # Step 15 was to be evaluated: the resumed run owes that, and pays.
    cut = train("digits", run_dir=tmp_path / "cut", **FORTY)
    assert "resuming at step 15 of 40" in capsys.readouterr().out
    assert_same_run(whole, cut)


def test_a_second_interrupt_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    with training.StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop() and stop.signal == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_sigterm_to_the_command_saves_and_stops(start_train, tmp_path):
    folder = tmp_path / "run"
    child = start_train("--steps=100000", f"--run-dir={folder}", *STEADY)
    log = folder / "metrics.jsonl"
    end = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.02)
    child.terminate()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 75, err
    step = int(
        re.search(r"stopped by SIGTERM at step ([\d,]+)", out)[1].replace(",", "")
    )
    saved = [int(p.name) for p in (folder / "checkpoints").iterdir()]
    assert saved == [step]


KILLS = """
import itertools, os, random, shutil, signal, sys, time
from pathlib import Path

# Everything but JAX's backend, so that a child starts quickly.
import jax, matplotlib.figure, optax, orbax.checkpoint, sklearn, tensorflow_datasets
from experiments import experiment, train
from experiments.run import record
from lstm_jax import data, tasks, training
from lstm_jax.training import checkpoint

directory, options = Path(sys.argv[1]), eval(sys.argv[2])
rng, kills = random.Random(int(sys.argv[3])), int(sys.argv[4])
read, write, remove = data.train_rows, checkpoint.manifest.write, shutil.rmtree


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def run(how, at, after):
    def train_rows(*arguments, step, **rest):
        if step == at:
            die()
        time.sleep(0.02)  # time to be killed in, and to write checkpoints
        return read(*arguments, step=step, **rest)

    saved = itertools.count()

    def write_manifest(folder, *rest):
        if how == "save" and next(saved) == after:
            die()  # the arrays are there, under a temporary name
        write(folder, *rest)

    def delete(path, **rest):
        files = [found for found in Path(path).rglob("*") if found.is_file()]
        if how == "delete" and files and next(saved) == after:
            files[0].unlink()
            die()
        remove(path, **rest)

    data.train_rows, checkpoint.manifest.write = train_rows, write_manifest
    checkpoint.shutil.rmtree = delete
    train("digits", run_dir=directory, **options)


def progress():
    folder = directory / "checkpoints"
    steps = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in steps if name.isdecimal()), default=0)


hows = "batch row save time batch row delete time".split()
for how in itertools.islice(itertools.cycle(hows), kills):
    before, log = progress(), directory / "metrics.jsonl"
    size = log.stat().st_size if log.exists() else 0
    ahead, after = rng.randint(3, 12), rng.randint(0, 2)
    at = min(before + (ahead if how == "batch" else 30), options["steps"] - 2)
    child = os.fork()
    if not child:
        sys.stdout = open(os.devnull, "w")
        run(how, at, after)
        os._exit(0)
    if how in ("row", "time"):  # after the first row, or while it starts up
        end = time.monotonic() + (60 if how == "row" else rng.uniform(0, 2))
        while time.monotonic() < end and (
            not log.exists() or log.stat().st_size <= size
        ):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.4))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    print(f"killed by {how} from step {before} on, now {progress()}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_kills_change_no_bit(tmp_path, run_python):
    kills = int(os.environ.get("LSTM_JAX_KILLS", "8"))
    options = OPTIONS | dict(steps=10 * kills, eval_every=3, log_every=3)
    whole = train("digits", run_dir=tmp_path / "whole", **options)
    done = run_python(
        *("-c", KILLS, tmp_path / "killed", repr(options), "0", kills),
        timeout=50 * kills,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == kills
    assert len({line.split()[-1] for line in lines}) > 2, lines  # it went on between
    killed = train("digits", run_dir=tmp_path / "killed", **options)
    left = {path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert all(name.isdecimal() for name in left), left
    assert_same_run(whole, killed)
    again = train("digits", run_dir=tmp_path / "killed", **options)  # from the disk
    assert_same_run(whole, again)


PLATEAU = dict(optimizer__schedule="plateau", optimizer__schedule__warmup_steps=0)
CONSTANT = FORTY | dict(
    optimizer__schedule="constant", optimizer__schedule__warmup_steps=5
)


def test_a_run_of_constant_rate_can_be_extended(tmp_path, capsys):
    whole = train("digits", run_dir=tmp_path / "whole", **CONSTANT)
    half = CONSTANT | dict(run_dir=tmp_path / "half")
    train("digits", **half | dict(steps=20))
    capsys.readouterr()
    longer = train("digits", **half)
    out = capsys.readouterr().out
    assert "extended from 20 to 40 steps: the constant schedule continues" in out
    assert "resuming at step 20 of 40" in out
    assert_same_run(whole, longer)
    with pytest.raises(UsageError, match="a run of 40 steps, more than 30"):
        train("digits", **half | dict(steps=30))


@pytest.mark.parametrize(
    "old, new, words",
    [
        ({}, {}, "the cosine schedule depends on that length.*--init-from="),
        ({"steps": None, "epochs": 1}, {"steps": None, "epochs": 2}, "cosine schedule"),
        (
            dict(optimizer__schedule="constant", optimizer__schedule__warmup_steps=15),
            dict(optimizer__schedule="constant", optimizer__schedule__warmup_steps=15),
            "the warm-up, which was shortened to fit 20 steps,",
        ),
        (
            PLATEAU | dict(eval_every=None),
            PLATEAU | dict(eval_every=None, steps=4000),
            "give --eval-every=80",
        ),
    ],
)
def test_another_length_that_changes_steps_before_is_refused(tmp_path, old, new, words):
    options = FORTY | dict(run_dir=tmp_path / "run", model__dropout=0.0)
    train("digits", **options | dict(steps=20) | old)
    with pytest.raises(UsageError, match=words) as caught:
        train("digits", **options | new)
    assert "\n" not in str(caught.value)
