"""Dropout and zoneout: what is hidden, when, how much, and what evaluation does."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forced_devices import forced_devices

from lstm_jax import (
    Cell,
    LSTMCarry,
    dropout,
    lstm,
    recurrent_dropout,
    repeat,
    rnn,
    stack,
    step,
    unroll,
    zoneout,
)
from lstm_jax.keys import Keys

pytestmark = pytest.mark.slow  # as a whole; the table of cells is not

T, B, F, D = 4, 3, 6, 5
KEY = jax.random.key(7)
KEYS = Keys.of(KEY, T)


def copier() -> Cell:
    """Puts out its input, and what `recur` saw of its state, which is always one."""

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return jnp.ones((*batch_shape, D), dtype)

    return Cell(
        init=lambda key, feature_shape, dtype=jnp.float32: (),
        carry=carry,
        project=lambda params, xs, *, keys=None: xs,
        recur=lambda params, carry: carry,
        gates=lambda params, carry, u, a: (carry, (u, a)),
    )


def problem(cell):
    params = cell.init(jax.random.key(0), (F,), jnp.float64)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)
    return params, jnp.asarray(rng.standard_normal((T, B, F)))


def test_dropout_scales_what_it_keeps():
    cell = dropout(copier(), 0.25)
    us = cell.project((), jnp.full((T, 200, F), 3.0), keys=KEYS)
    assert set(np.unique(us)) == {0.0, 4.0}
    # 4,800 draws: a standard error of 0.006.
    np.testing.assert_allclose((us == 0).mean(), 0.25, atol=0.03)
    assert not (us[0] == us[1]).all()  # a mask of its own in every step
    assert not (us[:, 0] == us[:, 1]).all()  # and for every example


def test_variational_dropout_keeps_its_mask():
    cell = dropout(copier(), 0.25, variational=True)
    us = cell.project((), jnp.full((T, 200, F), 3.0), keys=KEYS)
    assert set(np.unique(us)) == {0.0, 4.0}
    np.testing.assert_array_equal(us, jnp.broadcast_to(us[0], us.shape))
    assert not (us[:, 0] == us[:, 1]).all()


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_within_a_stack(variational):
    echo = copier()._replace(gates=lambda params, carry, u, a: (carry, u))
    cell = stack(echo, dropout(echo, 0.5, variational=variational))
    ys = unroll(cell, ((), ()), jnp.ones((T, 50, F)), key=KEY).ys
    assert set(np.unique(ys)) == {0.0, 2.0}
    assert all((y == ys[0]).all() == variational for y in ys[1:])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("variational", [False, True])
def test_the_mean_of_dropout_is_evaluation_where_all_is_linear(variational):
    inner = rnn(D, activation=lambda z: z)
    cell = dropout(inner, 0.3, variational=variational)
    params, xs = problem(cell)

    @jax.jit
    @jax.vmap
    def run(key):
        return unroll(cell, params, xs, key=key).ys

    ys = run(jax.random.split(KEY, 4000))
    want = unroll(inner, params, xs).ys
    error = np.abs(ys.mean(0) - want) / (ys.std(0) / np.sqrt(4000))
    assert (ys.std(0) > 0).all()
    assert error.max() < 5  # standard errors, of 60 values


def test_recurrent_dropout_hides_the_state_from_recur_only():
    cell = recurrent_dropout(copier(), 0.2)
    carry = cell.carry((), (200,), (F,), key=KEY)
    assert carry.mask.dtype == bool
    xs = jnp.ones((T, 200, F))
    us = cell.project((), xs, keys=KEYS)
    last, (_, seen) = jax.lax.scan(partial(step, cell, ()), carry, us)
    np.testing.assert_array_equal(last.cell, 1)  # the state is whole
    np.testing.assert_array_equal(last.mask, carry.mask)
    np.testing.assert_array_equal(seen, np.stack([1.25 * np.asarray(carry.mask)] * T))
    # 1,000 draws: a standard error of 0.013.
    np.testing.assert_allclose(carry.mask.mean(), 0.8, atol=0.06)
    assert not (carry.mask[0] == carry.mask[1:]).all()  # one for every example


@pytest.mark.usefixtures("x64")
def test_recurrent_dropout_equals_a_loop_with_masked_states():
    inner = lstm(D)
    cell = recurrent_dropout(inner, 0.4)
    params, xs = problem(cell)
    start = cell.carry(params, (B,), (F,), jnp.float64, key=KEY)
    state, ys = start.cell, []
    for x in xs:
        masked = state._replace(h=jnp.where(start.mask.h, state.h / 0.6, 0))
        a = inner.recur(params, masked)
        state, y = inner.gates(params, state, inner.project(params, x), a)
        ys.append(y)
    run = unroll(cell, params, xs, start, key=KEY)
    np.testing.assert_allclose(run.ys, jnp.stack(ys), atol=1e-12)  # float64
    first, rest = unroll(cell, params, xs[:1], start, key=KEY), xs[1:]
    second = unroll(cell, params, rest, first.carry, key=KEY)
    np.testing.assert_allclose(second.ys, run.ys[1:], atol=1e-12)  # it keeps its mask


def test_recurrent_dropout_without_a_key_has_no_mask():
    cell = recurrent_dropout(lstm(D), 0.4)
    params = cell.init(jax.random.key(0), (F,))
    assert cell.carry(params, (B,), (F,)).mask is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "make",
    [
        lambda cell: dropout(cell, 0),
        lambda cell: dropout(cell, 0, variational=True),
        lambda cell: recurrent_dropout(cell, 0),
        lambda cell: zoneout(cell, 0),
    ],
    ids=["dropout", "variational", "recurrent_dropout", "zoneout"],
)
@pytest.mark.parametrize("key", [None, KEY], ids=["evaluation", "training"])
def test_rate_zero_is_the_cell(make, key):
    inner = lstm(D)
    params, xs = problem(inner)
    run, want = unroll(make(inner), params, xs, key=key), unroll(inner, params, xs)
    # Float64; the steps may be projected in the loop or before it.
    np.testing.assert_allclose(run.ys, want.ys, atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("key", [None, KEY], ids=["evaluation", "training"])
def test_zoneout_at_rate_one_never_moves(key):
    cell = zoneout(lstm(D), 1.0)
    params, xs = problem(cell)
    rng = np.random.default_rng(1)
    start = LSTMCarry(*jnp.asarray(rng.standard_normal((2, B, D))))
    run = unroll(cell, params, xs, start, key=key)
    for got, want in zip(run.carry, start, strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(run.ys, jnp.stack([start.h] * T))


@pytest.mark.usefixtures("x64")
def test_zoneout_in_evaluation_by_hand():
    cell = zoneout(lstm(D), LSTMCarry(c=0.5, h=0.05))
    params, xs = problem(cell)
    w_x, w_h, b = (np.asarray(params[name]) for name in ("w_x", "w_h", "b"))
    c, h, want = np.zeros((B, D)), np.zeros((B, D)), []
    for x in np.asarray(xs):
        i, f, g, o = np.split(x @ w_x + h @ w_h + b, 4, axis=-1)
        i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
        new_c = f * c + i * np.tanh(g)
        new_h = o * np.tanh(new_c)
        c, h = 0.5 * c + 0.5 * new_c, 0.05 * h + 0.95 * new_h
        want.append(h)
    ys, carry = unroll(cell, params, xs)
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(ys, np.stack(want), atol=1e-10)
    np.testing.assert_allclose(carry.c, c, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_zoneout_keeps_units_at_each_leafs_rate():
    inner = lstm(200, recurrent_init=jax.nn.initializers.zeros)
    cell = zoneout(inner, LSTMCarry(c=0.5, h=0.1))
    params, xs = problem(cell)
    rng = np.random.default_rng(1)
    old = LSTMCarry(*jnp.asarray(rng.standard_normal((2, B, 200))))
    u = cell.project(params, xs, keys=KEYS)
    u, key = jax.tree.map(lambda leaf: leaf[0], u)
    new, _ = step(inner, params, old, u)
    zoned, y = step(cell, params, old, (u, key))
    for leaf, rate in [("c", 0.5), ("h", 0.1)]:
        was, would, got = (getattr(state, leaf) for state in (old, new, zoned))
        kept = np.asarray(got == was)
        np.testing.assert_allclose(got, np.where(kept, was, would), atol=1e-14)
        # 600 draws: a standard error of 0.02 at most.
        np.testing.assert_allclose(kept.mean(), rate, atol=0.07)
        assert not (kept[0] == kept[1]).all()
    np.testing.assert_array_equal(y, zoned.h)  # the output is the new h: zoned out


def test_zoneout_leaves_an_output_alone_that_is_no_leaf_of_the_carry():
    def doubled(params, carry, u, a):
        carry, y = rnn(D).gates(params, carry, u, a)
        return carry, 2 * y

    cell = zoneout(rnn(D)._replace(gates=doubled, output=None), 1.0)
    params = cell.init(jax.random.key(0), (F,))
    carry = cell.carry(params, (B,), (F,))
    carry, y = step(cell, params, carry, cell.project(params, jnp.ones((B, F))))
    np.testing.assert_array_equal(carry.h, 0)
    assert (y != 0).all()


def test_zoneout_takes_a_rate_for_each_layer_and_leaves_masks_alone():
    inner = stack(recurrent_dropout(lstm(D), 0.5), rnn(D))
    cell = zoneout(inner, (1.0, 0.0))
    params = cell.init(jax.random.key(0), (F,))
    start = cell.carry(params, (B,), (F,), key=KEY)
    u = cell.project(params, jnp.ones((T, B, F)), keys=KEYS)
    carry, _ = step(cell, params, start, jax.tree.map(lambda leaf: leaf[0], u))
    np.testing.assert_array_equal(carry[0].cell.c, start[0].cell.c)
    np.testing.assert_array_equal(carry[0].mask.h, start[0].mask.h)
    assert (carry[1].h != start[1].h).all()


@pytest.mark.usefixtures("x64")
def test_noise_differs_between_layers():
    for make in [lambda cell: stack(cell, cell), lambda cell: repeat(cell, 2)]:
        cell = make(
            recurrent_dropout(lstm(20, recurrent_init=jax.nn.initializers.zeros), 0.5)
        )
        params = cell.init(jax.random.key(0), (20,))
        low, high = cell.carry(params, (), (20,), key=KEY)
        assert not (low.mask.h == high.mask.h).all()
        assert not (low.mask.h == low.mask.c).all()
    twice = dropout(dropout(copier(), 0.5), 0.5)
    us = twice.project((), jnp.ones((T, 200, F)), keys=KEYS)
    # Kept by both of two masks, were they the same, is kept by one: half, not a
    # quarter. 4,800 draws: a standard error of 0.006.
    np.testing.assert_allclose((us != 0).mean(), 0.25, atol=0.03)


def test_mistakes_are_named():
    for combine in [dropout, recurrent_dropout]:
        for rate in [-0.1, 1.0]:
            with pytest.raises(ValueError, match=f"{combine.__name__}: rate="):
                combine(lstm(D), rate)
    for rate in [-0.1, 1.1, LSTMCarry(c=0.5, h=2.0)]:
        with pytest.raises(ValueError, match="zoneout: rate="):
            zoneout(lstm(D), rate)
    cell = zoneout(rnn(D), LSTMCarry(c=0.5, h=0.05))
    params = cell.init(jax.random.key(0), (F,))
    with pytest.raises(ValueError, match="does not fit the carry"):
        unroll(cell, params, jnp.ones((T, B, F)))
    silent = rnn(D)._replace(recur=lambda params, carry: ())
    with pytest.raises(ValueError, match="recur returns nothing"):
        recurrent_dropout(silent, 0.5).init(jax.random.key(0), (F,))


EXPLICIT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from lstm_jax import dropout, lstm, unroll, zoneout

cell = zoneout(dropout(lstm(3), 0.5), 0.5)
params = cell.init(jax.random.key(0), (3,))
xs = jax.random.normal(jax.random.key(1), (4, 2, 3))
run = jax.jit(lambda params, xs, key: unroll(cell, params, xs, key=key).ys)
key, keys = jax.random.key(2), jax.random.split(jax.random.key(3), 2)
want = run(params, xs, key), run(params, xs, keys)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
put = lambda a, spec: jax.device_put(a, NamedSharding(mesh, spec))
with jax.set_mesh(mesh):
    at = put(params, P()), put(xs, P(None, "data"))
    got = run(*at, key), run(*at, put(keys, P("data")))
for pair in zip(got, want):
    np.testing.assert_allclose(*pair, atol=1e-6)  # float32
print("equal")
"""


def test_masks_on_a_mesh_with_explicit_axes():
    env = os.environ | forced_devices(2) | {"JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", EXPLICIT], env=env, capture_output=True, text=True
    )
    assert out.stdout.strip() == "equal", out.stderr[-3000:]
