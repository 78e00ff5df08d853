import errno
import functools
import gc
import os
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import linear_model as linear
import numpy as np
import pytest
from forced_devices import forced_devices

from lstm_jax.training import (
    CheckpointError,
    Checkpoints,
    checkpoint,
    data_mesh,
    init_state,
    make_optimizer,
    make_train_step,
)

TX = make_optimizer("adamw", 0.1, clip=1.0, weight_decay=0.01)


@functools.cache
def first_state(tx):
    return init_state(linear.params(), tx, jax.random.key(5), data_mesh(jax.devices()))


def some_state(step=0, seed=0, tx=TX):
    return first_state(tx)._replace(
        step=jnp.int32(step), params=jax.tree.map(jnp.asarray, linear.params(seed))
    )


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def save_all(directory, metrics, **options):
    """Saves step 10, 20, ... with these metrics; the seed is the step."""
    with Checkpoints(directory, **options) as checkpoints:
        for i, value in enumerate(metrics, start=1):
            named = None if value is None else {checkpoints.monitor: value}
            assert checkpoints.save(10 * i, some_state(10 * i, 10 * i), {}, named)


def damage(directory, step, how):
    """Truncates, or removes, the files that hold arrays or that describe them."""
    files = [p for p in (directory / str(step) / "state").rglob("*") if p.is_file()]
    if how == "metadata":
        files = [p for p in files if p.name == "_METADATA"]
    elif how == "arrays":
        files = [p for p in files if p.parent.name == "d"]
    assert files
    for path in files:
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("kind", ["state", "abstract", "numpy"])
def test_round_trip(tmp_path, kind, impl):
    state = some_state(3)._replace(key=jax.random.key(9, impl=impl))
    template = state if kind == "state" else jax.eval_shape(lambda: state)
    if kind == "numpy":
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state.params)
        template = template._replace(params=blank)
    with Checkpoints(tmp_path / "new" / "run") as checkpoints:
        checkpoints.save(3, state, {"seed": 0, "sizes": [1, 2]}, {"accuracy": 0.5})
        assert_same(checkpoints.restore(template), state)
        assert checkpoints.config() == {"seed": 0, "sizes": [1, 2]}
    with Checkpoints(tmp_path / "new" / "run") as checkpoints:
        got, step, notes = checkpoints.restore_latest(template)
        assert (step, notes) == (3, [])
        assert_same(got, state)
        assert isinstance(got.params["w"], np.ndarray)


def test_bfloat16_round_trip(tmp_path):
    state = {"w": jnp.arange(5, dtype=jnp.bfloat16)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        assert_same(checkpoints.restore(state), state)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_state_may_be_donated_right_after_the_save(tmp_path, parallel):
    step = make_train_step(linear.loss_fn, TX, data_mesh(jax.devices()), parallel)
    state = step.put_state(some_state())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, step.get_state(state), {})
        for number in range(3):
            state, _ = step(state, linear.batch_at(number))
        assert_same(checkpoints.restore(some_state(), 0), some_state())


