"""Clips → the next frames."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells import STLSTMCarry, autoregressive
from lstm_jax.models.blocks import from_patches, to_patches
from lstm_jax.models.keys import example_keys, fold
from lstm_jax.randomness import key_for
from lstm_jax.unroll import unroll


class EncoderForecaster(nn.Module):
    """An encoder of recurrent layers, and a forecaster initialized with its states.

    The forecaster has the encoder's layers, top first; each starts from the final state
    of its counterpart. The first has no input; the next frame is a 1x1 convolution of
    the outputs of all layers. Predicted frames are not fed back.

    Attributes:
      cells: convolutional cells of the encoder, bottom first.
      horizon: number of frames to predict.
      patch: side of the square patches of pixels that become channels.
      engine, remat, dtype: as in `unroll`.

    Reference: Shi et al. 2015, section 3.2.
    """

    cells: tuple[Cell, ...]
    horizon: int
    patch: int = 1
    engine: str = "auto"
    remat: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(self, clips: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """`[B, T, H, W, C] -> [B, horizon, H, W, C]`, the frames after the clip.

        Cells use `keys [B]`, or `rngs={"dropout": key}`.
        """
        keys = example_keys(self, keys, clips.shape[0])
        xs = to_patches(clips, self.patch).swapaxes(0, 1)  # [T, B, H/p, W/p, C p p]
        channels = xs.shape[-1]
        options = dict(engine=self.engine, remat=self.remat, dtype=self.dtype)
        carries, draws = [], []
        for layer, cell in enumerate(self.cells):
            params = self.param(f"encoder_{layer}", cell.init, xs.shape[2:])
            own = key_for((cell,), (params,), xs, fold(keys, 2 * layer))
            xs, carry = unroll(cell, params, xs, key=own, **options)
            carries.append(carry)
            draws.append(own is not None)
        ys, seen = None, []
        space = xs.shape[2:-1]
        for layer, cell in reversed(list(enumerate(self.cells))):
            reads = (*space, 0 if ys is None else ys.shape[-1])
            params = self.param(f"forecaster_{layer}", cell.init, reads)
            length = self.horizon if ys is None else None
            options["key"] = fold(keys, 2 * layer + 1) if draws[layer] else None
            ys = unroll(cell, params, ys, carries[layer], length=length, **options).ys
            seen.append(ys)
        joined = jnp.concatenate(seen, axis=-1).astype(jnp.float32)
        out = nn.Dense(channels, name="head")(joined)
        return from_patches(out.swapaxes(0, 1), self.patch)


class FrameForecaster(nn.Module):
    """A cell that predicts the next frame; after the inputs it reads its predictions.

    Attributes:
      cell: maps patches `[*B, H/p, W/p, C p p]` to patches of the next frame, such as
        `readout(stack(conv_lstm(...), ...), channels)`, or that of an `st_lstm`.
      inputs: number of given frames; later ones are predicted autoregressively.
      patch: side of the square patches of pixels that become channels.
      engine, remat, dtype: as in `unroll`.

    Reference: the stacked ConvLSTM and PredRNN of OpenSTL, Tan et al. 2023; scheduled
    sampling: Bengio et al. 2015, reversed: Wang et al. 2021.
    """

    cell: Cell
    inputs: int
    patch: int = 1
    engine: str = "auto"
    remat: Any = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        clips: jax.Array,
        *,
        sampling: tuple[Any, Any] | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Predicts frames 1 to T - 1 of a clip.

        Args:
          clips: `[B, T, H, W, C]`, of which the first `inputs` frames are used.
          sampling: None; or for scheduled sampling in training: probabilities of
            replacing a given frame by the prediction, among the first `inputs` frames,
            and among the later ones, which are then inputs, too.
          keys: `[B]`, as in `SequenceClassifier`; without keys `sampling` is ignored.

        Returns:
          `[B, T - 1, H, W, C]`. If the cell is an `st_lstm` with a decoupling loss, its
          mean over steps and layers is sown as "decoupling" into "losses", `[B]`.
        """
        xs = to_patches(clips, self.patch).swapaxes(0, 1)  # [T, B, H/p, W/p, C p p]
        steps = xs.shape[0] - 1
        options = dict(engine=self.engine, remat=self.remat, dtype=self.dtype)
        params = self.param("cell", self.cell.init, xs.shape[2:])
        keys = example_keys(self, keys, clips.shape[0])
        given = sampling is not None and keys is not None
        # Only a call with inputs shows whether the cell uses randomness.
        options["key"] = keys if given else key_for((self.cell,), (params,), xs, keys)

        def run(xs, carry, number, **more):
            odds = sampling[number] if given else 0.0
            cell = autoregressive(self.cell, sampling=odds)
            return unroll(cell, params, xs, carry, **more, **options)

        ys, carry = run(xs[: min(self.inputs, steps)], None, 0)
        left = steps - self.inputs
        if left > 0:
            later = xs[self.inputs : steps] if given else None
            at = dict(length=None if given else left, first_step=self.inputs)
            more, carry = run(later, carry, 1, **at)
            ys = jnp.concatenate([ys, more])
        if isinstance(carry.cell, STLSTMCarry) and not isinstance(
            carry.cell.overlap, tuple
        ):
            layers = len(carry.cell.c)
            self.sow("losses", "decoupling", carry.cell.overlap / (steps * layers))
        return from_patches(ys.swapaxes(0, 1).astype(jnp.float32), self.patch)
