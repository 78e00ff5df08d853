"""The shared products: one feature, dtypes, and the norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import gru, lstm, rnn
from lstm_jax.cells.dense import input_product, normalize, wide_product

KEY = jax.random.key(0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lead", [(), (7,), (5, 2, 3)])
@pytest.mark.parametrize("features", [1, 2])
def test_input_product_is_a_product_and_a_bias(features, lead):
    rng = np.random.default_rng(0)
    params = {
        "w_x": jnp.asarray(rng.standard_normal((features, 6))),
        "b": jnp.asarray(rng.standard_normal(6)),
    }
    xs = jnp.asarray(rng.standard_normal((*lead, features)))

    def plain(params, xs):
        return jnp.einsum("...f,fg->...g", xs, params["w_x"]) + params["b"]

    def grads(product):
        return jax.grad(lambda p, x: jnp.sin(product(p, x)).sum(), (0, 1))(params, xs)

    # Float64, one or two terms a sum; gradients add at most 30 of them.
    got = input_product("test", params, xs)
    np.testing.assert_allclose(got, plain(params, xs), atol=1e-14)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        grads(lambda p, x: input_product("test", p, x)),
        grads(plain),
    )


def test_one_feature_is_projected_by_a_product_of_two():
    params = {"w_x": jnp.ones((1, 6)), "b": jnp.zeros(6)}
    jaxpr = jax.make_jaxpr(lambda x: input_product("test", params, x))(jnp.ones((5, 1)))
    dots = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert [v.aval.shape for v in dots[0].invars] == [(5, 2), (2, 6)]


@pytest.mark.parametrize("features", [1, 3])
def test_input_product_in_half_precision(features):
    rng = np.random.default_rng(0)
    w_x, b = rng.standard_normal((features, 6)), rng.standard_normal(6)
    xs = rng.standard_normal((5, features))
    params = {"w_x": jnp.asarray(w_x, jnp.bfloat16), "b": jnp.asarray(b, jnp.bfloat16)}
    got = input_product("test", params, jnp.asarray(xs, jnp.float32))
    assert got.dtype == jnp.bfloat16
    # Inputs, weights and results, up to 4 or so, are each rounded by 2⁻⁹.
    np.testing.assert_allclose(got.astype(jnp.float32), xs @ w_x + b, atol=0.06)


def test_wide_product_accumulates_in_float32():
    h, w = jnp.ones((1, 1000)), jnp.full((1000, 1), 1 + 2**-7, jnp.bfloat16)
    got = wide_product(h, w)
    assert got.dtype == jnp.float32
    # Exact in float32; bfloat16 would stop counting ones at 256, or round to 1008.
    np.testing.assert_array_equal(got, [[1007.8125]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalize_takes_its_statistics_in_float32(dtype):
    # Differences of 1 at 128 survive in bfloat16, their mean of 128.5 does not.
    z = jnp.asarray(128 + np.arange(64) % 2, dtype)
    got = normalize(z, jnp.full(64, 2, dtype))
    assert got.dtype == dtype
    want = np.where(np.arange(64) % 2, 2.0, -2.0)
    # ± 1/2 over a deviation of 1/2; epsilon takes 2e-5 of it, bfloat16 rounds 2⁻⁹.
    atol = 1e-4 if dtype == jnp.float32 else 0.02
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=atol)


def test_a_constant_vector_is_normalized_to_zero_with_a_gradient_that_is_finite():
    z = jnp.full(4, 3.0)
    np.testing.assert_array_equal(normalize(z, jnp.ones(4)), np.zeros(4))
    grad = jax.grad(lambda z: normalize(z, jnp.ones(4)) @ jnp.arange(4.0))(z)
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("make", [lstm, gru, rnn])
def test_messages_name_the_cell(make):
    name = make.__name__
    with pytest.raises(ValueError, match=f"{name}: features=0.*integer >= 1"):
        make(0)
    with pytest.raises(ValueError, match=f"{name}: features=True"):
        make(True)
    cell = make(4)
    with pytest.raises(ValueError, match=rf"{name}: feature_shape=\(8, 8\)"):
        cell.init(KEY, (8, 8))
    params = cell.init(KEY, (3,))
    with pytest.raises(ValueError, match=f"{name}: xs has F=2 but w_x wants 3"):
        cell.project(params, jnp.ones((5, 2)))