@pytest.mark.parametrize(
    "metrics, options, kept, best",
    [
        ([0.1, 0.9, 0.2, 0.3, 0.4], {}, [20, 40, 50], 20),
        ([0.1, 0.9, 0.2, 0.3, 0.4], {"keep": 1}, [20, 50], 20),
        ([5, 1, 3, 2, 4], {"mode": "min", "monitor": "mae"}, [20, 40, 50], 20),
        ([0.1, 0.5, 0.5, 0.5, 0.2], {}, [40, 50], 40),  # the last of equals
        ([3, 1, 1, 1, 2], {"mode": "min"}, [40, 50], 40),
        ([None, 0.7, None, None, None], {}, [20, 40, 50], 20),  # not evaluated there
        ([None, None, None, 0.1, None], {}, [40, 50], 40),
        ([None, None, None], {}, [20, 30], 30),  # none evaluated: the latest
        ([float("nan"), 0.2, float("nan"), 0.1], {}, [20, 30, 40], 20),
        ([float("nan")], {"mode": "min"}, [10], 10),
        ([], {}, [], None),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path, metrics, options, kept, best):
    with Checkpoints(tmp_path, **options) as checkpoints:
        for i, value in enumerate(metrics, start=1):
            named = None if value is None else {checkpoints.monitor: value}
            checkpoints.save(10 * i, {"w": np.full(3, 10 * i, "f")}, {}, named)
        assert checkpoints.best_step() == best
    with Checkpoints(tmp_path, **options) as checkpoints:
        assert checkpoints.latest_step() == (kept[-1] if kept else None)
        assert checkpoints.best_step() == best
        for step in kept:
            got = checkpoints.restore({"w": np.zeros(3, "f")}, step)
            assert got["w"].tolist() == [step] * 3
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == kept


@pytest.mark.parametrize(
    "losses, best",
    [
        ([0.9, 0.5, 0.7, 0.6], 20),  # of equal accuracies the lowest loss
        ([0.5, 0.5, 0.7, 0.5], 40),  # then the later step
        ([float("nan"), 0.5, float("nan"), 0.6], 20),
        ([0.5, None, 0.5, None], 30),  # a metric that is not there breaks no tie
    ],
)
def test_ties_go_to_the_lower_loss_then_to_the_later_step(tmp_path, losses, best):
    """An accuracy on few examples is often the same; the first of equals is the least
    trained."""
    with Checkpoints(tmp_path, keep=4) as checkpoints:
        for i, loss in enumerate(losses, start=1):
            metrics = {"accuracy": 0.9} | ({} if loss is None else {"loss": loss})
            checkpoints.save(10 * i, {"w": np.zeros(3, "f")}, {}, metrics)
        checkpoints.save(50, {"w": np.zeros(3, "f")}, {}, {"accuracy": 0.8, "loss": 0})
        assert checkpoints.best_step() == best


def test_a_step_is_saved_once_unless_forced(tmp_path):
    state = {"w": np.zeros(2, "f")}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(5, {"w": np.ones(2, "f")}, {})
        assert not checkpoints.save(5, state, {})
        assert checkpoints.restore(state)["w"].tolist() == [1, 1]
        assert checkpoints.save(5, state, {}, {"accuracy": 1}, force=True)
        assert checkpoints.restore(state)["w"].tolist() == [0, 0]
        assert checkpoints.save(3, state, {})  # an earlier step


@pytest.mark.parametrize("how", ["gone", "arrays", "metadata", "all"])
def test_a_corrupt_checkpoint_is_passed_over(tmp_path, how):
    save_all(tmp_path, [0.1, 0.3, 0.2])
    damage(tmp_path, 30, how)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="checkpoint 30 .* is corrupt"):
            checkpoints.restore(some_state())
        state, step, notes = checkpoints.restore_latest(some_state())
        assert step == 20
        assert_same(state, some_state(20, 20))
        (note,) = notes
        assert "checkpoint 30" in note and "moved to corrupt-30" in note
        assert checkpoints.latest_step() == 20
        assert checkpoints.save(30, some_state(30, 30), {}, {"accuracy": 0.9})
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(some_state()), some_state(30, 30))
        assert checkpoints.best_step() == 30
    assert (tmp_path / "corrupt-30").is_dir()


def test_a_read_that_fails_leaves_no_other_read_behind(tmp_path, monkeypatch, caplog):
    """Those of other arrays would find their event loop closed, and print that."""
    state = {str(k): jnp.full((8,), k, jnp.float32) for k in range(100)}
    state |= {f"numpy {k}": np.full(8, k, np.float32) for k in range(100)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    damage(tmp_path, 1, "arrays")
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with Checkpoints(tmp_path) as checkpoints:
        for _ in range(5):  # whether one is left behind is a matter of threads
            with pytest.raises(CheckpointError, match="checkpoint 1 .* is corrupt"):
                checkpoints.restore(state)
        time.sleep(0.2)  # for the threads of reads that were left behind
    gc.collect()  # tasks whose errors nobody asked for log them when they are deleted
    assert not printed
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_all_corrupt(tmp_path):
    save_all(tmp_path, [0.1, 0.3])
    damage(tmp_path, 10, "arrays")
    damage(tmp_path, 20, "gone")
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="no checkpoint in .* can be read"):
            checkpoints.restore_latest(some_state())


