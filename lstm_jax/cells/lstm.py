"""The LSTM and its variants from the literature."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells import dense
from lstm_jax.initializers import Initializer, orthogonal, per_gate


class LSTMCarry(NamedTuple):
    """State of an LSTM: cell state `c [*B, D]` and output `h [*B, D or P]`."""

    c: jax.Array
    h: jax.Array


def lstm(
    features: int,
    *,
    peepholes: bool = False,
    layer_norm: bool = False,
    proj_size: int | None = None,
    cifg: bool = False,
    gate_fn: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    use_bias: bool = True,
    forget_bias: float | Initializer = 1.0,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    recurrent_init: Initializer = orthogonal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Cell:
    """LSTM with a forget gate; its options compose in any combination.

        i = σ(x W_xi + h_tm1 W_hi + b_i)      g = tanh(x W_xg + h_tm1 W_hg + b_g)
        f = σ(x W_xf + h_tm1 W_hf + b_f)      o = σ(x W_xo + h_tm1 W_ho + b_o)
        c_t = f c_tm1 + i g                   h_t = o tanh(c_t)

    Params: `w_x [F, 4D]`, `w_h [D, 4D]`, `b [4D]`, blocks in the order i f g o.

    Args:
      features: D, the hidden width, >= 1.
      peepholes: gates depend on the cell state: i and f add `p_i c_tm1` and
        `p_f c_tm1` before σ, o adds `p_o c_t`. Params `p_i`, `p_f`, `p_o`, each
        `[D]`, from 0.
      layer_norm: N(z) = (z - mean) / sqrt(variance + 1e-5), over all gates together,
        makes the sum `gain_x N(x W_x) + gain_h N(h_tm1 W_h) + b`, and
        `h_t = o tanh(gain_c N(c_t) + b_c)`. Params `gain_x [4D]`, `gain_h [4D]`,
        `gain_c [D]`, from 1, and `b_c [D]`, from 0. Not for F = 1: the norm leaves
        little more of a single number than its sign.
      proj_size: P, so that `h_t = (o tanh(c_t)) W_p` has P features. Params
        `w_p [D, P]`, and then `w_h [P, 4D]`.
      cifg: coupled input and forget gates, f = 1 - i, and one block fewer: 3D instead
        of 4D, in the order i g o.
      gate_fn: σ, pointwise, into 0 to 1, such as `jax.nn.hard_sigmoid`.
      activation: in place of both tanh, pointwise.
      use_bias: False leaves out `b`, and with it the forget bias; also `b_c`.
      forget_bias: added to `b_f` at initialisation, so that it is a parameter like
        any other and moves with a checkpoint. An initialiser, such as
        `initializers.chrono(784)`, draws it and is taken from `b_i` as well. With
        `cifg` either is taken from `b_i` alone: σ(-b) = 1 - σ(b).
      kernel_init: draws each block `[F, D]` of `w_x`, and `w_p`.
      recurrent_init: draws each block `[D, D]` of `w_h`.
      bias_init: draws each block `[D]` of `b`.

    Returns:
      A `Cell` with carry `LSTMCarry` and output `h_t [*B, D]`, or `[*B, P]`.

    Raises:
      ValueError: if `features` or `proj_size` < 1.

    Reference: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber &
    Cummins 2000; its bias of 1: Jozefowicz, Zaremba & Sutskever 2015; peepholes: Gers
    & Schmidhuber 2000; layer norm: Ba, Kiros & Hinton 2016; projection:
    Sak, Senior & Beaufays 2014; coupled gates: Greff et al. 2017.
    Departs: with layer norm, `b` stands for a sum of three biases in the paper.
    """
    dense.check_width("lstm", features)
    if proj_size is not None:
        dense.check_width("lstm", proj_size, "proj_size")
    outputs = proj_size or features
    blocks = 3 if cifg else 4
    plain = use_bias and not (peepholes or layer_norm or proj_size or cifg)
    plain = plain and gate_fn is jax.nn.sigmoid and activation is jnp.tanh

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        width = dense.vector_width("lstm", feature_shape)
        key_x, key_h, key_b, key_f, key_p = jax.random.split(key, 5)
        gates = blocks * features
        params = {
            "w_x": per_gate(kernel_init, blocks)(key_x, (width, gates), dtype),
            "w_h": per_gate(recurrent_init, blocks)(key_h, (outputs, gates), dtype),
        }
        if use_bias:
            b = per_gate(bias_init, blocks)(key_b, (gates,), dtype)
            drawn = callable(forget_bias)
            b_f = forget_bias(key_f, (features,), dtype) if drawn else forget_bias
            b_f = jnp.asarray(b_f, dtype)
            if not cifg:
                b = b.at[features : 2 * features].add(b_f)
            if cifg or drawn:
                b = b.at[:features].add(-b_f)
            params["b"] = b
        if peepholes:
            for name in ("p_i", "p_o") if cifg else ("p_i", "p_f", "p_o"):
                params[name] = jnp.zeros(features, dtype)
        if layer_norm:
            params["gain_x"] = jnp.ones(gates, dtype)
            params["gain_h"] = jnp.ones(gates, dtype)
            params["gain_c"] = jnp.ones(features, dtype)
            if use_bias:
                params["b_c"] = jnp.zeros(features, dtype)
        if proj_size:
            params["w_p"] = kernel_init(key_p, (features, proj_size), dtype)
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        c = jnp.zeros((*batch_shape, features), dtype)
        return LSTMCarry(c, h=jnp.zeros((*batch_shape, outputs), dtype))

    def project(params, xs: jax.Array | None, *, keys=None) -> jax.Array:
        return dense.input_product("lstm", params, xs, bias=not layer_norm)

    def recur(params, carry: LSTMCarry) -> jax.Array:
        return dense.wide_product(carry.h, params["w_h"])

    def gates(params, carry: LSTMCarry, u, a) -> tuple[Any, jax.Array]:
        def peek(name, z, c):
            if not peepholes:
                return z
            return z + params[name].astype(z.dtype) * c.astype(z.dtype)

        if layer_norm:
            a = dense.normalize(a, params["gain_h"])
            a = a + params["b"].astype(a.dtype) if use_bias else a
            u = dense.normalize(u, params["gain_x"])
        z = u.astype(a.dtype) + a  # [*B, G]
        i, *f, g, o = jnp.split(z, blocks, axis=-1)  # each [*B, D]; no f with cifg

        i = gate_fn(peek("p_i", i, carry.c))
        f = 1 - i if cifg else gate_fn(peek("p_f", *f, carry.c))
        write = i * activation(g)
        c = f.astype(carry.c.dtype) * carry.c + write.astype(carry.c.dtype)

        o = gate_fn(peek("p_o", o, c))
        seen = c
        if layer_norm:
            seen = dense.normalize(c, params["gain_c"])
            seen = seen + params["b_c"].astype(c.dtype) if use_bias else seen
        h = o.astype(c.dtype) * activation(seen)
        if proj_size:
            h = dense.wide_product(h, params["w_p"]).astype(carry.h.dtype)
        return LSTMCarry(c, h), h

    equations = "lstm" if plain else None
    output = attrgetter("h")
    return Cell(init, carry, project, recur, gates, equations=equations, output=output)
