"""Cells that read what they said: free, forced, and between the two."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import (
    AutoregressiveCarry,
    LSTMCarry,
    autoregressive,
    dropout,
    lstm,
    repeat,
    rnn,
    stack,
    unroll,
)

pytestmark = pytest.mark.slow  # as a whole; the table of cells is not

T, B, F = 6, 3, 4
KEY = jax.random.key(7)
INNER = lstm(F)


def problem(cell=INNER):
    """Params, inputs and a state to go on from, in float64."""
    rng = np.random.default_rng(0)
    params = cell.init(jax.random.key(0), (F,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)
    xs, c, h, y = (
        jnp.asarray(rng.standard_normal(shape)) for shape in [(T, B, F)] + [(B, F)] * 3
    )
    return params, xs, AutoregressiveCarry(LSTMCarry(c, h), y)


def free_run(params, start, feedback=lambda y: y):
    """A loop by hand."""
    carry, y, ys = start.cell, start.y, []
    for _ in range(T):
        u = INNER.project(params, feedback(y))
        carry, y = INNER.gates(params, carry, u, INNER.recur(params, carry))
        ys.append(y)
    return jnp.stack(ys), AutoregressiveCarry(carry, y)


def assert_trees_equal(got, want, atol):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, atol=atol, rtol=0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
@pytest.mark.parametrize("feedback", [None, lambda y: jax.nn.softmax(3 * y)])
def test_a_free_run_equals_a_loop_by_hand_gradients_included(feedback, engine):
    cell = autoregressive(INNER, feedback=feedback)
    params, _, start = problem(cell)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def by_hand(params, start):
        ys, last = free_run(params, start, feedback or (lambda y: y))
        return jnp.sin(3 * ys).sum(), (ys, last)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def unrolled(params, start):
        run = unroll(cell, params, None, start, length=T, engine=engine)
        return jnp.sin(3 * run.ys).sum(), tuple(run)

    # Float64; the same operations but for their order.
    assert_trees_equal(unrolled(params, start), by_hand(params, start), atol=1e-12)
    (d_params, d_start) = unrolled(params, start)[1]
    assert np.abs(d_start.y).max() > 1e-3  # through what is fed back, too
    assert np.abs(d_params["w_x"]).max() > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sampling,key", [(0.0, None), (0.0, KEY), (0.7, None)])
def test_forced_it_is_the_cell(sampling, key):
    cell = autoregressive(INNER, sampling=sampling)
    params, xs, start = problem(cell)
    got = unroll(cell, params, xs, start, key=key)
    want = unroll(INNER, params, xs, start.cell)
    # Float64; the steps may be projected in the loop or before it.
    np.testing.assert_allclose(got.ys, want.ys, atol=1e-14)
    assert_trees_equal(got.carry.cell, want.carry, atol=1e-14)
    np.testing.assert_array_equal(got.carry.y, got.ys[-1])


@pytest.mark.usefixtures("x64")
def test_forced_inputs_are_projected_all_at_once():
    params, xs, _ = problem()
    u, late = autoregressive(INNER, sampling=0.5).project(params, xs)
    assert u.shape == (T, B, 4 * F) and late is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_always_sampled_it_runs_free(engine):
    cell = autoregressive(INNER, sampling=1.0)
    params, xs, start = problem(cell)
    ys, carry = unroll(cell, params, xs, start, key=KEY, engine=engine)
    # Float64; the same operations but for their order.
    assert_trees_equal((ys, carry), free_run(params, start), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_sampling_chooses_for_each_example_and_step():
    """A cell that puts out its own state's count says which input it read."""
    B = 300
    echo = rnn(F)._replace(
        project=lambda params, xs, *, keys=None: xs,
        gates=lambda params, carry, u, a: (carry, u + 1),
    )
    cell = autoregressive(echo, sampling=0.3)
    params = cell.init(jax.random.key(0), (F,), jnp.float64)
    xs = jnp.full((T, B, F), 100.0)
    ys = np.asarray(unroll(cell, params, xs, key=KEY).ys)
    # 101 after an input; one more than the last output after what was fed back.
    sampled = ys != 101
    assert (sampled == sampled[..., :1]).all()  # all features of an example together
    sampled = sampled[..., 0]
    before = np.concatenate([np.zeros((1, B)), ys[:-1, :, 0]])
    np.testing.assert_array_equal(ys[..., 0], np.where(sampled, before + 1, 101))
    # 1,800 draws: a standard error of 0.011.
    np.testing.assert_allclose(sampled.mean(), 0.3, atol=0.05)
    assert len(np.unique(sampled, axis=0)) == T
    assert len(np.unique(sampled, axis=1)) > 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_a_schedule_of_sampling_compiles_once(engine):
    params, xs, start = problem()
    traces = []

    @jax.jit
    @jax.value_and_grad
    def loss(params, sampling):
        traces.append(sampling)
        cell = autoregressive(INNER, sampling=sampling)
        run = unroll(cell, params, xs, start, key=KEY, engine=engine)
        return (run.ys**2).sum()

    ends = []
    for sampling in [0.0, 0.5, 1.0]:
        value, grads = loss(params, jnp.asarray(sampling, jnp.float32))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        ends.append(float(value))
    assert len(traces) == 1
    forced = unroll(INNER, params, xs, start.cell).ys
    # Float64 sums of 72 squares below 1.
    np.testing.assert_allclose(ends[0], (forced**2).sum(), rtol=1e-12)
    free = free_run(params, start)[0]
    np.testing.assert_allclose(ends[2], (free**2).sum(), rtol=1e-12)
    assert abs(ends[1] - ends[0]) > 1e-3 and abs(ends[1] - ends[2]) > 1e-3


