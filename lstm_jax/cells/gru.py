"""The GRU."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells import dense
from lstm_jax.initializers import Initializer, glorot, orthogonal, per_gate, zeros


class GRUCarry(NamedTuple):
    """State of a GRU: `h [*B, D]`, memory and output in one."""

    h: jax.Array


def gru(
    features: int,
    *,
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    kernel_init: Initializer = glorot(),
    recurrent_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros(),
) -> Cell:
    """GRU whose reset gate acts after the recurrent product.

        r = σ(x W_xr + h_tm1 W_hr + b_r)
        z = σ(x W_xz + h_tm1 W_hz + b_z)
        n = φ(x W_xn + b_xn + r (h_tm1 W_hn + b_n))
        h_t = (1 - z) n + z h_tm1

    Params: `w_x [F, 3D]`, `w_h [D, 3D]`, `b [3D]`, blocks in the order r z n; and
    `b_n [D]`, the bias that the reset gate scales.

    Args:
      features: D, the hidden width, >= 1.
      gate: σ, pointwise, into 0 to 1.
      activation: φ, pointwise.
      kernel_init: draws each block `[F, D]` of `w_x`.
      recurrent_init: draws each block `[D, D]` of `w_h`.
      bias_init: draws each block `[D]` of `b`, and `b_n`.

    Returns:
      A `Cell` with carry `GRUCarry` and output `h_t [*B, D]`.

    Raises:
      ValueError: if `features` < 1.

    Reference: Cho et al. 2014, eqs. 5-8. Departs: r scales the recurrent product, not
    `h_tm1` before it, as in cuDNN and PyTorch, so that all gates share one product.
    """
    dense.check_width("gru", features)

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        width = dense.vector_width("gru", feature_shape)
        key_x, key_h, key_b, key_n = jax.random.split(key, 4)
        gates = 3 * features
        return {
            "w_x": per_gate(kernel_init, 3)(key_x, (width, gates), dtype),
            "w_h": per_gate(recurrent_init, 3)(key_h, (features, gates), dtype),
            "b": per_gate(bias_init, 3)(key_b, (gates,), dtype),
            "b_n": bias_init(key_n, (features,), dtype),
        }

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return GRUCarry(jnp.zeros((*batch_shape, features), dtype))

    def project(params, xs: jax.Array | None, *, keys=None) -> jax.Array:
        return dense.input_product("gru", params, xs)

    def recur(params, carry: GRUCarry) -> tuple[jax.Array, jax.Array]:
        a = dense.wide_product(carry.h, params["w_h"])
        return a, a[..., 2 * features :]

    def gates(params, carry: GRUCarry, u, a) -> tuple[Any, jax.Array]:
        # With u only ever added to a, an engine keeps their sum, and a_n beside it.
        a, a_n = a
        r, z, n = jnp.split(u.astype(a.dtype) + a, 3, axis=-1)  # each [*B, D]
        r, z = gate(r), gate(z).astype(carry.h.dtype)
        n = n + (r - 1) * a_n + r * params["b_n"].astype(a.dtype)
        h = (1 - z) * activation(n).astype(carry.h.dtype) + z * carry.h
        return GRUCarry(h), h

    return Cell(init, carry, project, recur, gates, output=attrgetter("h"))
