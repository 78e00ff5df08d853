"""The spatiotemporal LSTM: a memory passed through the layers within each step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells.convolve import (
    check_image,
    check_kernel,
    convolve,
    convolve_steps,
)
from lstm_jax.cells.dense import check_width
from lstm_jax.initializers import Initializer, orthogonal, per_gate


class STLSTMCarry(NamedTuple):
    """State of an `st_lstm` of L layers.

    Attributes:
      c: L arrays `[*B, H, W, D]`, the memory of each layer.
      h: L arrays `[*B, H, W, D]`, the output of each layer.
      m: `[*B, H, W, D]`, the memory that all layers share.
      overlap: `[*B]`, the sum of the decoupling loss over steps and layers; () if not
        requested.
    """

    c: tuple[jax.Array, ...]
    h: tuple[jax.Array, ...]
    m: jax.Array
    overlap: Any


def st_lstm(
    features: int,
    kernel_size: tuple[int, int],
    *,
    layers: int = 1,
    decouple: bool = False,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    recurrent_init: Initializer = orthogonal(),
) -> Cell:
    """Layers of the spatiotemporal LSTM as one cell; `*` is a convolution.

    Layer l reads x = h^(l-1), the first one the input, and m = m^(l-1), the first one
    the m of the top layer one step before:

        i  = σ(W_xi * x + W_hi * h_tm1)        i' = σ(W_xi' * x + W_mi' * m)
        f  = σ(W_xf * x + W_hf * h_tm1 + 1)    f' = σ(W_xf' * x + W_mf' * m + 1)
        g  = tanh(W_xg * x + W_hg * h_tm1)     g' = tanh(W_xg' * x + W_mg' * m)
        c_t = f c_tm1 + i g                    m^l = f' m + i' g'
        o = σ(W_xo * x + W_ho * h_tm1 + W_o * [c_t; m^l])
        h_t = o tanh(W_1 * [c_t; m^l])         W_1 is 1x1

    With `decouple`, the carry accumulates mean_d |cos(A * (i g), A * (i' g'))|, over
    space and per channel d; added to the loss, it decorrelates the two memories.

    Params: {"layers": L dicts of `w_x [*k, C or D, 7D]` (blocks i f g i' f' g' o),
    `w_h [*k, D, 4D]` (i f g o), `w_m [*k, D, 3D]`, `w_o [*k, 2D, D]`, `w_1 [1, 1, 2D,
    D]`; with `decouple` also "adapter", A `[1, 1, D, D]`}.

    Args:
      features: D, the channels of every layer.
      kernel_size: (height, width) of all convolutions; they pad with zeros.
      layers: L.
      decouple: accumulates the decoupling loss.
      kernel_init: draws `w_x`, `w_o`, `w_1`, A, a block at a time.
      recurrent_init: draws `w_h` and `w_m`, a block at a time.

    Returns:
      A `Cell` that reads `[*B, H, W, C]`, with carry `STLSTMCarry` and output that of
      the top layer, `[*B, H, W, D]`.

    Raises:
      ValueError: if a number is out of its range, or inputs do not fit.

    Reference: Wang et al. 2017, PredRNN, eq. 5; the decoupling: Wang et al. 2021,
    PredRNN-V2, eq. 6. Departs: they have biases; the 1 of f, f' is their code's.
    """
    check_width("st_lstm", features)
    check_width("st_lstm", layers, "layers")
    check_kernel("st_lstm", kernel_size)

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        check_image("st_lstm", feature_shape)

        def layer(key, channels):
            shapes = {  # kernel, channels read, blocks, draw
                "w_x": (kernel_size, channels, 7, kernel_init),
                "w_h": (kernel_size, features, 4, recurrent_init),
                "w_m": (kernel_size, features, 3, recurrent_init),
                "w_o": (kernel_size, 2 * features, 1, kernel_init),
                "w_1": ((1, 1), 2 * features, 1, kernel_init),
            }
            return {
                name: per_gate(draw, blocks)(
                    k, (*size, reads, blocks * features), dtype
                )
                for k, (name, (size, reads, blocks, draw)) in zip(
                    jax.random.split(key, len(shapes)), shapes.items(), strict=True
                )
            }

        *keys, key_a = jax.random.split(key, layers + 1)
        channels = (feature_shape[-1], *(features,) * (layers - 1))
        params = {"layers": tuple(map(layer, keys, channels))}
        if decouple:
            shape = (1, 1, features, features)
            params["adapter"] = kernel_init(key_a, shape, dtype)
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        zero = jnp.zeros((*batch_shape, *feature_shape[:2], features), dtype)
        overlap = jnp.zeros(batch_shape, dtype) if decouple else ()
        return STLSTMCarry((zero,) * layers, (zero,) * layers, zero, overlap)

    def project(params, xs, *, keys=None):
        w_x = params["layers"][0]["w_x"]
        if xs is None:
            return jnp.zeros(w_x.shape[-1], w_x.dtype)
        if xs.shape[-1] != w_x.shape[-2]:
            raise ValueError(
                f"st_lstm: xs has C={xs.shape[-1]} but w_x wants {w_x.shape[-2]}; "
                f"make params with cell.init(key, {xs.shape[-3:]})"
            )
        us = convolve_steps(xs.astype(w_x.dtype), w_x, (1, 1), "SAME", (1, 1))
        return us.astype(w_x.dtype)

    def recur(params, carry: STLSTMCarry):
        from_h = [
            _same(h, p["w_h"]) for p, h in zip(params["layers"], carry.h, strict=True)
        ]
        return tuple(from_h), _same(carry.m, params["layers"][0]["w_m"])

    def gates(params, carry: STLSTMCarry, u, a) -> tuple[Any, jax.Array]:
        from_h, from_m = a
        m, overlap = carry.m, carry.overlap
        cs, hs = [], []
        for layer, p in enumerate(params["layers"]):
            if layer:
                u, from_m = _same(hs[-1], p["w_x"]), _same(m, p["w_m"])
            c, h, m, new = _layer(p, carry.c[layer], m, u, from_h[layer], from_m)
            cs.append(c)
            hs.append(h)
            if decouple:
                c_m = [_same(x, params["adapter"]) for x in new]
                overlap += _cosine(*c_m).astype(overlap.dtype)
        return STLSTMCarry(tuple(cs), tuple(hs), m, overlap), hs[-1]

    def output(carry):
        return carry.h[-1]

    return Cell(init, carry, project, recur, gates, 3, output=output)


def _layer(p, c, m, u, from_h, from_m):
    """`(c_t, h_t, m, (i g, i' g'))` of one layer, all `[*B, H, W, D]`."""
    sigmoid = jax.nn.sigmoid
    u = u.astype(from_h.dtype)
    width = c.shape[-1]
    ifg, ifg_m, o = jnp.split(u, [3 * width, 6 * width], axis=-1)
    i, f, g = jnp.split(ifg + from_h[..., : 3 * width], 3, axis=-1)
    i_m, f_m, g_m = jnp.split(ifg_m + from_m, 3, axis=-1)
    write = (sigmoid(i) * jnp.tanh(g)).astype(c.dtype)
    write_m = (sigmoid(i_m) * jnp.tanh(g_m)).astype(m.dtype)
    c = sigmoid(f + 1).astype(c.dtype) * c + write
    m = sigmoid(f_m + 1).astype(m.dtype) * m + write_m
    memories = jnp.concatenate([c, m], axis=-1)
    o = sigmoid(o + from_h[..., 3 * width :] + _same(memories, p["w_o"]))
    h = o.astype(c.dtype) * jnp.tanh(_same(memories, p["w_1"])).astype(c.dtype)
    return c, h, m, (write, write_m)


def _same(x, w):
    return convolve(x.astype(w.dtype), w, (1, 1), "SAME", (1, 1))


def _cosine(a, b):
    """Mean over channels of |cos| between two maps, `[*B, H, W, D] -> [*B]`."""

    def length(x):
        return jnp.sqrt(jnp.square(x).sum((-3, -2)) + 1e-12)

    cosine = (a * b).sum((-3, -2)) / (length(a) * length(b))  # [*B, D]
    return jnp.abs(cosine).mean(-1)
