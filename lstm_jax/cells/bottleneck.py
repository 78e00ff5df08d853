"""An efficient convolutional LSTM: separable convolutions with a bottleneck."""

import itertools
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.cells.convolve import check_image, check_kernel
from lstm_jax.cells.dense import check_width
from lstm_jax.cells.lstm import LSTMCarry
from lstm_jax.initializers import Initializer, per_gate


def bottleneck_conv_lstm(
    features: int,
    kernel_size: tuple[int, int] = (3, 3),
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu6,
    forget_bias: float = 1.0,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
) -> Cell:
    """Bottleneck-LSTM over images; S is a depthwise convolution, then one of 1x1.

        b_t = φ(S_b * [x_t; h_tm1])
        i, f, g, o = blocks of S * b_t + b
        c_t = σ(f) c_tm1 + σ(i) φ(g)              h_t = σ(o) φ(c_t)

    Params: depthwise `d_x [*k, C]`, `d_h [*k, D]`, `d_b [*k, D]`; 1x1 `w_x [C, D]`,
    `w_h [D, D]`, `w_b [D, 4D]`, blocks i f g o; `b_b [D]`, `b [4D]`.

    Args:
      features: D, the channels of the state, >= 1.
      kernel_size: (height, width) of all depthwise convolutions; they pad with zeros.
      activation: φ, pointwise.
      forget_bias: added to `b_f` at initialisation.
      kernel_init: draws the kernels, `w_b` a block at a time.

    Returns:
      A `Cell` that reads `[*B, H, W, C]`, with carry `LSTMCarry` and output `h_t`,
      `[*B, H, W, D]`.

    Raises:
      ValueError: if a number is out of its range, or inputs do not fit.

    Reference: Liu & Zhu 2018, Mobile Video Object Detection with Temporally-Aware
    Feature Maps, section 3.3. Departs: they have no forget bias.
    """
    check_width("bottleneck_conv_lstm", features)
    check_kernel("bottleneck_conv_lstm", kernel_size)

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        check_image("bottleneck_conv_lstm", feature_shape)
        channels = feature_shape[-1]
        keys = iter(jax.random.split(key, 6))

        def depthwise(width):
            shape = (*kernel_size, 1, width)
            return kernel_init(next(keys), shape, dtype)[..., 0, :]

        params = {
            "d_x": depthwise(channels),
            "d_h": depthwise(features),
            "d_b": depthwise(features),
            "w_x": kernel_init(next(keys), (channels, features), dtype),
            "w_h": kernel_init(next(keys), (features, features), dtype),
            "w_b": per_gate(kernel_init, 4)(
                next(keys), (features, 4 * features), dtype
            ),
            "b_b": jnp.zeros((features,), dtype),
        }
        b = jnp.zeros((4 * features,), dtype)
        forget = jnp.asarray(forget_bias, dtype)
        return params | {"b": b.at[features : 2 * features].add(forget)}

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        zero = jnp.zeros((*batch_shape, *feature_shape[:2], features), dtype)
        return LSTMCarry(c=zero, h=zero)

    def project(params, xs, *, keys=None):
        w_x = params["w_x"]
        if xs is None:
            return params["b_b"]
        if xs.shape[-1] != w_x.shape[0]:
            raise ValueError(
                f"bottleneck_conv_lstm: xs has C={xs.shape[-1]} but w_x wants "
                f"{w_x.shape[0]}; make params with cell.init(key, {xs.shape[-3:]})"
            )
        return _separable(xs, params["d_x"], w_x).astype(w_x.dtype) + params["b_b"]

    def recur(params, carry: LSTMCarry) -> jax.Array:
        return _separable(carry.h, params["d_h"], params["w_h"])

    def gates(params, carry: LSTMCarry, u, a) -> tuple[Any, jax.Array]:
        c = carry.c
        b = activation(u.astype(a.dtype) + a)
        z = _separable(b, params["d_b"], params["w_b"])
        z += params["b"].astype(z.dtype)
        i, f, g, o = jnp.split(z, 4, axis=-1)  # [*B, H, W, D]
        write = jax.nn.sigmoid(i) * activation(g)
        c = jax.nn.sigmoid(f).astype(c.dtype) * c + write.astype(c.dtype)
        h = jax.nn.sigmoid(o).astype(c.dtype) * activation(c)
        return LSTMCarry(c, h), h

    return Cell(init, carry, project, recur, gates, 3, output=attrgetter("h"))


def _separable(x, depthwise, pointwise):
    """`[*B, H, W, C]` by `[*k, C]` and `[C, D]`: `[*B, H, W, D]`, float32 at least.

    Shifted products instead of a grouped convolution, which XLA runs slowly on a CPU.
    """
    wide = at_least_float32(pointwise.dtype)
    x = x.astype(pointwise.dtype)
    h, w = x.shape[-3:-1]
    before = [(k - 1) // 2 for k in depthwise.shape[:2]]
    after = [k // 2 for k in depthwise.shape[:2]]
    edges = [(0, 0)] * (x.ndim - 3) + [*zip(before, after, strict=True), (0, 0)]
    x = jnp.pad(x, edges)
    y = jnp.zeros((), x.dtype)
    for i, j in itertools.product(*map(range, depthwise.shape[:2])):
        y += x[..., i : i + h, j : j + w, :] * depthwise[i, j]
    return jnp.matmul(y, pointwise, preferred_element_type=wide)
