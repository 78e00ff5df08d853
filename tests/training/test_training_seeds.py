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
    Diverged,
    LambdaCallback,
    data_mesh,
    fit,
    init_seeds,
    init_state,
    make_optimizer,
    make_seeds_step,
    make_train_step,
    stacker,
    weights,
)

SEEDS, STEPS = 8, 6


def batch_at(seed, at):
    return linear.batch_at(100 * seed + at)


@pytest.mark.parametrize("vmapped", [True, False])
def test_each_seed_is_its_single_run(vmapped):
    tx = make_optimizer("adam", 0.05, clip=0.5, ema=0.9)
    mesh = data_mesh(jax.devices())
    keys = jax.vmap(jax.random.key)(np.arange(SEEDS))
    params = [linear.params(seed) for seed in range(SEEDS)]

    step = make_seeds_step(linear.loss_fn, tx, mesh, vmapped=vmapped)
    first = init_seeds(params, tx, keys)
    parts = [
        stacker(lambda at, s=s: batch_at(s, at), 8)(range(STEPS)) for s in range(SEEDS)
    ]
    batches = {name: np.stack([part[name] for part in parts], 1) for name in parts[0]}
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
                got = [x[at, seed] for x in metrics[name]]
                np.testing.assert_allclose(got, pair, rtol=1e-5)  # sums of float32
        mine = jax.tree.map(lambda x, n=seed: x[n], states)
        assert int(mine.step) == STEPS
        for a, b in zip(
            jax.tree.leaves((mine.params, weights(mine))),
            jax.tree.leaves((state.params, weights(state))),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_fit_trains_them_side_by_side():
    """Rows hold a list of what each alone has; a loss that is lost says whose it is."""
    tx, mesh = make_optimizer("adam", 0.05), data_mesh(jax.devices()[:1])
    keys = jax.vmap(jax.random.key)(np.arange(2))
    params = [linear.params(seed) for seed in range(2)]
    options = dict(steps=STEPS, steps_per_execution=4, log_every=3, eval_every=3)

    def rows_of(state, step, **more):
        rows = []
        callbacks = [LambdaCallback(on_log=rows.append)]
        fit(state, step, callbacks=callbacks, **options, **more)
        return [row for row in rows if row.pop("images_per_second", True)]

    step = make_train_step(linear.loss_fn, tx, mesh)
    alone = [
        rows_of(
            init_state(params[seed], tx, keys[seed], mesh),
            step,
            batch_at=lambda at, seed=seed: batch_at(seed, at),
            evaluate=lambda params: {"w": np.abs(params["w"]).sum()},
        )
        for seed in range(2)
    ]

    def both(at):
        batches = [batch_at(seed, at) for seed in range(2)]
        return jax.tree.map(lambda *x: np.stack(x), *batches)

    def spoiled(at):
        batch = both(at)
        if at == 4:
            batch["targets"][1] = np.nan
        return batch

    states = init_seeds(params, tx, keys)
    seeds_step = make_seeds_step(linear.loss_fn, tx, mesh)
    more = dict(evaluate=lambda p: {"w": np.abs(p["w"]).reshape(2, -1).sum(-1)})
    found = rows_of(states, seeds_step, batch_at=both, **more)
    assert len(found) == 4
    for got, *wanted in zip(found, *alone, strict=True):
        assert got.keys() == wanted[0].keys()
        for name in got.keys() - {"step", "split"}:
            each = [row[name] for row in wanted]
            np.testing.assert_allclose(got[name], each, rtol=1e-5)  # sums of float32
    with pytest.raises(Diverged, match="the seed at index 1 is nan at step 5 "):
        rows_of(states, seeds_step, batch_at=spoiled)


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
    batches = {name: np.stack([part[name] for part in parts], 1) for name in parts[0]}
    np.testing.assert_array_equal(batches["bucket"], [[0, 1], [1, 0], [0, 1]])
    states = step.put_state(init_seeds(params, tx, keys))
    states, metrics = step.run(states, step.put_batches(batches), 3)

    alone = make_train_step(loss_fn, tx, mesh)
    for seed in range(2):
        state = alone.put_state(init_state(params[seed], tx, keys[seed], mesh))
        for at in range(3):
            state, wanted = alone(state, line_batch(seed, at))
            got = [x[at, seed] for x in metrics["loss"]]
            np.testing.assert_allclose(got, wanted["loss"], rtol=1e-5)  # float32 sums
        np.testing.assert_allclose(states.params["w"][seed], state.params["w"], 1e-5)

    with pytest.raises(ValueError, match="widths \\(3, 5\\) cannot be one batch"):
        make_seeds_step(loss_fn, tx, mesh, vmapped=True, widths=WIDTHS)


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
