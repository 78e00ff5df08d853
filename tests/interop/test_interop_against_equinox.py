"""Equinox's cells by their own weights: the same in float64."""

import jax
import jax.numpy as jnp
import pytest
from agreement import B, D, F, T, agree, draw, identical, ours

from lstm_jax import gru, lstm, unroll
from lstm_jax.interop import (
    from_equinox,
    from_equinox_carry,
    to_equinox,
    to_equinox_carry,
)

eqx = pytest.importorskip("equinox", reason="Equinox is compared with, not required")

pytestmark = pytest.mark.slow  # compared in `make test-all`
CELLS = {"lstm": (lstm(D), eqx.nn.LSTMCell), "gru": (gru(D), eqx.nn.GRUCell)}
FIELDS = "weight_ih", "weight_hh", "bias", "bias_n"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_equals_equinox(kind, bias):
    cell, Module = CELLS[kind]
    module = Module(F, D, use_bias=bias, key=jax.random.key(0))
    fields = {n: getattr(module, n) for n in FIELDS if hasattr(module, n)}
    assert all(a.dtype == jnp.float64 for a in jax.tree.leaves(fields))
    weights = {n: a for n, a in fields.items() if a is not None}
    xs = draw(8, T, B, F)
    states = tuple(draw(k, B, D) for k in (9, 10))
    states = states if kind == "lstm" else states[0]

    def run(weights, xs, states):
        carry = from_equinox_carry(states, kind)
        ys, carry = unroll(cell, from_equinox(weights), xs, carry, engine="scan")
        return ys, to_equinox_carry(carry)

    def their_run(weights, xs, states):
        names = tuple(weights)
        filled = eqx.tree_at(
            lambda m: [getattr(m, n) for n in names], module, list(weights.values())
        )
        ys = []
        for x in xs:
            states = jax.vmap(filled)(x, states)
            ys.append(states[0] if kind == "lstm" else states)
        return jnp.stack(ys), states

    agree(run, their_run, weights, xs, states)

    params = from_equinox(fields)
    identical(to_equinox(params, bias=bias), weights)
    if bias:
        identical(from_equinox(to_equinox(ours(kind))), ours(kind))
