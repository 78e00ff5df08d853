"""`VGSLNet`, the network of a VGSL spec."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.bidirectional import bidirectional
from lstm_jax.cells import gru, lstm
from lstm_jax.models import vgsl_layers as vgsl
from lstm_jax.models.blocks import MaskedGroupNorm, conv, mask_to_blank, masked, widened
from lstm_jax.models.keys import example_keys, fold
from lstm_jax.models.vgsl import Spec
from lstm_jax.unroll import unroll

ACTIVATIONS: dict[str, Callable] = {
    "s": jax.nn.sigmoid,
    "t": jnp.tanh,
    "r": jax.nn.relu,
    "lr": jax.nn.leaky_relu,
    "l": lambda x: x,
    "m": jax.nn.softmax,
}
NOISE = 5.0  # grey values; smaller variations are not text


class VGSLNet(nn.Module):
    """The network of a VGSL spec.

    Columns after an image's width have no effect: they are zero after each layer, like
    the padding of a convolution, and LSTMs skip them. Params are named after the
    words, such as `Cr_0` and, in brackets, `parallel_3_Lbx_1`, or by the spec's own
    names.

    Attributes:
      spec: made by `vgsl.parse`.
      engine, dtype: as in `unroll`; the outputs are float32 or wider.
    """

    spec: Spec
    engine: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        lengths: jax.Array | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Applies the network to a batch of images.

        Args:
          images: `[B, H, W, C]`, of the spec's height, width and channels; if the spec
            has height 1 and C > 3 channels, also grey images of height C.
          lengths: int `[B]`, valid columns of each image; None: all.
          keys: `[B]`, as in `SequenceClassifier`.

        Returns:
          Logits `[B, T, K]` for O1, T = `spec.steps(W)`; `[B, H, W, K]` for O2, `[B,
          K]` for O0; without an output, the last map. Steps after the image's own are
          zero; for O1c certain blanks: 0, and -inf for all other classes.

        Raises:
          ValueError: the images do not fit the spec.
        """
        x, spec = _strips(images, self.spec), self.spec
        wanted = spec.height or "H", spec.width or "W", spec.channels
        found = x.shape[1:]
        fits = len(found) == 3 and all(
            n == m or isinstance(m, str) for n, m in zip(found, wanted, strict=True)
        )
        if not fits:
            raise ValueError(
                f"VGSLNet: images have shape {images.shape}; the spec wants "
                f"[B, {', '.join(map(str, wanted))}]"
            )
        if lengths is not None:
            lengths = jnp.asarray(lengths)
            spec.steps(lengths)  # raises if the spec does not output steps
        x = masked(x, lengths)
        keys = example_keys(self, keys, images.shape[0])
        x, lengths = self._series("", spec.layers, x, lengths, keys, images.shape[0])
        return x if spec.output is None else self._output(x, lengths)

    def _series(self, prefix, layers, x, lengths, keys, batch):
        for number, layer in enumerate(layers):
            if isinstance(layer, vgsl.Series):
                name = f"{prefix}series_{number}_"
                x, lengths = self._series(
                    name, layer.layers, x, lengths, fold(keys, number), batch
                )
            elif isinstance(layer, vgsl.Parallel):
                name, runs = f"{prefix}parallel_{number}_", []
                for k, branch in enumerate(layer.layers):
                    inside = fold(fold(keys, number), k)
                    one = branch.layers if isinstance(branch, vgsl.Series) else [branch]
                    deep = f"{name}{k}_"
                    runs.append(self._series(deep, one, x, lengths, inside, batch))
                x = jnp.concatenate([run for run, _ in runs], axis=-1)
                lengths = runs[0][1]
            else:
                name = layer.name or f"{prefix}{letters(layer)}_{number}"
                x = self._layer(name, layer, x, lengths, fold(keys, number), batch)
                if lengths is not None:
                    lengths = vgsl.size(layer, 1, lengths)
                    x = masked(x, lengths)
        return x, lengths

    def _layer(self, name, layer, x, lengths, keys, batch):
        match layer:
            case vgsl.Conv():
                x = convolution(layer, self.dtype, name)(x)
                return ACTIVATIONS[layer.activation](x)
            case vgsl.Full():
                flat = x.reshape(len(x), 1, 1, -1)
                x = nn.Dense(layer.features, dtype=self.dtype, name=name)(flat)
                return ACTIVATIONS[layer.activation](x)
            case vgsl.Pool():
                return nn.max_pool(x, layer.window, layer.stride)
            case vgsl.Rescale():
                return _to_depth(x, layer.window)
            case vgsl.Reshape():
                return _reshape(x, layer, batch)
            case vgsl.Recurrent():
                return LineRNN(layer, self.engine, self.dtype, name=name)(x, lengths)
            case vgsl.GroupNorm():
                return MaskedGroupNorm(layer.groups, name=name)(x, lengths)
            case vgsl.Dropout():
                return _dropout(x, layer, keys)
            case vgsl.Identity():
                return x

    def _output(self, x, lengths):
        output = self.spec.output
        if output.dimensions == 1:  # [B, W, H C]
            x = x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
        elif output.dimensions == 0:
            x = x[:, 0, 0]
        head = nn.Dense(output.features, name=output.name or "output")
        x = head(widened(x))
        if lengths is None or output.dimensions == 0:
            return x
        if output.kind == "c":
            return mask_to_blank(x, lengths)
        return masked(x, lengths) if x.ndim == 4 else masked(x[:, None], lengths)[:, 0]


