"""`unroll` against the NumPy loop: cells x masks x directions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from selection import slow_unless

from lstm_jax import LSTMCarry, RNNCarry, bidirectional, lstm, rnn, stack, unroll

T, B, F, D = 7, 4, 3, 5
LEAKY = 0.01  # jax.nn.leaky_relu's slope

CELLS = {
    "lstm": (lstm(D), reference.lstm_step, LSTMCarry),
    "rnn-tanh": (rnn(D), reference.rnn_step(np.tanh), RNNCarry),
    "rnn-relu": (
        rnn(D, activation=jax.nn.relu),
        reference.rnn_step(lambda z: np.maximum(z, 0)),
        RNNCarry,
    ),
    "rnn-leaky": (
        rnn(D, activation=jax.nn.leaky_relu),
        reference.rnn_step(lambda z: np.where(z > 0, z, LEAKY * z)),
        RNNCarry,
    ),
}
LENGTHS = np.array([7, 0, 3, 1])
HOLES = np.random.default_rng(3).random((T, B)) < 0.6
VALID = {
    "all": ({}, np.ones((T, B), bool)),
    "lengths": ({"lengths": LENGTHS}, np.arange(T)[:, None] < LENGTHS),
    "mask": ({"mask": HOLES}, HOLES),
    "both": (
        {"lengths": LENGTHS, "mask": HOLES},
        HOLES & (np.arange(T)[:, None] < LENGTHS),
    ),
}
QUICK = [
    ("lstm", "all", False),
    ("lstm", "lengths", True),
    ("lstm", "mask", False),
    ("lstm", "both", True),
    ("rnn-leaky", "all", True),
    ("rnn-leaky", "both", False),
    ("rnn-leaky", "both", True),
]


def problem(name, steps=T):
    """A cell with random params, inputs and initial carry, in float64."""
    cell, one_step, Carry = CELLS[name]
    rng = np.random.default_rng(0)
    params = cell.init(jax.random.key(0), (F,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape), params)
    xs = rng.standard_normal((steps, B, F))
    state = tuple(rng.standard_normal((B, D)) for _ in Carry._fields)
    return cell, one_step, Carry, params, xs, state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name, valid, reverse",
    [
        slow_unless((name, valid, reverse) in QUICK, name, valid, reverse)
        for name in ("lstm", "rnn-leaky")
        for valid in VALID
        for reverse in (False, True)
    ],
)
def test_gradients_against_finite_differences(name, valid, reverse):
    cell, _, Carry, params, xs, state = problem(name)
    options, _ = VALID[valid]
    weights = np.random.default_rng(1).standard_normal((T, B, D))

    @jax.jit
    def loss(params, xs, carry):
        ys, last = unroll(cell, params, xs, carry, reverse=reverse, **options)
        return (ys * weights).sum() + sum(jnp.sin(leaf).sum() for leaf in last)

    at = (params, jnp.asarray(xs), Carry(*map(jnp.asarray, state)))
    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(*at)
    rng = np.random.default_rng(2)
    for _ in range(3):
        way = jax.tree.map(lambda a: rng.standard_normal(a.shape), at)
        ahead = jax.tree.map(lambda a, d: a + 1e-6 * d, at, way)
        behind = jax.tree.map(lambda a, d: a - 1e-6 * d, at, way)
        numeric = (loss(*ahead) - loss(*behind)) / 2e-6
        products = jax.tree.map(lambda g, d: (g * d).sum(), grads, way)
        # Central differences in float64: truncation eps² and rounding 1e-16 / eps.
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), numeric, rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CELLS)
def test_a_batch_of_two_axes_equals_a_flat_one(name):
    cell, _, _, params, xs, _ = problem(name)
    lengths = jnp.asarray(LENGTHS)
    flat = unroll(cell, params, jnp.asarray(xs), lengths=lengths)
    square = unroll(cell, params, xs.reshape(T, 2, 2, F), lengths=lengths.reshape(2, 2))
    np.testing.assert_allclose(square.ys.reshape(T, B, D), flat.ys, atol=1e-12)
    alone = unroll(cell, params, jnp.asarray(xs)[:, 0])
    np.testing.assert_allclose(alone.ys, flat.ys[:, 0], atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_no_steps_and_no_length_return_the_initial_carry(engine):
    cell, _, Carry, params, xs, state = problem("lstm")
    carry = Carry(*map(jnp.asarray, state))

    def last(carry):
        empty = jnp.zeros((0, B, F))
        return unroll(cell, params, empty, carry, engine=engine).carry.c.sum()

    grads = jax.grad(last)(carry)
    assert (grads.c == 1).all() and (grads.h == 0).all()
    out = unroll(cell, params, jnp.zeros((0, B, F)), carry, engine=engine)
    assert out.ys.shape == (0, B, D)
    np.testing.assert_array_equal(out.carry.c, carry.c)
    zeros = jnp.zeros(B, int)
    none = unroll(cell, params, jnp.asarray(xs), carry, lengths=zeros, engine=engine)
    np.testing.assert_array_equal(none.carry.c, carry.c)
    assert not np.asarray(none.ys).any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("valid", VALID)
def test_a_stack_equals_its_layers_in_turn(valid):
    options, _ = VALID[valid]
    low, high = lstm(D), rnn(6)
    both = stack(low, high)
    params = both.init(jax.random.key(1), (F,), jnp.float64)
    xs = jnp.asarray(np.random.default_rng(0).standard_normal((T, B, F)))
    out = unroll(both, params, xs, **options)
    below = unroll(low, params[0], xs, **options)
    above = unroll(high, params[1], below.ys, **options)
    np.testing.assert_allclose(out.ys, above.ys, atol=1e-12)
    np.testing.assert_allclose(out.carry[0].c, below.carry.c, atol=1e-12)
    np.testing.assert_allclose(out.carry[1].h, above.carry.h, atol=1e-12)
    assert both.equations is None and low.equations == "lstm"


@pytest.mark.usefixtures("x64")
def test_bidirectional_reads_each_sequence_from_its_own_end():
    cell, _, _, params, xs, _ = problem("lstm")
    back = jax.tree.map(lambda p: 0.5 * p, params)
    out = bidirectional(
        (cell, cell), (params, back), jnp.asarray(xs), lengths=jnp.asarray(LENGTHS)
    )
    for b, length in enumerate(LENGTHS):
        valid = jnp.asarray(xs[:length, b])
        there = unroll(cell, params, valid)
        again = unroll(cell, back, valid[::-1])
        want = jnp.concatenate([there.ys, again.ys[::-1]], axis=-1)
        np.testing.assert_allclose(out.ys[:length, b], want, atol=1e-12)
        np.testing.assert_allclose(out.carry[1].h[b], again.carry.h, atol=1e-12)
    with pytest.raises(ValueError, match="reverse is not supported"):
        bidirectional((cell, cell), (params, back), xs, reverse=True)


def test_half_precision_computes_in_it_and_keeps_a_float32_state():
    cell = lstm(D)
    params = cell.init(jax.random.key(0), (F,))
    xs = jax.random.normal(jax.random.key(1), (T, B, F))
    full, half = unroll(cell, params, xs), unroll(cell, params, xs, dtype=jnp.bfloat16)
    assert half.ys.dtype == jnp.bfloat16 and half.carry.c.dtype == jnp.float32
    # bfloat16 has 8 bits: 2⁻⁸ each product, a few products deep.
    np.testing.assert_allclose(half.carry.h, full.carry.h, atol=0.03)
    assert np.abs(np.asarray(half.carry.h - full.carry.h)).max() > 0


def test_vmap_over_params_equals_each_alone():
    cell = lstm(D)
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(lambda k: cell.init(k, (F,)))(keys)
    xs = jax.random.normal(jax.random.key(1), (T, B, F))
    together = jax.vmap(lambda p: unroll(cell, p, xs).ys)(many)
    alone = unroll(cell, cell.init(keys[2], (F,)), xs).ys
    np.testing.assert_allclose(together[2], alone, atol=1e-6)


def test_messages_say_what_came_and_what_is_wanted():
    cell = lstm(D)
    params = cell.init(jax.random.key(0), (F,))
    xs = jnp.zeros((T, B, F))
    with pytest.raises(ValueError, match=r"F=4 but w_x wants 3; .*init\(key, \(4,\)\)"):
        unroll(cell, params, jnp.zeros((T, B, 4)))
    with pytest.raises(ValueError, match="'scna' is unknown.*did you mean 'scan'"):
        unroll(cell, params, xs, engine="scna")
    with pytest.raises(ValueError, match=r"lengths has shape \(3,\)"):
        unroll(cell, params, xs, lengths=jnp.zeros(3, int))
    with pytest.raises(ValueError, match="lengths has dtype float32"):
        unroll(cell, params, xs, lengths=jnp.zeros(B))
    with pytest.raises(ValueError, match=r"mask has shape \(4, 7\)"):
        unroll(cell, params, xs, mask=jnp.ones((B, T), bool))
    with pytest.raises(ValueError, match=r"xs has shape \(3,\)"):
        unroll(cell, params, jnp.zeros(3))
    with pytest.raises(ValueError, match="hidden width is an integer >= 1"):
        lstm(0)
    with pytest.raises(ValueError, match="this cell reads vectors"):
        cell.init(jax.random.key(0), (8, 8, 1))
    with pytest.raises(ValueError, match="no cells"):
        stack()


def test_engine_vjp_under_vmap_and_twice():
    cell = rnn(D)
    params = cell.init(jax.random.key(0), (F,))
    xs = jax.random.normal(jax.random.key(1), (T, B, F))

    def loss(engine, params, xs):
        return (unroll(cell, params, xs, engine=engine).ys ** 2).sum()

    def twice(engine):
        inner = jax.grad(partial(loss, engine))
        outer = jax.grad(lambda p, x: sum((g**2).sum() for g in inner(p, x).values()))
        return jax.vmap(outer, in_axes=(None, 1))(params, xs)

    for got, want in zip(
        *map(jax.tree.leaves, map(twice, ("vjp", "scan"))), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)  # float32
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: loss("vjp", params, x), (xs,), (xs,))
