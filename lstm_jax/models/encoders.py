"""Encoders of single frames, applied before recurrent layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class FrameEncoder(nn.Module):
    """A small convolutional network that maps a frame to a feature vector.

    Each stage is a 3x3 convolution with stride 2, group norm and ReLU; the last map is
    averaged over a grid of at most 2x2 cells, which keeps coarse positions.

    Attributes:
      channels: of the stages.
    """

    channels: tuple[int, ...] = (16, 32, 64)

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, 4 channels[-1]]`; less if the last map is 1 pixel."""
        x = frames
        for number, width in enumerate(self.channels):
            x = nn.Conv(width, (3, 3), strides=2, name=f"conv_{number}")(x)
            x = nn.relu(nn.GroupNorm(num_groups=4, name=f"norm_{number}")(x))
        h, w = x.shape[1:3]
        top, left = max(h // 2, 1), max(w // 2, 1)
        places = [
            part.mean((1, 2))
            for row in (x[:, :top], x[:, top:])
            for part in (row[:, :, :left], row[:, :, left:])
            if part.size
        ]
        return jnp.concatenate(places, axis=-1)
