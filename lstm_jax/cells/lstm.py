"""The LSTM."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells.dense import (
    check_width,
    input_product,
    recurrent_product,
    vector_width,
)
from lstm_jax.initializers import Initializer, glorot, orthogonal, per_gate, zeros


class LSTMCarry(NamedTuple):
    """State of an LSTM: `c [*B, D]`, the memory, and `h [*B, D]`, the output."""

    c: jax.Array
    h: jax.Array


def lstm(
    features: int,
    *,
    forget_bias: float = 1.0,
    kernel_init: Initializer = glorot(),
    recurrent_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros(),
) -> Cell:
    """LSTM with a forget gate and no peepholes.

        i = σ(x W_xi + h_tm1 W_hi + b_i)      g = tanh(x W_xg + h_tm1 W_hg + b_g)
        f = σ(x W_xf + h_tm1 W_hf + b_f)      o = σ(x W_xo + h_tm1 W_ho + b_o)
        c_t = f c_tm1 + i g                   h_t = o tanh(c_t)

    Params: `w_x [F, 4D]`, `w_h [D, 4D]`, `b [4D]`, blocks in the order i f g o.

    Args:
      features: D, the hidden width, >= 1.
      forget_bias: added to `b_f` at initialisation, so that it is a parameter like
        any other and moves with a checkpoint.
      kernel_init: draws each block `[F, D]` of `w_x`.
      recurrent_init: draws each block `[D, D]` of `w_h`.
      bias_init: draws each block `[D]` of `b`.

    Returns:
      A `Cell` with carry `LSTMCarry` and output `h_t [*B, D]`.

    Raises:
      ValueError: if `features` < 1.

    Reference: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber &
    Cummins 2000; its bias of 1: Jozefowicz, Zaremba & Sutskever 2015.
    """
    check_width("lstm", features)

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        width = vector_width("lstm", feature_shape)
        key_x, key_h, key_b = jax.random.split(key, 3)
        gates = 4 * features
        b = per_gate(bias_init, 4)(key_b, (gates,), dtype)
        return {
            "w_x": per_gate(kernel_init, 4)(key_x, (width, gates), dtype),
            "w_h": per_gate(recurrent_init, 4)(key_h, (features, gates), dtype),
            "b": b.at[features : 2 * features].add(jnp.asarray(forget_bias, dtype)),
        }

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32) -> LSTMCarry:
        zero = jnp.zeros((*batch_shape, features), dtype)
        return LSTMCarry(c=zero, h=zero)

    def project(params, xs: jax.Array, *, key=None) -> jax.Array:
        return input_product("lstm", params, xs)

    def recur(params, carry: LSTMCarry) -> jax.Array:
        return recurrent_product(params, carry.h)

    def gates(params, carry: LSTMCarry, u, a) -> tuple[Any, jax.Array]:
        i, f, g, o = jnp.split(u.astype(a.dtype) + a, 4, axis=-1)  # each [*B, D]
        forget = jax.nn.sigmoid(f).astype(carry.c.dtype)
        write = (jax.nn.sigmoid(i) * jnp.tanh(g)).astype(carry.c.dtype)
        c = forget * carry.c + write
        h = jax.nn.sigmoid(o).astype(c.dtype) * jnp.tanh(c)
        return LSTMCarry(c, h), h

    return Cell(init, carry, project, recur, gates, equations="lstm")
