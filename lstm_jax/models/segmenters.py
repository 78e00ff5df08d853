"""Image or clip → the class of every pixel, by recurrent layers over the plane."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.bidirectional import bidirectional
from lstm_jax.cell import Cell
from lstm_jax.models.blocks import (
    ConvBlock,
    across_frames,
    from_patches,
    to_patches,
)
from lstm_jax.models.keys import example_keys, fold, spread
from lstm_jax.unroll import unroll


class ReNet(nn.Module):
    """LSTMs over a feature map, along x, then along y.

      u[y, :] = [→LSTM; ←LSTM](x[y, :])        v[:, x] = [↓LSTM; ↑LSTM](u[:, x])

    Every position of v depends on the whole map.

    Attributes:
      cell: for each of the four directions.
      engine, dtype: as in `unroll`.

    Reference: Visin et al. 2015, ReNet, eq. 1 to 3. Departs: they start along y.
    """

    cell: Cell
    engine: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """`[B, H, W, C] -> [B, H, W, 2D]`; `keys [B]` are for the cell's randomness."""
        keys = example_keys(self, keys, x.shape[0])
        for number, (name, axis) in enumerate((("x", 2), ("y", 1))):
            xs = jnp.moveaxis(x, axis, 0)  # [W, B, H, C], then [H, B, W, 2D]
            params = tuple(
                self.param(f"{name}_{way}", self.cell.init, xs.shape[3:])
                for way in ("forward", "backward")
            )
            options = dict(engine=self.engine, dtype=self.dtype)
            options["key"] = spread(fold(keys, number), xs.shape[2])
            ys = bidirectional((self.cell, self.cell), params, xs, **options).ys
            x = jnp.moveaxis(ys, 0, axis)
        return x


class Segmenter(nn.Module):
    """A U-Net with recurrent layers at its bottleneck or in its skip connections.

    Stages of convolutions halve the resolution; at the bottleneck are recurrent layers,
    or convolutions; further stages double the resolution and merge the encoder's maps
    of the same size. Frames of a clip are processed independently, except that at the
    bottleneck `recurrent_cell` carries a state from frame to frame.

    Attributes:
      outputs: K.
      widths: channels of the stages, finest first; the resolution halves in between.
      renet: cells of the `ReNet` layers at the bottleneck.
      bottom: widths of the convolutions at the bottleneck.
      skips: cells over images that merge, as a bidirectional sequence of two steps, the
        encoder's map and the upsampled one; one per stage but the last, finest first.
        Without, both are concatenated and convolved.
      recurrent_cell: cell over images, at the bottleneck of clips.
      patch: side of the square patches of pixels that become channels of the finest
        map; the outputs are unfolded accordingly.
      engine, dtype: as in `unroll`; the outputs are float32.

    Reference: Ronneberger et al. 2015, U-Net; Visin et al. 2016, ReSeg; recurrent
    skips: Azad et al. 2019, BCDU-Net, eq. 4 and 5. Departs: ReSeg has no skips;
    BCDU-Net has batch norm, and dense convolutions at its bottleneck.
    """

    outputs: int
    widths: tuple[int, ...]
    renet: tuple[Cell, ...] = ()
    bottom: tuple[int, ...] = ()
    skips: tuple[Cell, ...] = ()
    recurrent_cell: Cell | None = None
    patch: int = 1
    engine: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Logits of every pixel.

        Args:
          images: `[B, H, W, C]`, or clips `[B, T, H, W, C]`; H and W are multiples
            of patch times 2 to the power of `len(widths) - 1`.
          keys: `[B]`, as in `SequenceClassifier`.

        Returns:
          `[B, H, W, K]` or `[B, T, H, W, K]`, float32.

        Raises:
          ValueError: the size cannot be halved that often.
        """
        batch, (h, w, c) = images.shape[:-3], images.shape[-3:]
        times = self.patch * 2 ** (len(self.widths) - 1)
        if h % times or w % times:
            raise ValueError(
                f"Segmenter: images are {h}x{w}, not divisible by {times}; "
                "resize them, or give fewer widths"
            )
        keys = example_keys(self, keys, batch[0])
        # Separate keys: one set is split (frames), another folded (recurrent cell).
        frames = keys if len(batch) == 1 else _of_frames(fold(keys, 1), batch[1])
        x = to_patches(images.reshape(1, -1, h, w, c), self.patch)[0]
        downs = []
        for stage, width in enumerate(self.widths):
            if stage:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = ConvBlock(width, 2, self.dtype, name=f"down_{stage}")(x)
            downs.append(x)
        for layer, cell in enumerate(self.renet):
            renet = ReNet(cell, self.engine, self.dtype, name=f"renet_{layer}")
            x = renet(x, keys=fold(frames, 1 + layer))
        for layer, width in enumerate(self.bottom):
            x = ConvBlock(width, 1, self.dtype, name=f"bottom_{layer}")(x)
        if self.recurrent_cell is not None and len(batch) == 2:
            params = self.param("recurrent_cell", self.recurrent_cell.init, x.shape[1:])
            options = dict(engine=self.engine, dtype=self.dtype, key=fold(keys, 0))
            x = across_frames(self.recurrent_cell, params, x, batch, **options)
        for stage in reversed(range(len(self.widths) - 1)):
            width = self.widths[stage]
            x = nn.Dense(4 * width, dtype=self.dtype, name=f"rise_{stage}")(x)
            x = from_patches(x[None], 2)[0]  # a 2x2 transposed convolution, stride 2
            pair = downs[stage].astype(x.dtype), x
            if self.skips:
                own = fold(frames, 1 + len(self.renet) + stage)
                x = self._fuse(stage, jnp.stack(pair), own)
            else:
                x = jnp.concatenate(pair, axis=-1)
            x = ConvBlock(width, 1, self.dtype, name=f"up_{stage}")(x)
        wide = self.outputs * self.patch**2
        out = nn.Dense(wide, name="head")(x.astype(jnp.float32))
        out = from_patches(out[None], self.patch)[0]
        return out.reshape(*batch, h, w, self.outputs)

    def _fuse(self, stage: int, pair: jax.Array, keys: Any) -> jax.Array:
        """`[2, B, h, w, C] -> [B, h, w, 2D]`, the last step of each direction."""
        cell = self.skips[stage]
        params = [
            self.param(f"skip_{stage}_{way}", cell.init, pair.shape[2:])
            for way in ("forward", "backward")
        ]
        options = dict(engine=self.engine, dtype=self.dtype)
        runs = []
        for way, p in enumerate(params):
            options |= dict(key=fold(keys, way), reverse=way == 1)
            runs.append(unroll(cell, p, pair, **options).ys[0 if way else -1])
        return jnp.concatenate(runs, axis=-1)


def _of_frames(keys: jax.Array | None, frames: int) -> jax.Array | None:
    """Keys `[B frames]` of frames, from keys `[B]` of clips."""
    return None if keys is None else spread(keys, frames).reshape(-1)