class LineRNN(nn.Module):
    """An LSTM or a GRU along the rows or the columns of a map.

    Attributes:
      layer: kind, width, direction and axis.
      engine, dtype: as in `unroll`.
      two_biases: a second bias `b_h`, initially 0, added to `b`, as in PyTorch and
        cuDNN.
    """

    layer: vgsl.Recurrent
    engine: str = "auto"
    dtype: Any = None
    two_biases: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
        """`[B, H, W, C] -> [B, H, W, D or 2D]`; H or W is 1 if s summarizes it."""
        layer = self.layer
        cell = {"L": lstm, "G": gru}[layer.cell](layer.features)
        axis = 2 if layer.axis == "x" else 1
        xs = jnp.moveaxis(x, axis, 0)  # [W, B, H, C] or [H, B, W, C]
        options = dict(engine=self.engine, dtype=self.dtype)
        if lengths is not None and layer.axis == "x":
            options["lengths"] = jnp.broadcast_to(lengths[:, None], xs.shape[1:3])

        def params(name):
            found = self.param(name, cell.init, xs.shape[3:])
            if self.two_biases:
                zeros = nn.initializers.zeros
                b_h = self.param(f"{name}_b_h", zeros, found["b"].shape)
                found = {**found, "b": found["b"] + b_h}
            return found

        if layer.direction == "b":
            pair = params("forward"), params("backward")
            run = bidirectional((cell, cell), pair, xs, **options)
            last = jnp.concatenate([carry.h for carry in run.carry], axis=-1)
        else:
            reverse = layer.direction == "r"
            name = "backward" if reverse else "forward"
            run = unroll(cell, params(name), xs, reverse=reverse, **options)
            last = run.carry.h
        ys = last[None].astype(run.ys.dtype) if layer.last else run.ys
        return jnp.moveaxis(ys, 0, axis)


def convolution(
    layer: vgsl.Conv, dtype: Any, name: str, *, bias: bool = True
) -> Callable:
    """The convolution of a layer, without its activation: `[B, H, W, C]` to the same.

    Zero padding.
    """
    gain = 2.0 if layer.activation in ("r", "lr") else 1.0
    run = conv(
        layer.features,
        layer.kernel,
        strides=layer.stride,
        padding="VALID",
        kernel_dilation=layer.dilation,
        use_bias=bias,
        kernel_init=nn.initializers.variance_scaling(
            gain, "fan_in", "truncated_normal"
        ),
        dtype=dtype,
        name=name,
    )
    (y, x), none = layer.padding, (0, 0)
    return lambda images: run(jnp.pad(images, (none, (y, y), (x, x), none)))


