"""The GRU."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells import dense
from lstm_jax.initializers import Initializer, orthogonal, per_gate


class GRUCarry(NamedTuple):
    """State of a GRU: `h [*B, D]`, memory and output in one."""

    h: jax.Array


def gru(
    features: int,
    *,
    reset_after: bool = True,
    layer_norm: bool = False,
    gate_fn: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    recurrent_init: Initializer = orthogonal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Cell:
    """GRU whose reset gate is applied after or before the recurrent product.

        r = σ(x W_xr + h_tm1 W_hr + b_r)
        z = σ(x W_xz + h_tm1 W_hz + b_z)
        n = φ(x W_xn + b_xn + r (h_tm1 W_hn + b_n))
        h_t = (1 - z) n + z h_tm1

    Params: `w_x [F, 3D]`, `w_h [D, 3D]`, `b [3D]`, blocks in the order r z n; and
    `b_n [D]`, the bias that the reset gate scales.

    Args:
      features: D, the hidden width, >= 1.
      reset_after: False resets the state before the product, as the paper has it:
        `n = φ(x W_xn + b_xn + (r h_tm1) W_n)`. Params `w_h [D, 2D]`, blocks in the
        order r z, and `w_n [D, D]`; no `b_n`. A step is then two products, one after
        the other.
      layer_norm: N(v) = (v - mean) / sqrt(variance + 1e-5), of r and z together and of
        n alone, makes of each `x W_x` a `gain_x N(x W_x)`, and of each `h_tm1 W_h` a
        `gain_h N(h_tm1 W_h)`. Params `gain_x [3D]` and `gain_h [3D]`, from 1; with
        `reset_after=False` `gain_h [2D]`, and `gain_n [D]` for N((r h_tm1) W_n).
      gate_fn: σ, pointwise, into 0 to 1.
      activation: φ, pointwise.
      use_bias: False leaves out `b` and `b_n`.
      kernel_init: draws each block `[F, D]` of `w_x`.
      recurrent_init: draws each block `[D, D]` of `w_h`.
      bias_init: draws each block `[D]` of `b`, and `b_n`.

    Returns:
      A `Cell` with carry `GRUCarry` and output `h_t [*B, D]`.

    Raises:
      ValueError: if `features` < 1.

    Reference: Cho et al. 2014, eqs. 5-8; layer norm: Ba, Kiros & Hinton 2016, eqs. 29
    to 31. Departs: by default r scales the recurrent product, not `h_tm1` before it, as
    in cuDNN and PyTorch, so that all gates share one product; with layer norm, `b`
    stands for sums of two biases in the paper.
    """
    dense.check_width("gru", features)
    summed = reset_after and not layer_norm

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        width = dense.vector_width("gru", feature_shape)
        key_x, key_h, key_b, key_n = jax.random.split(key, 4)
        gates, blocks = 3 * features, 3 if reset_after else 2  # of w_h
        recurrent = blocks * features
        draw_h = per_gate(recurrent_init, blocks)
        params = {
            "w_x": per_gate(kernel_init, 3)(key_x, (width, gates), dtype),
            "w_h": draw_h(key_h, (features, recurrent), dtype),
        }
        if not reset_after:
            params["w_n"] = recurrent_init(key_n, (features, features), dtype)
        if use_bias:
            params["b"] = per_gate(bias_init, 3)(key_b, (gates,), dtype)
        if use_bias and reset_after:
            params["b_n"] = bias_init(key_n, (features,), dtype)
        if layer_norm:
            params["gain_x"] = jnp.ones(gates, dtype)
            params["gain_h"] = jnp.ones(recurrent, dtype)
        if layer_norm and not reset_after:
            params["gain_n"] = jnp.ones(features, dtype)
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return GRUCarry(jnp.zeros((*batch_shape, features), dtype))

    def project(params, xs: jax.Array | None, *, keys=None) -> jax.Array:
        return dense.input_product("gru", params, xs, bias=not layer_norm)

    def recur(params, carry: GRUCarry) -> tuple[jax.Array, ...]:
        a = dense.wide_product(carry.h, params["w_h"])
        return (a, a[..., 2 * features :]) if summed else (a,)

    def update(h, z, n):
        z = z.astype(h.dtype)
        h = (1 - z) * activation(n).astype(h.dtype) + z * h
        return GRUCarry(h), h

    def gates_apart(params, carry: GRUCarry, u, a) -> tuple[Any, jax.Array]:
        (a,), h = a, carry.h

        def normalize(v, name):
            if not layer_norm:
                return v
            cuts = [2 * features] if v.shape[-1] > 2 * features else []
            parts = jnp.split(v, cuts, axis=-1)  # r and z together, n alone
            normal = jnp.concatenate(list(map(dense.standardize, parts)), axis=-1)
            return (normal * params[name].astype(normal.dtype)).astype(v.dtype)

        u = normalize(u.astype(a.dtype), "gain_x")
        if layer_norm and use_bias:
            u = u + params["b"].astype(u.dtype)
        a = normalize(a, "gain_h")
        u_r, u_z, u_n = jnp.split(u, 3, axis=-1)  # each [*B, D]
        a_r, a_z, *a_n = jnp.split(a, a.shape[-1] // features, axis=-1)
        r, z = gate_fn(u_r + a_r), gate_fn(u_z + a_z)
        if not reset_after:
            n = dense.wide_product(r.astype(h.dtype) * h, params["w_n"])
            if layer_norm:
                n = dense.normalize(n, params["gain_n"])
            return update(h, z, u_n + n)
        (n,) = a_n
        n = n + params["b_n"].astype(n.dtype) if use_bias else n
        return update(h, z, u_n + r * n)

    def gates(params, carry: GRUCarry, u, a) -> tuple[Any, jax.Array]:
        # u_n + r (a_n + b_n), written so that u is only ever added to a: an engine
        # keeps their sum, and a_n beside it. Halves in two leaves each, of r and z and
        # of n, would let it be written plainly, and take 1.25 of the memory.
        a, a_n = a
        r, z, n = jnp.split(u.astype(a.dtype) + a, 3, axis=-1)  # each [*B, D]
        r, z = gate_fn(r), gate_fn(z)
        n = n + (r - 1) * a_n
        n = n + r * params["b_n"].astype(a.dtype) if use_bias else n
        return update(carry.h, z, n)

    run = gates if summed else gates_apart
    return Cell(init, carry, project, recur, run, output=attrgetter("h"))
