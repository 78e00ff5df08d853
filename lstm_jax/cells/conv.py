"""Convolutional LSTM and GRU, for sequences of images."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.cells.convolve import convolve, convolve_steps
from lstm_jax.cells.dense import check_width
from lstm_jax.cells.gru import GRUCarry
from lstm_jax.cells.lstm import LSTMCarry
from lstm_jax.initializers import Initializer, orthogonal, per_gate
from lstm_jax.validation import is_count

EPSILON = 1e-5  # added to the variance in group norm


def conv_lstm(
    features: int,
    kernel_size: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    padding: str = "SAME",
    recurrent_kernel_size: tuple[int, ...] | None = None,
    peepholes: str | None = None,
    group_norm: int | None = None,
    gate_fn: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    use_bias: bool = True,
    forget_bias: float = 1.0,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    recurrent_init: Initializer = orthogonal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Cell:
    """Convolutional LSTM, over lines, images or volumes; `*` is a convolution.

        i = σ(W_xi * x + W_hi * h_tm1 + b_i)      g = φ(W_xg * x + W_hg * h_tm1 + b_g)
        f = σ(W_xf * x + W_hf * h_tm1 + b_f)      o = σ(W_xo * x + W_ho * h_tm1 + b_o)
        c_t = f c_tm1 + i g                       h_t = o φ(c_t)

    With peepholes, `p_i c_tm1`, `p_f c_tm1` and `p_o c_t` join the sums of i, f, o.
    With a group norm N, which has a gain and no shift, the sum of each gate is
    `N(W_x * x) + N(W_h * h_tm1) + b`; zeros pass it unchanged.

    Params: `w_x [*k, C, 4D]`, `w_h [*k, D, 4D]`, `b [4D]`, blocks in the order
    i f g o; peepholes `p_i`, `p_f`, `p_o`, `[D]` or `[*space, D]`, from 0; gains of
    the norms, `gain_x [4D]` and `gain_h [4D]`, from 1.

    Args:
      features: D, the channels of the state, >= 1.
      kernel_size: of the input convolution; 1 to 3 integers, one a spatial axis.
      stride: of the input convolution; one integer, or one a spatial axis. The
        recurrent convolution always has stride 1, no dilation, and pads with zeros.
      dilation: of the input convolution.
      padding: of the input convolution, "SAME" or "VALID".
      recurrent_kernel_size: by default `kernel_size`.
      peepholes: None; "channel", one weight a channel; or "position", one weight a
        channel and position, which ties params to the size of the images.
      group_norm: None, or the number of groups in each gate's D channels. Statistics
        are those of one gate, one step and one example: over space and the channels
        of a group.
      gate_fn: σ, pointwise.
      activation: φ, pointwise.
      use_bias: False leaves out `b`, and with it the forget bias.
      forget_bias: added to `b_f` at initialisation.
      kernel_init: draws each block `[*k, C, D]` of `w_x`.
      recurrent_init: draws each block `[*k, D, D]` of `w_h`.
      bias_init: draws each block `[D]` of `b`.

    Returns:
      A `Cell` that reads `[*B, *space, C]`, with carry `LSTMCarry` and output `h_t`,
      `[*B, *space, D]`, whose space is that of the input convolution's output. Made
      for C = 0 it has no input weights, and runs without input.

    Raises:
      ValueError: if an argument is out of its range, or inputs do not fit it.

    Reference: Shi et al. 2015, eq. 3, whose peepholes are "position". Group norm: Wu
    & He 2018. Departs: Shi et al. have no forget bias.
    """
    check_width("conv_lstm", features)
    recurrent_kernel = recurrent_kernel_size or kernel_size
    window = _window(
        "conv_lstm", kernel_size, recurrent_kernel, stride, dilation, padding
    )
    inits = kernel_init, recurrent_init, bias_init
    halves = _halves("conv_lstm", 4, features, window, group_norm, inits, use_bias)
    if peepholes not in (None, "channel", "position"):
        raise ValueError(
            f"conv_lstm: peepholes={peepholes!r}; pass None, 'channel' or 'position'"
        )

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        params = halves.init(key, feature_shape, dtype)
        if use_bias:
            forget = jnp.asarray(forget_bias, dtype)
            params["b"] = params["b"].at[features : 2 * features].add(forget)
        if peepholes:
            space = halves.space(feature_shape) if peepholes == "position" else ()
            for name in ("p_i", "p_f", "p_o"):
                params[name] = jnp.zeros((*space, features), dtype)
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        space = halves.space(feature_shape)
        if peepholes == "position" and params["p_i"].shape[:-1] != space:
            raise ValueError(
                f"conv_lstm: the state has space {space}, but peepholes 'position' "
                f"were made for {params['p_i'].shape[:-1]}; make params with "
                f"cell.init(key, {tuple(feature_shape)}), or use peepholes='channel'"
            )
        zero = jnp.zeros((*batch_shape, *space, features), dtype)
        return LSTMCarry(c=zero, h=zero)

    def recur(params, carry: LSTMCarry) -> jax.Array:
        return halves.recur(params["w_h"], carry.h)

    def peek(p, z, c):
        return z + p.astype(z.dtype) * c.astype(z.dtype)

    def gates(params, carry: LSTMCarry, u, a) -> tuple[Any, jax.Array]:
        c = carry.c
        a = halves.normalise(params.get("gain_h"), a)
        i, f, g, o = jnp.split(u.astype(a.dtype) + a, 4, axis=-1)  # [*B, *space, D]
        if peepholes:
            i, f = peek(params["p_i"], i, c), peek(params["p_f"], f, c)
        c = gate_fn(f).astype(c.dtype) * c + (gate_fn(i) * activation(g)).astype(
            c.dtype
        )
        if peepholes:
            o = peek(params["p_o"], o, c)
        h = gate_fn(o).astype(c.dtype) * activation(c)
        return LSTMCarry(c, h), h

    project, rank = halves.project, halves.feature_ndim
    return Cell(init, carry, project, recur, gates, rank, output=attrgetter("h"))


def conv_gru(
    features: int,
    kernel_size: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    padding: str = "SAME",
    recurrent_kernel_size: tuple[int, ...] | None = None,
    reset_after: bool = True,
    group_norm: int | None = None,
    gate_fn: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    recurrent_init: Initializer = orthogonal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Cell:
    """Convolutional GRU, over lines, images or volumes; `*` is a convolution.

        r = σ(W_xr * x + W_hr * h_tm1 + b_r)
        z = σ(W_xz * x + W_hz * h_tm1 + b_z)
        n = φ(W_xn * x + b_xn + r (W_hn * h_tm1 + b_n))
        h_t = (1 - z) n + z h_tm1

    With a group norm N, `N(W_x * x)` and `N(W_h * h_tm1)` take the places of the
    convolutions; it has a gain and no shift.

    Params: `w_x [*k, C, 3D]`, `w_h [*k, D, 3D]`, `b [3D]`, blocks in the order r z n;
    `b_n [D]`, the bias inside the reset; gains of the norms, `gain_x [3D]` and
    `gain_h [3D]`, from 1.

    Args:
      features: D, the channels of the state, >= 1.
      kernel_size: of the input convolution; 1 to 3 integers, one a spatial axis.
      stride, dilation, padding: of the input convolution, as in `conv_lstm`.
      recurrent_kernel_size: by default `kernel_size`.
      reset_after: False resets the state before the convolution, as the paper has it:
        `n = φ(W_xn * x + b_xn + W_n * (r h_tm1))`. Params `w_h [*k, D, 2D]`, blocks in
        the order r z, and `w_n [*k, D, D]`; no `b_n`; of the norms `gain_h [2D]`, and
        `gain_n [D]` for N(W_n * (r h_tm1)). A step is then two convolutions, one after
        the other.
      group_norm: None, or the number of groups in each gate's D channels, as in
        `conv_lstm`.
      gate_fn: σ, pointwise.
      activation: φ, pointwise.
      use_bias: False leaves out `b` and `b_n`.
      kernel_init: draws each block `[*k, C, D]` of `w_x`.
      recurrent_init: draws each block `[*k, D, D]` of `w_h`.
      bias_init: draws each block `[D]` of `b`, and `b_n`.

    Returns:
      A `Cell` that reads `[*B, *space, C]`, with carry `GRUCarry` and output `h_t`,
      `[*B, *space, D]`, whose space is that of the input convolution's output.

    Raises:
      ValueError: if an argument is out of its range, or inputs do not fit it.

    Reference: Ballas et al. 2016, section 3.1. Departs: by default r scales what the
    convolution puts out, as in cuDNN, so that all three gates need one convolution.
    """
    check_width("conv_gru", features)
    recurrent_kernel = recurrent_kernel_size or kernel_size
    window = _window(
        "conv_gru", kernel_size, recurrent_kernel, stride, dilation, padding
    )
    inits = kernel_init, recurrent_init, bias_init
    blocks = 3 if reset_after else 2  # of w_h
    options = group_norm, inits, use_bias, blocks
    halves = _halves("conv_gru", 3, features, window, *options)

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        key_halves, key_n = jax.random.split(key)
        params = halves.init(key_halves, feature_shape, dtype)
        if not reset_after:
            kernel = (*window.recurrent_kernel, features, features)
            params["w_n"] = recurrent_init(key_n, kernel, dtype)
        if use_bias and reset_after:
            params["b_n"] = bias_init(key_n, (features,), dtype)
        if group_norm and not reset_after:
            params["gain_n"] = jnp.ones(features, dtype)
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        space = halves.space(feature_shape)
        return GRUCarry(jnp.zeros((*batch_shape, *space, features), dtype))

    def recur(params, carry: GRUCarry) -> jax.Array:
        return halves.recur(params["w_h"], carry.h)

    def gates(params, carry: GRUCarry, u, a) -> tuple[Any, jax.Array]:
        h = carry.h
        a = halves.normalise(params.get("gain_h"), a)
        u_r, u_z, u_n = jnp.split(u.astype(a.dtype), 3, axis=-1)  # [*B, *space, D]
        a_r, a_z, *a_n = jnp.split(a, blocks, axis=-1)
        r, z = gate_fn(u_r + a_r), gate_fn(u_z + a_z).astype(h.dtype)
        if reset_after:
            (a_n,) = a_n
            a_n = r * (a_n + params["b_n"].astype(a.dtype) if use_bias else a_n)
        else:
            a_n = halves.recur(params["w_n"], r.astype(h.dtype) * h)
            a_n = halves.normalise(params.get("gain_n"), a_n)
        n = activation(u_n + a_n)
        h = (1 - z) * n.astype(h.dtype) + z * h
        return GRUCarry(h), h

    project, rank = halves.project, halves.feature_ndim
    return Cell(init, carry, project, recur, gates, rank, output=attrgetter("h"))


class _Halves(NamedTuple):
    """What the cells share: their params, and both halves of the pre-activations."""

    init: Callable  # (key, feature_shape, dtype) -> params
    space: Callable  # (feature_shape) -> spatial shape of the state
    project: Callable  # (params, xs, *, keys) -> us, as in `Cell`
    recur: Callable  # (w, h) -> a
    normalise: Callable  # (gain, a) -> a, by the group norm if there is one
    feature_ndim: int


class _Window(NamedTuple):
    """What the convolutions of a step look at; all but the second is the input's."""

    kernel: tuple[int, ...]
    recurrent_kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str


