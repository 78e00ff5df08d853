"""Truncated backpropagation against pieces that are run one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import rnn, unroll

T, B, F, D, K = 7, 2, 2, 3, 3
BEGINS = {False: [(0, 3), (3, 6), (6, 7)], True: [(4, 7), (1, 4), (0, 1)]}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True])
def test_truncation_cuts_the_gradient_between_pieces_in_the_order_of_reading(reverse):
    cell, rng = rnn(D), np.random.default_rng(0)
    params = cell.init(jax.random.key(0), (F,), jnp.float64)
    xs = jnp.asarray(rng.standard_normal((T, B, F)))
    carry = cell.carry(params, (B,), (F,), jnp.float64)
    carry = jax.tree.map(lambda leaf: leaf + 0.5, carry)
    weights = jnp.asarray(rng.standard_normal((T, B, D)))

    def truncated(params, xs, carry):
        out = unroll(cell, params, xs, carry, reverse=reverse, tbptt_steps=K)
        return (out.ys * weights).sum() + jnp.sin(out.carry.h).sum()

    def by_hand(params, xs, carry):
        total = 0.0
        for begin, end in BEGINS[reverse]:
            out = unroll(cell, params, xs[begin:end], carry, reverse=reverse)
            carry = jax.lax.stop_gradient(out.carry)
            total += (out.ys * weights[begin:end]).sum()
        return total + jnp.sin(out.carry.h).sum()  # of the last piece, not cut

    @jax.jit
    def both(*at):
        return [jax.value_and_grad(f, (0, 1, 2))(*at) for f in (truncated, by_hand)]

    got, want = both(params, xs, carry)
    # The same sums in another order, in float64.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)
    assert np.abs(got[1][2].h).min() > 0  # the first piece reads what was given
