"""Image → convolutions → LSTMs along rows and columns → outputs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.bidirectional import bidirectional
from lstm_jax.cell import Cell
from lstm_jax.models.blocks import ConvBlock, to_patches
from lstm_jax.models.keys import example_keys, fold, spread
from lstm_jax.randomness import example_dropout


class BiLSTM2D(nn.Module):
    """Mixes a feature map along its rows and along its columns.

      y = x + W [→LSTM; ←LSTM; ↓LSTM; ↑LSTM](norm(x)) + b

    Attributes:
      cell: for each of the four directions.
      engine, dtype: as in `unroll`.

    Reference: Tatsunami & Taki 2022, Sequencer, section 3.2.
    """

    cell: Cell
    engine: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """`[B, H, W, C] -> [B, H, W, C]`; `keys [B]` are for the cell's randomness."""
        keys = example_keys(self, keys, x.shape[0])
        normed, found = nn.LayerNorm(dtype=self.dtype, name="norm")(x), []
        for number, (name, axis) in enumerate((("x", 2), ("y", 1))):
            xs = jnp.moveaxis(normed, axis, 0)  # [W, B, H, C], and [H, B, W, C]
            params = tuple(
                self.param(f"{name}_{way}", self.cell.init, xs.shape[3:])
                for way in ("forward", "backward")
            )
            options = dict(engine=self.engine, dtype=self.dtype)
            options["key"] = spread(fold(keys, number), xs.shape[2])
            ys = bidirectional((self.cell, self.cell), params, xs, **options).ys
            found.append(jnp.moveaxis(ys, 0, axis))
        mixed = jnp.concatenate(found, axis=-1)  # [B, H, W, 4D]
        return x + nn.Dense(x.shape[-1], dtype=self.dtype, name="out")(mixed)


class Sequencer(nn.Module):
    """Classifies an image, or regresses from it, by LSTMs over a map of convolutions.

      x = stages(patches(image));   x = x + mlp(norm(BiLSTM2D(x)))  for each cell
      outputs = W mean(norm(x)) + b

    Each stage halves the map, then has two 3x3 convolutions; the first has one, at full
    size.

    Attributes:
      outputs: K, width of the head.
      widths: channels of the stages, finest first.
      cells: one cell per block of LSTMs, bottom first.
      encoder: Flax module `[B, H, W, C] -> [B, h, w, F]` instead of the stages, such as
        `ResNet(18, pool=False)`.
      patch: side of the square patches of pixels that become channels.
      dropout: dropout rate before the head.
      engine: as in `unroll`.
      dtype: of the computation; the head and the outputs are float32.

    Reference: Tatsunami & Taki 2022, Sequencer. Departs: convolutions with group norm
    before the blocks, which all have one resolution; no stochastic depth.
    """

    outputs: int
    widths: tuple[int, ...]
    cells: tuple[Cell, ...]
    patch: int = 1
    encoder: nn.Module | None = None
    dropout: float = 0.0
    engine: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: jax.Array, *, keys: jax.Array | None = None
    ) -> jax.Array:
        """`[B, H, W, C]`, normalized, of any size, to `[B, K]`, float32.

        Args:
          keys: `[B]`, as in `SequenceClassifier`.
        """
        keys = example_keys(self, keys, images.shape[0])
        x = self._stages(images) if self.encoder is None else self.encoder(images)
        for layer, cell in enumerate(self.cells):
            mix = BiLSTM2D(cell, self.engine, self.dtype, name=f"mix_{layer}")
            x = self._mlp(layer, mix(x, keys=fold(keys, layer)))
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x).mean((1, 2))  # [B, C]
        if keys is not None:
            x = example_dropout(x, self.dropout, fold(keys, len(self.cells)))
        return nn.Dense(self.outputs, name="head")(x.astype(jnp.float32))

    def _stages(self, images: jax.Array) -> jax.Array:
        edges = [(0, -side % self.patch) for side in images.shape[1:3]]
        x = jnp.pad(images, ((0, 0), *edges, (0, 0)))
        x = to_patches(x[None], self.patch)[0]
        for stage, width in enumerate(self.widths):
            if stage:
                x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
            x = ConvBlock(width, 1 + (stage > 0), self.dtype, name=f"stage_{stage}")(x)
        return x

    def _mlp(self, layer: int, x: jax.Array) -> jax.Array:
        options, width = dict(dtype=self.dtype), x.shape[-1]
        y = nn.LayerNorm(name=f"mlp_{layer}_norm", **options)(x)
        y = nn.gelu(nn.Dense(2 * width, name=f"mlp_{layer}_in", **options)(y))
        return x + nn.Dense(width, name=f"mlp_{layer}_out", **options)(y)
