import itertools
import time

import jax
import jax.numpy as jnp
import linear_model as linear
import numpy as np
import pytest

from lstm_jax.training import (
    Checkpoints,
    Diverged,
    LambdaCallback,
    data_mesh,
    fit,
    init_state,
    make_optimizer,
    make_schedule,
    make_train_step,
)

SCHEDULE = make_schedule("cosine", 0.1, 40, warmup_steps=5)


def start(parallel="jit", loss_fn=linear.loss_fn, schedule=SCHEDULE):
    tx = make_optimizer("adamw", schedule, clip=0.5, weight_decay=0.01)
    mesh = data_mesh(jax.devices())
    state = init_state(linear.params(), tx, jax.random.key(3), mesh)
    return state, make_train_step(loss_fn, tx, mesh, parallel)


def saving(function):
    return [LambdaCallback(on_save=function)]


def logging(rows):
    return [LambdaCallback(on_log=rows.append)]


def assert_same_bits(got, want):
    got, want = (s._replace(key=jax.random.key_data(s.key)) for s in (got, want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_resumed_run_gives_the_same_bits(tmp_path, parallel):
    state, step = start(parallel)
    whole = fit(state, step, steps=40, batch_at=linear.batch_at)
    assert int(whole.step) == 40

    with Checkpoints(tmp_path) as checkpoints:
        fit(
            state,
            step,
            steps=17,
            batch_at=linear.batch_at,
            callbacks=saving(lambda n, s, means: checkpoints.save(n, s, {}, means)),
        )
    state, step = start(parallel)
    with Checkpoints(tmp_path) as checkpoints:
        half, at, _ = checkpoints.restore_latest(state)
    assert at == int(half.step) == 17
    resumed = fit(half, step, steps=40, batch_at=linear.batch_at)
    assert_same_bits(resumed, whole)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_rows_saves_and_batches(parallel):
    state, step = start(parallel)
    rows, saves, asked, losses = [], [], [], []

    def batch_at(number):
        asked.append(number)
        return linear.batch_at(number)

    def evaluate(params):
        return {"mae": jnp.abs(params["w"]).mean()}

    last = fit(
        state,
        step,
        steps=10,
        batch_at=batch_at,
        evaluate=evaluate,
        eval_every=4,
        log_every=3,
        save_every=5,
        schedule=SCHEDULE,
        callbacks=saving(lambda *args: saves.append(args)) + logging(rows),
    )
    assert asked == list(range(10))
    train = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in train] == [3, 6, 9, 10]
    valid = [row for row in rows if row["split"] == "validation"]
    assert [row["step"] for row in valid] == [4, 8, 10]
    assert [n for n, _, _ in saves] == [4, 5, 8, 10]
    assert [metrics for _, _, metrics in saves] == [
        {"mae": valid[0]["mae"]},
        None,
        {"mae": valid[1]["mae"]},
        {"mae": valid[2]["mae"]},
    ]
    np.testing.assert_allclose(valid[2]["mae"], np.abs(last.params["w"]).mean(), 1e-6)

    plain, state = state, step.put_state(state)
    for number in range(10):
        state, metrics = step(state, linear.batch_at(number))
        losses.append(jax.device_get(metrics))
    assert_same_bits(step.get_state(state), last)
    for row, window in zip(train, ([0, 3], [3, 6], [6, 9], [9, 10]), strict=True):
        parts = losses[slice(*window)]
        for name in ("loss", "largest", "gradient_norm"):
            total, count = np.sum([m[name] for m in parts], axis=0)
            np.testing.assert_allclose(row[name], total / count, rtol=1e-6)
        ((change,), (norm,)) = np.sum([m["update_ratio"] for m in parts], axis=0)
        np.testing.assert_allclose(row["update_ratio/w"], change / norm, rtol=1e-6)
        assert row["learning_rate"] == float(SCHEDULE(row["step"] - 1))
        assert row["images_per_second"] > 0
        assert all(type(value) in (int, float, str) for value in row.values())
    # a finished run has nothing to do
    assert fit(last, step, steps=10, batch_at=None) is last
    assert not plain.params["w"].is_deleted()


def test_progress_is_told_after_compilation_and_as_steps_complete():
    state, step = start("jit")
    told, given = [], []

    def batch_at(number):
        given.append(number)
        return linear.batch_at(number)

    def on_progress(number):
        told.append(number)
        assert number < len(given) or number == 1  # of steps with their batches

    callbacks = [LambdaCallback(on_progress=on_progress)]
    fit(state, step, steps=12, batch_at=batch_at, callbacks=callbacks)
    assert told[:3] == [0, 1, 2] and told == sorted(set(told)) and told[-1] < 12


def test_the_rate_leaves_out_compilation_and_evaluation():
    def batch_at(number):
        time.sleep(0.02)
        return linear.batch_at(number)

    def evaluate(params):
        time.sleep(0.5)
        return {}

    state, step = start()
    rows = []
    fit(
        state,
        step,
        steps=11,
        batch_at=batch_at,
        evaluate=evaluate,
        eval_every=5,
        log_every=11,
        callbacks=logging(rows),
    )
    # 11 steps of 16 images, 20 ms and a little each, the first read before the clock
    # starts: 880/s less overhead; with the two evaluations it would be below 147/s.
    assert 150 < rows[-2]["images_per_second"] <= 900


def test_stop():
    state, step = start()
    saves, rows, calls = [], [], itertools.count(1)
    last = fit(
        state,
        step,
        steps=40,
        batch_at=linear.batch_at,
        evaluate=lambda params: {"mae": 1.0},
        should_stop=lambda: next(calls) == 7,
        callbacks=logging(rows)
        + saving(lambda n, state, means: saves.append((n, int(state.step), means))),
    )
    assert int(last.step) == 7
    assert saves == [(7, 7, None)]
    assert [(row["step"], row["split"]) for row in rows] == [(7, "train")]


def poisoned(bad, at):
    """Batches whose targets turn to `bad` at one step."""

    def batch_at(number):
        batch = linear.batch_at(number)
        if number == at:
            batch["targets"][0, 0] = bad
        return batch

    return batch_at


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run(bad, parallel):
    state, step = start(parallel)
    saves = []
    with pytest.raises(Diverged) as caught:
        fit(
            state,
            step,
            steps=40,
            batch_at=poisoned(float(bad), 12),  # makes step 13
            log_every=10,
            callbacks=saving(lambda n, *_: saves.append(n)),
            save_every=5,
        )
    for words in (
        f"the loss is {bad} at step 13 (it was ",
        "--optimizer.learning-rate",
        "--optimizer.clip",
        "--precision=float32",
        "last good checkpoint is kept",
    ):
        assert words in str(caught.value)
    assert saves == [5, 10]


def test_weights_that_are_not_finite_are_not_saved():
    # The loss of the last step is finite; its update is not.
    state, step = start(schedule=lambda n: jnp.where(n == 9, jnp.nan, 0.1))
    saves = []
    with pytest.raises(Diverged, match="weights are not finite after step 10, but"):
        fit(
            state,
            step,
            steps=10,
            batch_at=linear.batch_at,
            callbacks=saving(lambda n, *_: saves.append(n)),
            save_every=9,
        )
    assert saves == [9]


@pytest.mark.parametrize("name", ["eval_every", "log_every", "save_every"])
def test_intervals_out_of_range(name):
    state, step = start()
    with pytest.raises(ValueError, match=f"{name}: got 0, want 1 or more"):
        fit(state, step, steps=1, batch_at=linear.batch_at, **{name: 0})
