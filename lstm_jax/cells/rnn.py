"""The vanilla recurrent network."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells import dense
from lstm_jax.initializers import Initializer, orthogonal


class RNNCarry(NamedTuple):
    """State of a vanilla RNN: `h [*B, D]`."""

    h: jax.Array


def rnn(
    features: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    recurrent_init: Initializer = orthogonal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Cell:
    """Vanilla RNN, whose state is its output.

        h_t = φ(x_t W_x + h_tm1 W_h + b)

    Params: `w_x [F, D]`, `w_h [D, D]`, `b [D]`.

    Args:
      features: D, the hidden width, >= 1.
      activation: φ, pointwise: `jnp.tanh`, `jax.nn.relu`, `jax.nn.leaky_relu`.
      use_bias: False leaves out `b`.
      kernel_init: draws `w_x`.
      recurrent_init: draws `w_h`.
      bias_init: draws `b`.

    Returns:
      A `Cell` with carry `RNNCarry` and output `h_t [*B, D]`.

    Raises:
      ValueError: if `features` < 1.

    Reference: Elman 1990. With ReLU: Le, Jaitly & Hinton 2015.
    """
    dense.check_width("rnn", features)

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        width = dense.vector_width("rnn", feature_shape)
        key_x, key_h, key_b = jax.random.split(key, 3)
        params = {
            "w_x": kernel_init(key_x, (width, features), dtype),
            "w_h": recurrent_init(key_h, (features, features), dtype),
        }
        b = {"b": bias_init(key_b, (features,), dtype)} if use_bias else {}
        return params | b

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return RNNCarry(jnp.zeros((*batch_shape, features), dtype))

    def project(params, xs: jax.Array | None, *, keys=None) -> jax.Array:
        return dense.input_product("rnn", params, xs)

    def recur(params, carry: RNNCarry) -> jax.Array:
        return dense.wide_product(carry.h, params["w_h"])

    def gates(params, carry: RNNCarry, u, a) -> tuple[Any, jax.Array]:
        h = activation(u.astype(a.dtype) + a).astype(carry.h.dtype)
        return RNNCarry(h), h

    return Cell(init, carry, project, recur, gates, output=attrgetter("h"))
