"""Damage to any file of a run ends in equal bits, or in one line that names it.

Each case restarts the run and loads it for prediction, as the commands do, but for the
training itself: from equal states on it gives equal bits (test_train_resume.py).
"""

import collections
import dataclasses
import random
import shutil

import jax
import numpy as np
import pytest
from selection import slow
from small_runs import SMALL, SMALL_MODEL

from experiments import train
from experiments.choices import to_dict
from experiments.config import preset
from experiments.errors import UsageError
from experiments.experiment import Experiment
from experiments.run import setup
from experiments.run.callbacks import resume
from experiments.run.folder import begin, directory_of
from experiments.run.load_run import checkpoints_of, load_run
from experiments.run.lock import locked
from experiments.run.record import MetricsLog, RunError
from experiments.run.sealed import read_sealed, write_sealed
from experiments.sweep import SUMMARY, _check_same
from lstm_jax import training

OPTIONS = SMALL | SMALL_MODEL | dict(eval_every=5, log_every=5, model__dropout=0.2)
OPTIONS |= dict(test_checkpoint="best", optimizer="sgd")
TOLD = UsageError, training.CheckpointError, RunError
KINDS = "flip", "truncate", "swap", "delete", "rename"


@dataclasses.dataclass
class Whole:
    """A finished run, and what it has at each of its checkpoints."""

    run: object
    experiment: Experiment
    first: training.TrainState
    states: dict
    rows: list


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = train("digits", run_dir=tmp_path_factory.mktemp("whole") / "run", **OPTIONS)
    experiment = Experiment(run.config)
    params, key, _ = setup.first_weights(experiment, run.config.seed)
    mesh = training.data_mesh(jax.devices()[:1])
    first = training.init_state(params, experiment.optimizer, key, mesh)
    with checkpoints_of(run.directory, experiment.task) as checkpoints:
        steps = checkpoints._steps()
        states = {step: checkpoints.restore(first, step) for step in steps}
    best = run.report["train"]["checkpoint"]
    assert steps == [best, 15, 20] and best < 15
    return Whole(run, experiment, first, states, MetricsLog(run.directory).rows())


def equal(one, two):
    """Whether two trees have the same bits."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(bytes(bits(a)) == bytes(bits(b)) for a, b in pairs)


def bits(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.ascontiguousarray(leaf)


def damage(directory, rng, kinds=KINDS):
    """Damages one thing in a run's folder; returns what was done."""
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    groups = collections.defaultdict(list)
    for path in files:
        inside = "checkpoints" in path.relative_to(directory).parts
        groups["checkpoints" if inside else path.name].append(path)
    often = ["config.json", "metrics.jsonl", "report.json", *["checkpoints"] * 7]
    group = rng.choice([*(often if len(groups) > 1 else ()), *groups])
    path, kind = rng.choice(groups[group]), rng.choice(kinds)
    if group == "checkpoints" and kind == "rename" and rng.random() < 0.5:
        path = rng.choice(sorted((directory / "checkpoints").iterdir()))
        return rename(path, path.with_name(rng.choice(["999", "7", "020", "x"])))
    content = path.read_bytes()
    if kind == "rename":
        return rename(path, path.with_name(path.name + "~"))
    if kind == "delete" or not content:
        path.unlink()
        return f"delete {path}"
    if kind == "swap":
        other = rng.choice([p for p in files if p.read_bytes() != content])
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return f"swap {path} {other}"
    at = rng.randrange(len(content))
    if kind == "truncate":
        path.write_bytes(content[:at])
        return f"truncate {path} to {at}"
    bit = 1 << rng.randrange(8)
    path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
    return f"flip {path} at {at}"


def rename(path, to):
    path.rename(to)
    return f"rename {path} to {to.name}"


def restart(directory, whole):
    """As `train`, up to its loop: where the run resumes, and what would be tested."""
    config = dataclasses.replace(whole.run.config, run_dir=str(directory))
    experiment = whole.experiment
    directory_of("digits", config)
    with locked(directory), checkpoints_of(directory, experiment.task) as checkpoints:
        begin(directory, "digits", config, experiment.spec)
        log = MetricsLog(directory)
        resumed = resume(experiment, checkpoints, log, whole.first)
        tested = None
        if resumed.step == experiment.steps:
            tested = checkpoints.restore(whole.first, checkpoints.best_step())
    assert log.rows() == resumed.rows
    return resumed, tested


