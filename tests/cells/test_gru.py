"""The GRU against the NumPy step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lstm_jax import GRUCarry, gru, initializers, unroll
from lstm_jax.cell import step

T, B, F, D = 5, 3, 2, 4
KEY = jax.random.key(0)
KINDS = {
    "plain": (gru(D), reference.gru()),
    "hard": (
        gru(D, gate_fn=jax.nn.hard_sigmoid, activation=jax.nn.relu),
        reference.gru(reference.hard_sigmoid, lambda z: np.maximum(z, 0)),
    ),
    "no bias": (gru(D, use_bias=False), reference.gru()),
    "reset before": (
        gru(D, reset_after=False, **initializers.pytorch_defaults(D)),
        reference.gru(reset_after=False),
    ),
    "layer norm": (
        gru(D, layer_norm=True, **initializers.pytorch_defaults(D)),
        reference.gru(layer_norm=True),
    ),
    "reset before, layer norm": (
        gru(D, reset_after=False, layer_norm=True),
        reference.gru(reset_after=False, layer_norm=True),
    ),
}


def problem(cell):
    rng = np.random.default_rng(0)
    params = cell.init(KEY, (F,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)
    xs = jnp.asarray(rng.standard_normal((T, B, F)))
    return params, xs, GRUCarry(jnp.asarray(rng.standard_normal((B, D))))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_numpy_step(kind, engine):
    cell, one_step = KINDS[kind]
    params, xs, carry = problem(cell)
    ys, last = unroll(cell, params, xs, carry, engine=engine)
    want_ys, (want,) = reference.run(
        one_step,
        jax.tree.map(np.asarray, params),
        np.asarray(xs),
        (np.asarray(carry.h),),
        np.ones((T, B), bool),
    )
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(ys, want_ys, atol=1e-10)
    np.testing.assert_allclose(last.h, want[-1], atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_gradients_against_central_differences(engine):
    cell = gru(D)
    at = problem(cell)

    @jax.jit
    def loss(params, xs, carry):
        ys, last = unroll(cell, params, xs, carry, engine=engine)
        weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
        return (ys * weights).sum() + jnp.sin(last.h).sum()

    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(*at)
    rng = np.random.default_rng(2)
    leaves, tree = jax.tree.flatten(at)
    for moved, grad in enumerate(jax.tree.leaves(grads)):  # each param by itself
        way = rng.standard_normal(grad.shape)
        values = []
        for eps in (1e-6, -1e-6):
            there = list(leaves)
            there[moved] = there[moved] + eps * way
            values.append(loss(*tree.unflatten(there)))
        # Truncation eps² times third derivatives, and rounding 1e-15 / eps.
        np.testing.assert_allclose(
            (grad * way).sum(), (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-7
        )
        assert np.abs(grad).max() > 0


def test_params_of_each_kind():
    def names(**options):
        params = gru(D, **options).init(KEY, (F,))
        return {name: leaf.shape for name, leaf in params.items()}

    plain = {"w_x": (F, 3 * D), "w_h": (D, 3 * D)}
    assert names(use_bias=False) == plain
    early = {"w_x": (F, 3 * D), "w_h": (D, 2 * D), "w_n": (D, D)}
    assert names(reset_after=False) == early | {"b": (3 * D,)}
    biases = {"b": (3 * D,), "b_n": (D,)}
    gains = {"gain_x": (3 * D,), "gain_h": (3 * D,)}
    assert names(layer_norm=True) == plain | biases | gains
    gains |= {"gain_h": (2 * D,), "gain_n": (D,)}
    assert names(layer_norm=True, reset_after=False, use_bias=False) == early | gains
    before = gru(D, reset_after=False, use_bias=False)
    params = before.init(KEY, (F,))
    assert not before.project(params, None).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("options", [{}, dict(reset_after=False, layer_norm=True)])
def test_a_step_in_half_precision_keeps_the_dtype_of_its_carry(options, dtype):
    cell = gru(D, **initializers.pytorch_defaults(D), **options)
    half = cell.init(KEY, (F,), jnp.bfloat16)
    assert {p.dtype for p in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}
    full = jax.tree.map(lambda p: p.astype(jnp.float32), half)
    x = jax.random.normal(KEY, (B, F))
    carry = GRUCarry(jnp.linspace(-1, 1, B * D).reshape(B, D))
    new, y = step(cell, half, GRUCarry(carry.h.astype(dtype)), cell.project(half, x))
    assert new.h.dtype == y.dtype == dtype
    want, _ = step(cell, full, carry, cell.project(full, x))
    # bfloat16 rounds by 2⁻⁹, here a pre-activation of at most 4 or so, twice.
    np.testing.assert_allclose(new.h.astype(jnp.float32), want.h, atol=0.03)


def test_no_input_is_an_input_of_zeros():
    cell = gru(D, **initializers.pytorch_defaults(D))
    params = cell.init(KEY, (F,))
    zero = cell.project(params, jnp.zeros((B, F)))
    want = jnp.broadcast_to(cell.project(params, None), zero.shape)
    np.testing.assert_array_equal(zero, want)


def test_initialisers_act_on_each_gate():
    params = gru(D).init(KEY, (F,))
    assert jax.tree.map(jnp.shape, params) == {
        "w_x": (F, 3 * D),
        "w_h": (D, 3 * D),
        "b": (3 * D,),
        "b_n": (D,),
    }
    for block in jnp.split(params["w_h"], 3, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(D), atol=1e-5)
    with pytest.raises(ValueError, match="gru: features=0.*integer >= 1"):
        gru(0)