@pytest.mark.usefixtures("x64")
def test_a_free_run_needs_no_input_to_start():
    cell = autoregressive(stack(INNER, repeat(rnn(F), 2)))
    params, _, _ = problem(cell)
    one = unroll(cell, params, None, length=T)
    assert one.ys.shape == (T, F) and np.abs(one.ys[-1]).max() > 1e-3
    start = cell.carry(params, (B,), (F,), jnp.float64)
    many = unroll(cell, params, None, start, length=T)
    # Float64; products of a vector or of rows.
    np.testing.assert_allclose(many.ys, jnp.stack([one.ys] * B, 1), atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_noise_within_a_free_run():
    cell = autoregressive(dropout(INNER, 0.5))
    params, _, start = problem(cell)
    run = jax.jit(lambda key: unroll(cell, params, None, start, length=T, key=key).ys)
    np.testing.assert_array_equal(run(KEY), run(KEY))
    assert np.abs(run(KEY) - run(jax.random.key(8))).max() > 1e-3
    assert np.abs(run(KEY) - run(None)).max() > 1e-3


@pytest.mark.usefixtures("x64")
def test_a_masked_step_says_nothing_new():
    cell = autoregressive(INNER)
    params, _, start = problem(cell)
    lengths = jnp.array([T, 2, 0])
    ys, carry = unroll(cell, params, None, start, length=T, lengths=lengths)
    want, _ = free_run(params, start)
    np.testing.assert_allclose(ys[:2, 1], want[:2, 1], atol=1e-13)  # float64
    np.testing.assert_array_equal(ys[2:, 1], 0)
    np.testing.assert_array_equal(carry.y[1], ys[1, 1])
    np.testing.assert_array_equal(carry.y[2], start.y[2])


def test_mistakes_are_named():
    for sampling in [-0.1, 2]:
        with pytest.raises(ValueError, match=f"sampling={sampling}"):
            autoregressive(INNER, sampling=sampling)
    with pytest.raises(ValueError, match=r"sampling has shape \(3,\)"):
        autoregressive(INNER, sampling=jnp.zeros(3))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"output \(5,\) is fed back as \(5,\)"):
        autoregressive(lstm(5)).init(key, (F,))
    autoregressive(lstm(5), feedback=lambda y: y[..., :F]).init(key, (F,))
