"""Runs a trained network frame by frame, with a state of constant size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.cells import autoregressive
from lstm_jax.models.blocks import from_patches, to_patches
from lstm_jax.models.classifier import SequenceClassifier
from lstm_jax.models.forecasters import FrameForecaster
from lstm_jax.unroll import unroll


class Stream(NamedTuple):
    """Pure functions; jit `step`, and donate its state.

    Attributes:
      start: `() -> state`, before the first frame.
      step: `(state, frame [*F]) -> (state, output)`. After frame t the output is the
        network's for frames 0 to t: `[K]`; of a forecaster the next frame, `[H, W, C]`.
    """

    start: Callable[[], Any]
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]]


def stream(
    network: SequenceClassifier | FrameForecaster,
    params: Any,
    frame_shape: tuple[int, ...],
) -> Stream:
    """The network as a `Stream` of single frames, in evaluation mode.

    Args:
      network: processes clips in the order of their frames, in one direction.
      params: its params.
      frame_shape: (H, W, C), or (F,) for features.

    Raises:
      ValueError: the network needs the whole clip.
    """
    if isinstance(network, FrameForecaster):
        return _forecaster_stream(network, params, frame_shape)
    if not isinstance(network, SequenceClassifier):
        raise ValueError(
            f"stream: a {type(network).__name__} predicts only at the end of a clip; "
            "train a classifier, or an autoregressive forecaster"
        )
    if network.bidirectional:
        raise ValueError(
            "stream: a bidirectional network needs the end of a clip first; train one "
            "with bidirectional=False"
        )
    return _classifier_stream(network, params, frame_shape)


def _classifier_stream(network, params, frame_shape) -> Stream:
    head = nn.Dense(network.outputs)
    options = dict(engine="scan", dtype=network.dtype)

    def read(frame):
        xs = network.order.to_sequence(frame[None, None])[:, 0]  # [1, *F]
        if network.encoder is not None:
            xs = network.encoder.apply({"params": params["encoder"]}, xs)
        return xs[None]  # [T = 1, B = 1, *F]

    def layers(xs, carries):
        new = []
        for layer, cell in enumerate(network.cells):
            own = params[f"layer_{layer}"]
            xs, carry = unroll(cell, own, xs, carries[layer], **options)
            new.append(carry)
        return tuple(new), xs.mean(tuple(range(2, xs.ndim - 1)))[:, 0]  # [T, D]

    def start():
        none = read(jnp.zeros(frame_shape))[:0]  # after no frame: the first carries
        carries, ys = layers(none, (None,) * len(network.cells))
        lowest = jnp.finfo(ys.dtype).min if network.pooling == "max" else 0
        pooled = jnp.full(ys.shape[1:], lowest, ys.dtype)
        return _apart((carries, pooled, jnp.int32(0)))

    def step(state, frame):
        carries, pooled, count = state
        carries, (y,) = layers(read(frame), carries)
        if network.per_step or network.pooling == "last":
            pooled = answer = y
        elif network.pooling == "mean":
            pooled = pooled + y
            answer = pooled / (count + 1).astype(y.dtype)
        else:
            pooled = answer = jnp.maximum(pooled, y)
        out = head.apply({"params": params["head"]}, answer.astype(jnp.float32))
        return (carries, pooled, count + 1), out

    return Stream(start, step)


def _forecaster_stream(network, params, frame_shape) -> Stream:
    cell = autoregressive(network.cell)
    options = dict(engine="scan", dtype=network.dtype)

    def read(frame):
        return to_patches(frame[None, None], network.patch)  # [T = 1, B = 1, ...]

    def start():
        none = read(jnp.zeros(frame_shape))[:0]
        carry = unroll(cell, params["cell"], none, **options).carry
        return _apart(carry)

    def step(carry, frame):
        ys, carry = unroll(cell, params["cell"], read(frame), carry, **options)
        return carry, from_patches(ys.astype(jnp.float32), network.patch)[0, 0]

    return Stream(start, step)


def _apart(state):
    # Leaves that share one buffer of zeros cannot be donated.
    return jax.tree.map(jnp.copy, state)
