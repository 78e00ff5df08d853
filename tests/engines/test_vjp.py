"""The backward pass where it keeps least: no mask, no resets, as on accelerators."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import gru, lstm, unroll
from lstm_jax.engines.platforms import ACCELERATOR

T, B, F, D = 4, 2, 2, 3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", [lstm, gru])
def test_gradients_equal_those_of_scan_in_both_directions(make, monkeypatch):
    monkeypatch.setattr(
        "lstm_jax.engines.vjp.by_platform", lambda run, *args: run(ACCELERATOR, *args)
    )
    cell, rng = make(D), np.random.default_rng(0)
    params = cell.init(jax.random.key(0), (F,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)
    xs = jnp.asarray(rng.standard_normal((T, B, F)))
    carry = cell.carry(params, (B,), (F,), jnp.float64)
    carry = jax.tree.map(lambda leaf: leaf + 0.5, carry)
    weights = jnp.asarray(rng.standard_normal((T, B, D)))

    def loss(params, xs, carry, **options):
        out = unroll(cell, params, xs, carry, **options)
        return (out.ys * weights).sum() + jnp.sin(out.carry.h).sum()

    @jax.jit
    def gradients(*at):
        run = [
            partial(loss, engine=engine, reverse=reverse)
            for engine in ("vjp", "scan")
            for reverse in (False, True)
        ]
        return [jax.grad(one, (0, 1, 2))(*at) for one in run]

    *got, there, back = gradients(params, xs, carry)
    # The same sums in another order, in float64.
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-11)
    jax.tree.map(close, got, [there, back])
