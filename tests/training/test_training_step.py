"""Run with 1 device and, in a second process, with 8."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import linear_model as linear
import numpy as np
import pytest
from forced_devices import forced_devices

from lstm_jax.training import (
    data_mesh,
    init_state,
    make_eval_step,
    make_optimizer,
    make_schedule,
    make_train_step,
)

MODES = ["jit", "shard_map", "pmap"]
RATE = 0.1


def start(parallel, devices=None, loss_fn=linear.loss_fn, tx=None):
    mesh = data_mesh(devices or jax.devices())
    tx = tx or make_optimizer("sgd", make_schedule("constant", RATE, 9), momentum=0.0)
    step = make_train_step(loss_fn, tx, mesh, parallel)
    state = init_state(linear.params(), tx, jax.random.key(7), mesh)
    return step, step.put_state(state), state


def reference(params, key, number, batch):
    """One step of gradient descent in NumPy float64, with loops over examples."""
    w, b = params["w"].astype("d"), params["b"].astype("d")
    gw, gb, total, largest = np.zeros_like(w), np.zeros_like(b), 0.0, 0.0
    step_key = jax.random.fold_in(key, number)
    for i, mask in enumerate(batch["mask"]):
        draw = jax.random.normal(jax.random.fold_in(step_key, i), (linear.FEATURES,))
        x = batch["inputs"][i] + 0.1 * np.asarray(draw, "d")
        error = x @ w + b - batch["targets"][i]
        total += mask * (error**2).sum()
        largest += mask * (error**2).max()
        gw += mask * 2 * np.outer(x, error)
        gb += mask * 2 * error
    count = batch["mask"].sum()
    gw, gb = gw / count, gb / count
    norm = np.sqrt((gw**2).sum() + (gb**2).sum())
    new = {"w": w - RATE * gw, "b": b - RATE * gb}
    return new, {"loss": total, "largest": largest}, count, norm


@pytest.mark.parametrize("parallel", MODES)
def test_step_equals_the_reference(parallel):
    step, state, _ = start(parallel)
    want = linear.params()
    for number in range(3):
        batch = linear.batch_at(number)
        state, metrics = step(state, batch)
        before = want
        want, sums, count, norm = reference(want, jax.random.key(7), number, batch)
        assert set(metrics) == {"loss", "largest", "gradient_norm", "update_ratio"}
        for name, total in sums.items():
            # float32 sums of 16 examples
            np.testing.assert_allclose(metrics[name][0], total, rtol=2e-6)
            assert float(metrics[name][1]) == count
        np.testing.assert_allclose(metrics["gradient_norm"][0], norm, rtol=2e-6)
        assert float(metrics["gradient_norm"][1]) == 1
        matrices = want["w"] - before["w"], before["w"]  # of the bias there is no ratio
        wanted = [[np.sqrt((x**2).sum())] for x in matrices]
        np.testing.assert_allclose(metrics["update_ratio"], wanted, rtol=2e-5)
        plain = step.get_state(state)
        assert int(plain.step) == number + 1
        for name, leaf in want.items():
            np.testing.assert_allclose(plain.params[name], leaf, rtol=1e-5, atol=1e-6)


def test_parts_of_a_batch_add_up():
    tx = make_optimizer("sgd", make_schedule("constant", RATE, 9), momentum=0.0)
    step = make_train_step(
        linear.loss_fn, tx, data_mesh(jax.devices()), grad_accum_steps=2
    )
    key, batch, before = jax.random.key(7), linear.batch_at(0), linear.params()
    state = init_state(before, tx, key, data_mesh(jax.devices()))
    state, metrics = step(step.put_state(state), batch)
    want, sums, count, norm = reference(before, key, 0, batch)
    for name, total in sums.items():
        # float32 sums of 16 examples
        np.testing.assert_allclose(metrics[name], (total, count), rtol=2e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], (norm, 1), rtol=2e-6)
    for name, leaf in want.items():
        np.testing.assert_allclose(state.params[name], leaf, rtol=1e-5, atol=1e-6)


def test_modes_and_device_counts_agree():
    tx = make_optimizer("adamw", make_schedule("constant", RATE, 9), clip=0.5)
    ends = []
    for parallel in MODES:
        for devices in (jax.devices(), jax.devices()[:1]):
            step, state, _ = start(parallel, devices, tx=tx)
            for number in range(5):
                batch = linear.batch_at(number)
                state, _ = step(state, batch)
            plain = step.get_state(state)
            assert all(x.is_fully_replicated for x in jax.tree.leaves(plain))
            plain = plain._replace(key=jax.random.key_data(plain.key))
            ends.append(jax.device_get(plain))
    for other in ends[1:]:
        for a, b in zip(*map(jax.tree.leaves, (other, ends[0])), strict=True):
            # float32 sums in another order, five steps of adam
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parallel", MODES)
def test_second_step_compiles_nothing(parallel):
    traces, compiled = [], []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compiled.append(event)

    def loss_fn(params, batch, keys):
        traces.append(batch["mask"].shape)
        return linear.loss_fn(params, batch, keys)

    step, state, _ = start(parallel, loss_fn=loss_fn)
    state, _ = step(state, linear.batch_at(0))
    first = len(traces)
    jax.monitoring.register_event_duration_secs_listener(listen)
    for number in (1, 2):
        state, metrics = step(state, linear.batch_at(number))
    jax.block_until_ready((state, metrics))
    assert len(traces) == first == 1
    assert compiled == []
    jax.jit(lambda x: x + 1.5)(jnp.ones(3))
    assert compiled != []  # the listener does listen


@pytest.mark.parametrize("parallel", MODES)
def test_the_state_is_donated_and_what_it_came_from_is_not(parallel):
    params = jax.tree.map(jnp.asarray, linear.params())
    mesh = data_mesh(jax.devices())
    tx = make_optimizer("adam", 0.1)
    step = make_train_step(linear.loss_fn, tx, mesh, parallel)
    key = jax.random.key(0)
    plain = init_state(params, tx, key, mesh)
    state = step.put_state(plain)
    step(state, linear.batch_at(0))
    assert state.params["w"].is_deleted()
    for tree in (params, plain.params):
        np.testing.assert_array_equal(tree["w"], linear.params()["w"])
    assert jax.random.uniform(key) == jax.random.uniform(plain.key)


@pytest.mark.parametrize("parallel", MODES)
def test_a_batch_without_examples_changes_nothing(parallel):
    step, state, plain = start(parallel)
    batch = linear.batch_at(0) | {"mask": np.zeros(16, np.float32)}
    state, metrics = step(state, batch)
    np.testing.assert_array_equal(step.get_state(state).params["w"], plain.params["w"])
    assert float(metrics["loss"][1]) == 0


@pytest.mark.parametrize("parallel", MODES)
def test_a_batch_that_does_not_split_is_refused(parallel):
    if len(jax.devices()) == 1:
        pytest.skip("every batch fits one device")
    step, _, _ = start(parallel)
    with pytest.raises(ValueError, match="use 8 or 16"):
        step(None, linear.batch_at(0, size=12))


def test_unknown_mode():
    with pytest.raises(
        ValueError, match="got 'pjit', want 'jit', 'shard_map' or 'pmap'"
    ):
        start("pjit")


def test_eval_step():
    def eval_fn(params, batch):
        outputs = batch["inputs"] @ params["w"] + params["b"]
        error = jnp.abs(outputs - batch["targets"]).sum(-1)
        return {"mae": (jnp.sum(error * batch["mask"]), batch["mask"].sum())}, outputs

    evaluate = make_eval_step(eval_fn, data_mesh(jax.devices()))
    params, batch = linear.params(), linear.batch_at(3)
    metrics, outputs = evaluate(params, batch)
    want = batch["inputs"] @ params["w"] + params["b"]
    np.testing.assert_allclose(outputs, want, rtol=1e-5, atol=1e-6)
    error = np.abs(want - batch["targets"]).sum(-1) * batch["mask"]
    np.testing.assert_allclose(metrics["mae"][0], error.sum(), rtol=1e-5)
    assert float(metrics["mae"][1]) == 13
    # the weights of a training state fit too
    step, state, plain = start("pmap")
    np.testing.assert_array_equal(evaluate(plain.params, batch)[1], outputs)
    again = evaluate(step.get_state(state).params, batch)[1]
    np.testing.assert_array_equal(again, outputs)


@pytest.mark.slow
def test_all_of_this_on_eight_devices():
    if len(jax.devices()) != 1:
        pytest.skip("this is the process with several devices")
    env = os.environ | forced_devices(8) | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:]
    assert "1 skipped" in run.stdout