def _window(caller, kernel, recurrent_kernel, stride, dilation, padding) -> _Window:
    """The window of these arguments, one integer an axis, or a `ValueError`."""
    if not isinstance(kernel, tuple | list) or not 1 <= len(kernel) <= 3:
        raise ValueError(
            f"{caller}: kernel_size={kernel!r}, but its length is the number of "
            "spatial axes, 1 to 3: pass (3, 3) for images"
        )
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"{caller}: padding={padding!r}; pass 'SAME' or 'VALID'")
    rank = len(kernel)

    def per_axis(name, value):
        values = value if isinstance(value, tuple | list) else (value,) * rank
        if len(values) != rank or not all(map(is_count, values)):
            raise ValueError(
                f"{caller}: {name}={value!r}, but kernel_size={kernel} has {rank} "
                f"spatial axes: pass one integer >= 1 for each"
            )
        return tuple(values)

    return _Window(
        per_axis("kernel_size", kernel),
        per_axis("recurrent_kernel_size", recurrent_kernel),
        per_axis("stride", stride),
        per_axis("dilation", dilation),
        padding,
    )


def _halves(
    caller: str,
    gates: int,
    features: int,
    window: _Window,
    group_norm: int | None,
    inits: tuple[Initializer, Initializer, Initializer],
    use_bias: bool = True,
    recurrent_gates: int | None = None,
) -> _Halves:
    """The shared functions of a cell with `gates` blocks of D channels.

    Its `w_h` has `recurrent_gates` of them, by default as many.
    """
    recurrent_gates = recurrent_gates or gates
    grouped = group_norm is None or is_count(group_norm)
    if not grouped or group_norm and features % group_norm:
        raise ValueError(
            f"{caller}: group_norm={group_norm} must divide features={features}"
        )
    rank, width = len(window.kernel), gates * features

    def convolve_input(x, w_x):
        return convolve(x, w_x, window.stride, window.padding, window.dilation)

    def space(feature_shape):
        if len(feature_shape) != rank + 1:
            axes = ("W, C", "H, W, C", "depth, H, W, C")[rank - 1]
            raise ValueError(
                f"{caller}: feature_shape={tuple(feature_shape)}, but "
                f"kernel_size={window.kernel} has {rank} spatial axes: pass ({axes})"
            )
        shapes = (*feature_shape[:-1], 1), (*window.kernel, 1, features)
        x, w_x = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
        out = jax.eval_shape(convolve_input, x, w_x).shape[:-1]
        if 0 in out:
            raise ValueError(
                f"{caller}: feature_shape={tuple(feature_shape)} leaves a state of "
                f"space {out}; {window} needs larger inputs"
            )
        return out

    def init(key, feature_shape, dtype):
        space(feature_shape)  # raises, if these inputs do not fit
        key_x, key_h, key_b = jax.random.split(key, 3)
        channels, recurrent = feature_shape[-1], recurrent_gates * features
        numbers = gates, recurrent_gates, gates
        draw_x, draw_h, draw_b = map(per_gate, inits, numbers)
        kernel = (*window.recurrent_kernel, features, recurrent)
        params = {"w_h": draw_h(key_h, kernel, dtype)}
        if channels:
            params["w_x"] = draw_x(key_x, (*window.kernel, channels, width), dtype)
        if use_bias:
            params["b"] = draw_b(key_b, (width,), dtype)
        if group_norm:
            params["gain_x"] = jnp.ones((width,), dtype)
            params["gain_h"] = jnp.ones((recurrent,), dtype)
        return params

    def project(params, xs, *, keys=None):
        w_h = params["w_h"]
        if xs is None:
            return params["b"] if use_bias else jnp.zeros(width, w_h.dtype)
        w_x = params.get("w_x", jnp.zeros((*window.kernel, 0, width), w_h.dtype))
        if xs.shape[-1] != w_x.shape[-2]:
            raise ValueError(
                f"{caller}: xs has C={xs.shape[-1]} but w_x wants {w_x.shape[-2]}; "
                f"make params with cell.init(key, {xs.shape[-rank - 1 :]})"
            )
        xs = xs.astype(w_x.dtype)
        us = convolve_steps(xs, w_x, window.stride, window.padding, window.dilation)
        if group_norm:
            us = _group_norm(us, rank, gates * group_norm, params["gain_x"])
        us = us.astype(w_x.dtype)
        return us + params["b"] if use_bias else us

    def recur(w, h):
        ones = (1,) * rank
        return convolve(h.astype(w.dtype), w, ones, "SAME", ones)

    def normalise(gain, a):
        if not group_norm:
            return a
        groups = a.shape[-1] // features * group_norm
        return _group_norm(a, rank, groups, gain)

    return _Halves(init, space, project, recur, normalise, rank + 1)


def _group_norm(z, rank: int, groups: int, gain) -> jax.Array:
    """Zero mean and unit variance over space and each group of channels; a gain."""
    wide = z.astype(at_least_float32(z.dtype))
    grouped = wide.reshape(*z.shape[:-1], groups, -1)  # [*B, *space, groups, channels]
    axes = (*range(-rank - 2, -2), -1)
    centred = grouped - grouped.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    unit = (centred * lax.rsqrt(variance + EPSILON)).reshape(z.shape)
    return unit * gain.astype(wide.dtype)