def test_nothing_saved(tmp_path):
    with Checkpoints(tmp_path / "typo") as checkpoints:
        assert checkpoints.restore_latest(some_state()) == (None, None, [])
        assert checkpoints.latest_step() is None
        with pytest.raises(CheckpointError, match="there is no checkpoint in .*typo"):
            checkpoints.restore(some_state())
        with pytest.raises(CheckpointError, match="there is no checkpoint in .*typo"):
            checkpoints.config()
    assert not (tmp_path / "typo").exists()


def test_a_step_that_is_not_there(tmp_path):
    save_all(tmp_path, [0.1, 0.3])
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="of step 7 in .*there are 10, 20"):
            checkpoints.restore(some_state(), 7)


def test_a_template_that_does_not_fit(tmp_path):
    save_all(tmp_path, [0.1])
    state = some_state()
    wide = state._replace(params=state.params | {"w": np.zeros((5, 4))})
    more = state._replace(params=state.params | {"v": np.zeros(2)})
    less = state._replace(params={"w": state.params["w"]})
    other = some_state(tx=make_optimizer("sgd", 0.1))
    with Checkpoints(tmp_path) as checkpoints:
        for template, words in [
            (wide, r"params/w has shape \(5, 3\), but this model needs \(5, 4\)"),
            (more, r"it has no params/v, which this model needs with shape \(2,\)"),
            (less, r"this model has no params/b \(shape \(3,\)\)"),
            (other, r"does not fit: it has no opt_state/0/trace/b"),
        ]:
            for read in (checkpoints.restore, checkpoints.restore_latest):
                with pytest.raises(CheckpointError, match=words):
                    read(template)
        assert checkpoints.latest_step() == 10  # a misfit is not moved aside


def test_metrics_without_the_monitored_one(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="'accuracy' is not among loss, mae"):
            checkpoints.save(1, some_state(), {}, {"mae": 1, "loss": 2})


@pytest.mark.parametrize("options", [{"mode": "top"}, {"keep": 0}])
def test_options_out_of_range(tmp_path, options):
    with pytest.raises(ValueError, match="want"):
        Checkpoints(tmp_path, **options)


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: free"),
        (ValueError("RESOURCE_EXHAUSTED: write: No space left on device"), "disk is"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_a_disk_that_refuses(tmp_path, monkeypatch, error, words):
    save_all(tmp_path, [0.1])

    def fail(*args, **kwargs):
        raise error

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._manager(), "save", fail)
        with pytest.raises(CheckpointError, match=words) as caught:
            checkpoints.save(20, some_state(), {})
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path) in str(caught.value)


def test_a_failure_in_the_background_is_told_on_close(tmp_path, monkeypatch):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="the disk is full"):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, some_state(), {})
            manager = checkpoints._manager()
            manager.wait_until_finished()
            monkeypatch.setattr(manager, "wait_until_finished", fail)
    with pytest.raises(KeyError):  # what went wrong first is what is shown
        with Checkpoints(tmp_path) as checkpoints:
            manager = checkpoints._manager()
            monkeypatch.setattr(manager, "wait_until_finished", fail)
            raise KeyError


def test_unfinished_checkpoints_are_removed(tmp_path):
    save_all(tmp_path, [0.1])
    shutil.copytree(tmp_path / "10", tmp_path / "20.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path) as checkpoints:  # a reader leaves what is being written
        assert checkpoints.latest_step() == 10
        assert (tmp_path / "20.orbax-checkpoint-tmp").exists()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(30, some_state(30, 30), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "30"]


SAVE = """
import sys
import jax
sys.path[:0] = sys.argv[2:]
import test_training_checkpoint as test
assert len(jax.devices()) == 8
test.save_all(test.os.path.abspath(sys.argv[1]), [0.5])
"""


def test_saved_on_eight_devices_restored_on_any(tmp_path):
    env = os.environ | forced_devices(8) | {"JAX_PLATFORMS": "cpu"}
    here = os.path.dirname(__file__)
    folders = here, os.path.dirname(here)
    command = [sys.executable, "-c", SAVE, str(tmp_path), *folders]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(some_state()), some_state(10, 10))