def told(error, directory):
    """Whether a message is one line that names a file or a folder of the run."""
    return "\n" not in str(error) and str(directory) in str(error)


@pytest.mark.parametrize("count, seed", [(20, 0), slow(200, 1)])
def test_damage_ends_in_equal_bits_or_in_one_line(
    count, seed, whole, tmp_path, monkeypatch
):
    shapes = whole.experiment.state_shapes()
    monkeypatch.setattr(Experiment, "state_shapes", lambda self: shapes)
    ends = collections.Counter()
    for number in range(count):
        for ending, command in (("predict", load_run), ("train", restart)):
            directory = tmp_path / "run"
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(whole.run.directory, directory)
            case = f"{number}: {damage(directory, random.Random(f'{seed}{number}'))}"
            try:
                if ending == "predict":
                    _, params = command(directory)
                    assert equal(params, whole.run.params), case
                    ends["predict: equal"] += 1
                    continue
                resumed, tested = command(directory, whole)
            except TOLD as error:
                assert told(error, directory), f"{case}: {error}"
                ends[f"{ending}: refused"] += 1
                continue
            step = resumed.step
            assert equal(resumed.state, whole.states.get(step, whole.first)), case
            wanted = [row for row in whole.rows if row["step"] <= step]
            assert resumed.rows == (wanted if step else []), case
            assert not resumed.owed, case
            if tested is not None:
                weights = training.weights(tested)
                assert equal(weights, whole.run.params), case
            if step < 20 and "/checkpoints/20 to" not in case:  # it has another name
                assert any("went back" in note for note in resumed.notes), case
            ends["train: equal" if step == 20 else "train: earlier checkpoint"] += 1
    print(dict(sorted(ends.items())))
    assert len(ends) == 5, ends


@pytest.mark.parametrize("count, seed", [(40, 0), slow(200, 1)])
@pytest.mark.parametrize("name", ["folds.json", "seeds.json", "sweep.json"])
def test_a_damaged_summary_is_equal_or_refused_in_one_line(name, count, seed, tmp_path):
    values = dict(preset="digits", config=to_dict(preset("digits")), search={})
    values |= dict(sampler="tpe", pruner="median", test={"loss": [0.25, 0.5]})
    path, ends = tmp_path / "run" / name, collections.Counter()
    for number in range(count):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        write_sealed(path, values)
        case = damage(path.parent, random.Random(f"{seed}{number}"), KINDS[:2])
        try:
            assert read_sealed(path) == values, case
            ends["equal"] += 1
        except UsageError as error:
            assert told(error, path), f"{case}: {error}"
            ends["refused"] += 1
            if name == SUMMARY:
                with pytest.raises(UsageError) as caught:
                    _check_same(path.parent, values, overwrite=False)
                assert told(caught.value, path), case
    print(dict(ends))
    assert ends["refused"] > count // 2


@pytest.mark.parametrize("file", ["metrics.jsonl", slow("checkpoints/20/state")])
def test_a_restarted_run_ends_with_the_same_bits(whole, tmp_path, file, capsys):
    directory = tmp_path / "run"
    shutil.copytree(whole.run.directory, directory)
    path = directory / file
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_bytes(path.read_bytes()[:100])
    again = train("digits", run_dir=directory, **OPTIONS)
    out = capsys.readouterr().out
    assert "was damaged: restored" in out or "went back to step 15" in out
    assert equal(again.params, whole.run.params)
    assert again.report["test"] == whole.run.report["test"]


def test_the_best_checkpoint_is_not_replaced_in_silence(whole, tmp_path):
    best, directory = min(whole.states), tmp_path / "run"
    shutil.copytree(whole.run.directory, directory)
    shutil.rmtree(directory / "checkpoints" / str(best))
    with pytest.raises(UsageError, match=f"ended with checkpoint {best}, which is"):
        load_run(directory)
    lost = f"checkpoint {best} .* the best on validation"
    for command in (lambda: restart(directory, whole), lambda: load_run(directory)):
        with pytest.raises(UsageError, match=lost):
            command()