def _strips(images: jax.Array, spec: Spec) -> jax.Array:
    """Columns of grey pixels as channels, if the spec has height 1 and C > 3."""
    strips = spec.height == 1 and spec.channels > 3
    if strips and images.ndim == 4 and images.shape[1::2] == (spec.channels, 1):
        return images.swapaxes(1, 3)
    return images


def standardized(images: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """Standardizes each line over its valid columns; zero after them.

        y = (x - mean) / sqrt(var + 5²)

    Args:
      images: `[B, H, W, 1]`, 0 to 255.
      lengths: int `[B]`, valid columns; None: all.

    Returns:
      Float32 of the same shape, 0 for lines of one colour.
    """
    x = images.astype(jnp.float32)
    inside = jnp.ones_like(x) if lengths is None else masked(jnp.ones_like(x), lengths)
    count = jnp.maximum(inside.sum((1, 2, 3), keepdims=True), 1.0)
    x = masked(x, lengths)
    x = (x - x.sum((1, 2, 3), keepdims=True) / count) * inside
    variance = (x**2).sum((1, 2, 3), keepdims=True) / count
    return x * jax.lax.rsqrt(variance + NOISE**2)


def _to_depth(x: jax.Array, window: tuple[int, int]) -> jax.Array:
    """Windows as channels, x slowest; incomplete windows at the border are dropped."""
    y, z = window
    b, h, w, c = x.shape
    x = x[:, : h // y * y, : w // z * z]
    x = x.reshape(b, h // y, y, w // z, z, c).transpose(0, 1, 3, 4, 2, 5)
    return x.reshape(b, h // y, w // z, -1)


def _reshape(x: jax.Array, layer: vgsl.Reshape, batch: int) -> jax.Array:
    """`[B m, H, W, C]` with one of m, H, W, C split, and a part of it moved."""
    x = x.reshape(batch, -1, *x.shape[1:])
    d = layer.axis + 1
    a, b = layer.cut(x.shape[d])
    x = x.reshape(*x.shape[:d], a, b, *x.shape[d + 1 :])
    e, f = (axis + 1 for axis in layer.to)
    if e == f == d:
        x = x.swapaxes(d, d + 1)
        return x.reshape(-1, *_merged(x.shape, d)[2:])
    moved, target = (d, e) if e != d else (d + 1, f)
    at = target if target < d else target + 1  # where the target lies now
    to = at if moved > at else at - 1  # just before it
    x = jnp.moveaxis(x, moved, to)
    shape = _merged(x.shape, to)
    return x.reshape(-1, *shape[2:])


def _merged(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape with an axis and the next one merged."""
    return *shape[:axis], math.prod(shape[axis : axis + 2]), *shape[axis + 2 :]


def _dropout(x: jax.Array, layer: vgsl.Dropout, keys: jax.Array | None) -> jax.Array:
    """Inverted dropout, one key per image."""
    if keys is None or not layer.rate:
        return x
    shape = (1, 1, x.shape[3]) if layer.dimensions == 2 else x.shape[1:]
    times = len(x) // len(keys)
    keep = jax.vmap(
        lambda key: jax.random.bernoulli(key, 1 - layer.rate, (times, *shape))
    )
    kept = keep(keys).reshape(len(x), *shape)
    scaled = x * jnp.asarray(1 / (1 - layer.rate), x.dtype)
    return jnp.where(kept, scaled, jnp.zeros((), x.dtype))


def letters(layer: Any) -> str:
    """The letters with which a layer's word begins."""
    match layer:
        case vgsl.Conv():
            return f"C{layer.activation}"
        case vgsl.Full():
            return f"F{layer.activation}"
        case vgsl.Recurrent():
            last = "s" * layer.last
            return f"{layer.cell}{layer.direction}{layer.axis}{last}"
        case vgsl.GroupNorm():
            return "Gn"
    return type(layer).__name__