def flip(path):
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_of(directory, step):
    folder = directory / str(step)
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_a_flipped_bit_in_any_file_is_named(tmp_path):
    save_all(tmp_path / "whole", [0.1, 0.3])
    names = [
        p.relative_to(tmp_path / "whole") for p in files_of(tmp_path / "whole", 20)
    ]
    assert any(name.parts[1:3] == ("state", "d") for name in names)
    for name in names:
        if name.name in ("commit_success.txt", "_CHECKPOINT_METADATA"):
            continue  # of Orbax, which writes them after the manifest
        directory = tmp_path / "copy"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", directory)
        flip(directory / name)
        file = "/".join(name.parts[1:])
        with Checkpoints(directory) as checkpoints:
            with pytest.raises(CheckpointError, match=f"20 in .* corrupt .*{file}"):
                checkpoints.restore(some_state())
            state, step, (note,) = checkpoints.restore_latest(some_state())
        assert step == 10 and file in note and "went back to step 10" in note
        assert_same(state, some_state(10, 10))


def test_a_renamed_checkpoint_is_refused(tmp_path):
    save_all(tmp_path, [0.1, 0.3])
    (tmp_path / "20").rename(tmp_path / "999")
    with Checkpoints(tmp_path) as checkpoints:
        state, step, (note,) = checkpoints.restore_latest(some_state())
    assert step == 10
    assert "checkpoint 999" in note and "saved at step 20" in note


@pytest.mark.parametrize("content", ["{{{", "[]", "null", "[" * 200_000, "\0"])
@pytest.mark.parametrize(
    "name", ["manifest.json", "metrics/metrics", "_CHECKPOINT_METADATA"]
)
def test_damaged_metadata_is_one_line(tmp_path, name, content):
    save_all(tmp_path, [0.1, 0.3, 0.2])
    (tmp_path / "20" / name).write_text(content)
    with Checkpoints(tmp_path) as checkpoints:
        state, step, (note,) = checkpoints.restore_latest(some_state())
        assert step == 30 and f"checkpoint 20 in {tmp_path} is corrupt ({name}" in note
        assert "went back" not in note and "\n" not in note
        checkpoints.save(40, some_state(40), {}, {"accuracy": 0.5})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step() == 40


def test_all_damaged_stays_refused(tmp_path):
    save_all(tmp_path, [0.1, 0.3])
    for step in (10, 20):
        (tmp_path / str(step) / "manifest.json").unlink()
    for _ in range(2):
        with Checkpoints(tmp_path) as checkpoints:
            with pytest.raises(CheckpointError, match="no checkpoint .*10.*; .*20"):
                checkpoints.restore_latest(some_state())


def test_a_kill_while_a_checkpoint_is_deleted_leaves_no_part_of_it(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)
        save_all(tmp_path, [0.1, 0.3, 0.2, 0.1])
    left = files_of(tmp_path / ".deleted", 10)
    assert left  # it was renamed before a file of it is deleted
    left[0].unlink()
    with Checkpoints(tmp_path) as checkpoints:
        state, step, notes = checkpoints.restore_latest(some_state())
        assert (step, notes) == (40, [])
        checkpoints.save(50, some_state(50), {}, {"accuracy": 0.1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "40", "50"]


def test_files_are_kept_with_a_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(10, some_state(), {}, files={"a.jsonl": b"1\n"})
        assert checkpoints.file("a.jsonl") == b"1\n"
    (tmp_path / "10" / "a.jsonl").write_bytes(b"2\n")
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="a.jsonl does not match"):
            checkpoints.file("a.jsonl")
