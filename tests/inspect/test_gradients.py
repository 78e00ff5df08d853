"""Gradients through time against perturbing the carry by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow

from lstm_jax import lstm, rnn, unroll
from lstm_jax.inspect import carry_gradients, gradient_norms

T, B, F, D = 6, 2, 3, 4


@pytest.mark.parametrize("cell", [lstm(D), slow(rnn(D))])
def test_equals_restarting_from_each_carry(cell):
    params = cell.init(jax.random.key(0), (F,))
    xs = jax.random.normal(jax.random.key(1), (T, B, F))
    weights = jax.random.normal(jax.random.key(2), (B, D))
    grads = carry_gradients(cell, params, xs, lambda ys: (ys[-1] * weights).sum())
    for t in range(T - 1):
        carry = unroll(cell, params, xs[: t + 1]).carry
        want = jax.grad(
            lambda c, rest=xs[t + 1 :]: (
                unroll(cell, params, rest, c).ys[-1] * weights
            ).sum()
        )(carry)
        for got, wanted in zip(grads, want, strict=True):
            np.testing.assert_allclose(got[t], wanted, atol=1e-5)  # float32
    norms = gradient_norms(grads)
    assert norms.shape == (T,) and norms[-1] == 0
    square = sum(np.asarray(leaf[0]) ** 2 for leaf in grads).sum(-1)
    np.testing.assert_allclose(norms[0], np.sqrt(square).mean(), rtol=1e-5)


def test_a_shrinking_rnn_forgets_by_its_factor():
    cell = rnn(D, activation=lambda z: z)
    params = cell.init(jax.random.key(0), (F,))
    params["w_h"] = 0.5 * jnp.eye(D)
    grads = carry_gradients(cell, params, jnp.ones((T, B, F)), lambda ys: ys[-1].sum())
    norms = gradient_norms(grads)
    np.testing.assert_allclose(norms[1:-1] / norms[:-2], 2.0, rtol=1e-6)
