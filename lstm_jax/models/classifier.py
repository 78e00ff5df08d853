"""Image or clip → sequence → recurrent layers → outputs, per sequence or per step."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.bidirectional import bidirectional
from lstm_jax.cell import Cell
from lstm_jax.engines.scan_inputs import mask_inputs, valid_steps
from lstm_jax.models.keys import example_keys, fold
from lstm_jax.models.sequences import Order
from lstm_jax.randomness import example_dropout, step_dropout
from lstm_jax.unroll import unroll


class SequenceClassifier(nn.Module):
    """Classifies, or regresses from, an image as a sequence, or a clip.

        xs = encoder(order.to_sequence(images))
        outputs = W pool(layers(xs)) + b

    The outputs are class logits, or regression values. With an encoder of single frames
    and the order `sequences.frames()` this is a CNN + LSTM; with convolutional cells a
    ConvLSTM classifier, whose outputs are averaged over space.

    Attributes:
      order: turns an image into a sequence, from `lstm_jax.models.sequences`.
      cells: one cell per layer, bottom first.
      outputs: K, width of the head.
      bidirectional: each layer runs forward and backward, and has 2D features.
      pooling: "last" takes the last valid step (of the backward direction the first,
        where it ends), "mean" and "max" are over the valid steps.
      per_step: outputs for each step, `[B, T, K]`, instead of pooling.
      encoder: Flax module applied to each step, `[N, *features] -> [N, F]` or images.
      dropout: dropout rate between layers and before the head.
      engine, tbptt_steps: as in `unroll`.
      dtype: of the computation; the head and the outputs are float32.
    """

    order: Order
    cells: tuple[Cell, ...]
    outputs: int
    bidirectional: bool = False
    pooling: Literal["last", "mean", "max"] = "last"
    per_step: bool = False
    encoder: nn.Module | None = None
    dropout: float = 0.0
    engine: str = "auto"
    tbptt_steps: int | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Applies the network to a batch of images.

        Args:
          images: `[B, H, W, C]`, normalized; or clips, `[B, T, H, W, C]`.
          lengths: int `[B]`, valid steps of each sequence; None: all.
          mask: bool `[B, T]`, valid steps; None: all.
          keys: `[B]`, one key per example, so that randomness in dropout and cells does
            not depend on the number of devices. None: keys from
            `rngs={"dropout": key}`; without either, evaluation.

        Returns:
          `[B, K]`, float32; `[B, T, K]` with `per_step`.
        """
        if self.pooling not in ("last", "mean", "max"):
            raise ValueError(
                f"SequenceClassifier: pooling={self.pooling!r}; choose last, mean, max"
            )
        xs = self.order.to_sequence(images).swapaxes(0, 1)  # [T, B, *F]
        by_step = None if mask is None else jnp.asarray(mask).swapaxes(0, 1)
        valid = valid_steps(xs.shape[0], xs.shape[1:2], lengths, by_step)
        if self.encoder is not None:
            xs = mask_inputs(xs, valid)
            time, batch = xs.shape[:2]
            encoded = self.encoder(xs.reshape(time * batch, *xs.shape[2:]))
            xs = encoded.reshape(time, batch, *encoded.shape[1:])
        keys = example_keys(self, keys, images.shape[0])
        options = dict(mask=valid, engine=self.engine, dtype=self.dtype)
        options["tbptt_steps"] = self.tbptt_steps
        for layer, cell in enumerate(self.cells):
            if keys is not None:
                dropout_keys, options["key"] = layer_keys(keys, layer)
                xs = step_dropout(xs, self.dropout if layer else 0.0, dropout_keys)
            features = xs.shape[2:]
            params = self.param(f"layer_{layer}", cell.init, features)
            if self.bidirectional:
                back = self.param(f"layer_{layer}_backward", cell.init, features)
                xs = bidirectional((cell, cell), (params, back), xs, **options).ys
            else:
                xs = unroll(cell, params, xs, **options).ys
        xs = xs.mean(tuple(range(2, xs.ndim - 1)))  # over space, if any
        head_keys, _ = layer_keys(keys, len(self.cells))
        if self.per_step:
            if keys is not None:
                xs = step_dropout(xs, self.dropout, head_keys)
            pooled = xs.swapaxes(0, 1)
        else:
            pooled = self._pool(xs, valid)
            if keys is not None:
                pooled = example_dropout(pooled, self.dropout, head_keys)
        pooled = pooled.astype(jnp.float32)  # [B, D or 2D], or [B, T, D]
        return nn.Dense(self.outputs, name="head")(pooled)

    def _pool(self, ys: jax.Array, valid: jax.Array | None) -> jax.Array:
        """`[T, B, D] -> [B, D]`."""
        if self.pooling == "last":
            last = _take(ys, valid, last=True)
            if not self.bidirectional:
                return last
            forward = last[..., : ys.shape[-1] // 2]
            backward = _take(ys, valid, last=False)[..., ys.shape[-1] // 2 :]
            return jnp.concatenate([forward, backward], axis=-1)
        if self.pooling == "mean":
            # Outputs of masked steps are zero.
            steps = ys.shape[0] if valid is None else valid.sum(0)[:, None]
            return ys.sum(0) / jnp.maximum(steps, 1).astype(ys.dtype)
        if valid is None:
            return ys.max(0)
        least = jnp.where(valid[..., None], ys, jnp.finfo(ys.dtype).min).max(0)
        return jnp.where(valid.any(0)[:, None], least, jnp.zeros_like(least))


def layer_keys(keys: jax.Array | None, layer: int) -> tuple[Any, Any]:
    """Keys for the dropout before a layer, or before the head, and for its cells."""
    return fold(keys, 2 * layer), fold(keys, 2 * layer + 1)


def _take(ys: jax.Array, valid: jax.Array | None, *, last: bool) -> jax.Array:
    """The last or the first valid step of `ys [T, B, D]`; zero if there is none."""
    if valid is None:
        return ys[-1 if last else 0]
    steps = valid.shape[0]
    at = steps - 1 - valid[::-1].argmax(0) if last else valid.argmax(0)  # [B]
    return jnp.take_along_axis(ys, at[None, :, None], axis=0)[0]
