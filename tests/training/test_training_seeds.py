"""Seeds side by side are the runs that each would be alone."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import linear_model as linear
import numpy as np
import optax
import pytest

from lstm_jax.data import pad_to_widest
from lstm_jax.training import (
    data_mesh,
    init_seeds,
    init_state,
    make_optimizer,
    make_seeds_eval,
    make_seeds_step,
    make_train_step,
    stacker,
    weights,
)

SEEDS, STEPS = 8, 6


def batch_at(seed, at):
    return linear.batch_at(100 * seed + at)


@pytest.mark.parametrize("together", [True, False])
def test_each_seed_is_its_single_run(together):
    tx = make_optimizer("adam", 0.05, clip=0.5, average=0.9)
    mesh = data_mesh(jax.devices())
    keys = jax.vmap(jax.random.key)(np.arange(SEEDS))
    params = [linear.params(seed) for seed in range(SEEDS)]

    step = make_seeds_step(linear.loss_fn, tx, mesh, together=together)
    first = init_seeds(params, tx, keys)
    parts = [
        stacker(lambda at, s=s: batch_at(s, at), 8)(range(STEPS)) for s in range(SEEDS)
    ]
    batches = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    states = step.put_state(first)
    for _ in range(2):  # the argument of put_state stays valid
        states, metrics = step.run(
            step.put_state(first), step.put_batches(batches), STEPS
        )

    alone = make_train_step(linear.loss_fn, tx, data_mesh(jax.devices()[:1]))
    for seed in range(SEEDS):
        state = alone.put_state(
            init_state(params[seed], tx, keys[seed], data_mesh(jax.devices()[:1]))
        )
        for at in range(STEPS):
            state, wanted = alone(state, batch_at(seed, at))
            for name, pair in wanted.items():
                got = [x[seed, at] for x in metrics[name]]
                np.testing.assert_allclose(got, pair, rtol=1e-5)  # sums of float32
        mine = jax.tree.map(lambda x, n=seed: x[n], states)
        assert int(mine.step) == STEPS
        for a, b in zip(
            jax.tree.leaves((mine.params, weights(mine))),
            jax.tree.leaves((state.params, weights(state))),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


WIDTHS = 3, 5


def test_each_seed_is_its_single_run_at_the_widths_of_its_batches():
    """The noise has the width of the batch: another width would be another loss."""

    def loss_fn(params, batch, keys):
        images = batch["inputs"].astype(jnp.float32) / 255
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        outputs = (images + noise).mean((1, 2, 3)) * params["w"]
        return (jnp.square(outputs - batch["targets"]).sum(), outputs.size), {}

    def line_batch(seed, at):
        rng = np.random.default_rng([seed, at])
        shape = 4, 2, WIDTHS[(seed + at) % 2], 1
        inputs = rng.integers(0, 256, shape, np.uint8)
        return {"inputs": inputs, "targets": np.float32(rng.normal(size=4))}

    tx, mesh = optax.sgd(0.1), data_mesh(jax.devices()[:1])
    keys = jax.vmap(jax.random.key)(np.arange(2))
    params = [{"w": np.float32(seed + 1)} for seed in range(2)]
    step = make_seeds_step(loss_fn, tx, mesh, widths=WIDTHS)
    parts = [
        stacker(lambda at, s=s: pad_to_widest(line_batch(s, at), WIDTHS), 3)(range(3))
        for s in range(2)
    ]
    batches = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    np.testing.assert_array_equal(batches["bucket"], [[0, 1, 0], [1, 0, 1]])
    states = step.put_state(init_seeds(params, tx, keys))
    states, metrics = step.run(states, step.put_batches(batches), 3)

    alone = make_train_step(loss_fn, tx, mesh)
    for seed in range(2):
        state = alone.put_state(init_state(params[seed], tx, keys[seed], mesh))
        for at in range(3):
            state, wanted = alone(state, line_batch(seed, at))
            got = [x[seed, at] for x in metrics["loss"]]
            np.testing.assert_allclose(got, wanted["loss"], rtol=1e-5)  # float32 sums
        np.testing.assert_allclose(states.params["w"][seed], state.params["w"], 1e-5)

    with pytest.raises(ValueError, match="widths \\(3, 5\\) cannot be one batch"):
        make_seeds_step(loss_fn, tx, mesh, together=True, widths=WIDTHS)


@pytest.mark.parametrize("together", [True, False])
def test_each_seed_is_evaluated(together):
    def evaluate(params, batch):
        outputs = batch["inputs"] @ params["w"]
        return {"sum": (outputs.sum(), 1.0)}, outputs

    params = [linear.params(seed) for seed in range(SEEDS)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *params)
    batch = {"inputs": linear.batch_at(0)["inputs"]}
    run = make_seeds_eval(evaluate, data_mesh(jax.devices()), together=together)
    metrics, outputs = run(stacked, batch)
    for seed, one in enumerate(params):
        wanted = batch["inputs"] @ one["w"]
        np.testing.assert_allclose(outputs[seed], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(metrics["sum"][0][seed], wanted.sum(), rtol=1e-4)


def test_cores_become_devices_that_share_work_evenly():
    code = """
import jax
from lstm_jax import training
training.split_cpu()
devices = jax.devices()
training.split_cpu()  # in vain: JAX has started
shares = [(6, 1), (7, 1), (64, 32), (63, 32), (33, 32)]
print(len(devices), *(len(training.enough_cores(devices, *s)) for s in shares))
"""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    cores = len(os.sched_getaffinity(0))

    def most(pieces, least):
        fit = range(1, min(cores, pieces // least) + 1)
        return max(n for n in fit if pieces % n == 0)

    shares = [(6, 1), (7, 1), (64, 32), (63, 32), (33, 32)]
    assert out == [str(n) for n in (cores, *(most(*share) for share in shares))]
