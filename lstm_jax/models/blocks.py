"""Building blocks shared by several models."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.cells.convolve import convolve
from lstm_jax.unroll import unroll

EPSILON = 1e-5  # added to the variance in group norm


def conv(features: int, kernel_size: tuple[int, int], **options: Any) -> nn.Conv:
    """Flax's `nn.Conv`, with a convolution whose gradient is fast in loops, too."""

    def run(x, w, stride, padding, *_, rhs_dilation, **__):
        return convolve(x, w, stride, padding, rhs_dilation).astype(x.dtype)

    return nn.Conv(features, kernel_size, conv_general_dilated=run, **options)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions of equal width, each followed by group norm and ReLU."""

    width: int
    number: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C] -> [B, H, W, width]`."""
        for k in range(self.number):
            x = conv(self.width, (3, 3), dtype=self.dtype, name=f"conv_{k}")(x)
            groups = _groups(self.width)
            x = nn.relu(nn.GroupNorm(groups, dtype=self.dtype, name=f"norm_{k}")(x))
        return x


def _groups(width: int) -> int:
    """Number of groups, of about eight channels each."""
    return next(n for n in range(max(width // 8, 1), 0, -1) if width % n == 0)


def across_frames(
    cell: Cell, params: Any, x: jax.Array, clips: tuple[int, int], **options
) -> jax.Array:
    """Runs a recurrent cell over the feature maps of clips folded into the batch.

    Args:
      cell, params: a cell over images, and its params.
      x: `[B T, h, w, C]`.
      clips: (B, T).
      **options: of `unroll`.

    Returns:
      `[B T, h, w, D]`.
    """
    xs = x.reshape(*clips, *x.shape[1:]).swapaxes(0, 1)  # [T, B, h, w, C]
    ys = unroll(cell, params, xs, **options).ys
    return ys.swapaxes(0, 1).reshape(-1, *ys.shape[2:])


def to_patches(clips: jax.Array, patch: int) -> jax.Array:
    """`[B, T, H, W, C] -> [B, T, H/p, W/p, p p C]`, space to channels."""
    b, t, h, w, c = clips.shape
    if h % patch or w % patch:
        raise ValueError(
            f"frames are {h}x{w}, not divisible by patch={patch}; choose another"
        )
    clips = clips.reshape(b, t, h // patch, patch, w // patch, patch, c)
    clips = clips.transpose(0, 1, 2, 4, 3, 5, 6)
    return clips.reshape(b, t, h // patch, w // patch, -1)


def from_patches(patches: jax.Array, patch: int) -> jax.Array:
    """The inverse of `to_patches`."""
    b, t, h, w, c = patches.shape
    patches = patches.reshape(b, t, h, w, patch, patch, -1)
    patches = patches.transpose(0, 1, 2, 4, 3, 5, 6)
    return patches.reshape(b, t, h * patch, w * patch, -1)


def masked(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """`[B, H, W, C]`, zeroed from column `lengths [B]` on; B may be a multiple."""
    if lengths is None:
        return x
    inside = jnp.arange(x.shape[2], dtype=lengths.dtype) < lengths[:, None]
    return jnp.where(inside[:, None, :, None], x, jnp.zeros((), x.dtype))


def widened(x: jax.Array) -> jax.Array:
    """Promotes to at least float32."""
    return x.astype(at_least_float32(x.dtype))


class MaskedGroupNorm(nn.Module):
    """Group norm with statistics of the valid columns only.

    Attributes:
      groups: number of groups of channels.
    """

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
        """Normalizes `[B, H, W, C]`, which is zero from column `lengths [B]` on."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        wide = widened(x)
        b, h, w, c = wide.shape
        inside = jnp.ones((b, w), bool)
        if lengths is not None:
            inside = jnp.arange(w, dtype=lengths.dtype) < lengths[:, None]
        inside = inside[:, None, :, None].astype(wide.dtype)
        count = jnp.maximum(inside.sum((1, 2, 3)), 1) * (h * c // self.groups)

        def mean(values):  # of each channel's group, [B, 1, 1, C]
            sums = (values * inside).sum((1, 2))  # then over the group's channels
            sums = sums.reshape(b, self.groups, -1).sum(-1) / count[:, None]
            return jnp.repeat(sums, c // self.groups, axis=-1)[:, None, None]

        centered = wide - mean(wide)
        scale = scale.astype(wide.dtype) * jax.lax.rsqrt(mean(centered**2) + EPSILON)
        y = centered * scale
        return (y + bias.astype(wide.dtype)).astype(x.dtype)


def mask_to_blank(logits: jax.Array, lengths: jax.Array) -> jax.Array:
    """Sets logits `[B, T, K]` to certain blank, index 0, from step `lengths [B]` on."""
    steps = jnp.arange(logits.shape[1], dtype=lengths.dtype)
    inside = steps < lengths[:, None]
    blank = jnp.where(jnp.arange(logits.shape[2]) == 0, 0.0, -jnp.inf)
    return jnp.where(inside[..., None], logits, blank.astype(logits.dtype))
