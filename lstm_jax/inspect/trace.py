"""Traces a network over one image: states, gates and predictions at each step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.inspect.layers import layers_of, run_network, sequence, valid_steps
from lstm_jax.models.classifier import SequenceClassifier

MOST_ENDS = 64  # maximum number of lengths at which a bidirectional network is run
NOISE = 0.15  # standard deviation for SmoothGrad, as a fraction of the image's range


class LayerTrace(NamedTuple):
    """State and gates of one layer and direction after each step, in order of time.

    Arrays are `[T, D]`; for convolutional cells averaged over space.

    Attributes:
      state: the parts of the carry, by name.
      gates: by name; empty if the cell has none.
    """

    state: dict[str, np.ndarray]
    gates: dict[str, np.ndarray]


class Trace(NamedTuple):
    """A network's processing of one image.

    Attributes:
      kind: of the image: "image", "clip" or "features".
      locations: int `[T, P]`, the pixels that each step reads, as indices into the
        flattened image; for clips and features the index of the frame.
      layers: `LayerTrace` by the name of the layer's params, bottom first.
      predictions: `[T, K]`, the predictions if the sequence ended at each step. With
        one direction this is the head applied to the outputs so far, pooled as usual; a
        bidirectional network is run for each length (if T > 64, for 64 lengths, with
        linear interpolation between). With `per_step`, the prediction at each step,
        from the whole sequence.
      target: index of the output that `saliency` explains.
      saliency: `[H, W]` or `[T, H, W]`, |∂ output_target / ∂ image|, maximum over
        channels; for features `[T, F]`. None if not requested.
      decided: the first step from which on the largest output is the final one's.
    """

    kind: str
    locations: np.ndarray
    layers: dict[str, LayerTrace]
    predictions: np.ndarray
    target: int
    saliency: np.ndarray | None
    decided: int


def trace(
    model: SequenceClassifier,
    params: Any,
    image: Any,
    *,
    target: int | None = None,
    length: int | None = None,
    predict: Callable[[jax.Array], jax.Array] = jax.nn.softmax,
    smooth: int | None = 16,
) -> Trace:
    """Runs a network over one image and records everything.

    Args:
      model: the network.
      params: its params.
      image: `[H, W, C]`, normalized; or a clip `[T, H, W, C]`, or features `[T, F]`.
      target: index of the output to explain; None: the largest of the final prediction.
      length: number of steps; None: all.
      predict: maps outputs `[..., K]` to predictions, such as a task's `predict`.
      smooth: number of noisy copies whose gradients are averaged for the saliency
        (SmoothGrad, noise of 15 % of the image's range); 0 uses the gradient at the
        image itself, None computes no saliency.

    Returns:
      `Trace`, NumPy arrays.

    Raises:
      ValueError: the model is not a `SequenceClassifier`, or a number is out of range.

    Reference: saliency: Simonyan, Vedaldi & Zisserman 2014; SmoothGrad: Smilkov et al.
    2017.
    """
    names = [layer.name for layer in layers_of(model)]
    images = jnp.asarray(image, jnp.float32)[None]
    shape = jax.eval_shape(lambda p, x: sequence(model, p, x), params, images).shape
    time = shape[0] if length is None else int(length)
    if not 1 <= time <= shape[0]:
        raise ValueError(f"trace: length={length}, but the image has {shape[0]} steps")
    if target is not None and not 0 <= target < model.outputs:
        raise ValueError(
            f"trace: target={target}, but the network has {model.outputs} outputs"
        )
    valid = valid_steps(shape[0], 1, [time])

    @jax.jit
    def run(params, images):
        outputs, steps = run_network(model, params, images, valid, gates=True)
        held = {
            n: LayerTrace(_channels(s.state), _channels(s.gates))
            for n, s in steps.items()
        }
        return (outputs[0] if model.per_step else outputs[:, 0]), held

    outputs, held = run(params, images)  # per_step: [1, T, K], else [T, K]
    outputs = outputs.reshape(-1, outputs.shape[-1])[:time]
    if model.bidirectional and not model.per_step:
        outputs = _by_length(model, params, images, time)
    predictions = np.asarray(predict(outputs), np.float32)
    predictions = predictions.reshape(len(predictions), -1)
    best = predictions.argmax(-1)
    target = int(best[-1]) if target is None else target
    saliency = None
    if smooth is not None:
        saliency = _saliency(model, params, images, valid, target, smooth)
    return Trace(
        kind={3: "image", 4: "clip"}.get(images.ndim - 1, "features"),
        locations=locations(model, images.shape[1:])[:time],
        layers={n: _cut(jax.device_get(held[n]), time) for n in names},
        predictions=predictions,
        target=target,
        saliency=saliency,
        decided=int(np.nonzero(best != best[-1])[0].max(initial=-1)) + 1,
    )


def locations(model: SequenceClassifier, image_shape: tuple[int, ...]) -> np.ndarray:
    """int `[T, P]`: the pixels, or the frame, that each step reads."""
    if len(image_shape) != 3:
        return np.arange(image_shape[0])[:, None]
    h, w, _ = image_shape
    numbers = np.arange(h * w, dtype=np.float32).reshape(1, h, w, 1)
    return np.asarray(model.order.to_sequence(numbers)[0]).astype(int)


def _channels(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """`[T, 1, *space, D] -> [T, D]`, averaged over space."""
    return {n: a.mean(tuple(range(1, a.ndim - 1))) for n, a in arrays.items()}


def _cut(held: LayerTrace, time: int) -> LayerTrace:
    return LayerTrace(*({n: a[:time] for n, a in part.items()} for part in held))


def _by_length(model, params, images, time: int) -> jax.Array:
    """Outputs for the first 1, 2, … T steps, `[T, K]`, each from a separate run."""
    count = min(time, MOST_ENDS)
    ends = np.unique(np.linspace(1, time, count).round().astype(int))
    copies = jnp.broadcast_to(images, (len(ends), *images.shape[1:]))
    full = jax.eval_shape(lambda p, x: sequence(model, p, x), params, images).shape[0]
    valid = valid_steps(full, len(ends), ends)
    outputs = jax.jit(lambda p, x: run_network(model, p, x, valid)[0][-1])(
        params, copies
    )
    every = np.arange(1, time + 1)
    lines = [np.interp(every, ends, column) for column in np.asarray(outputs).T]
    return jnp.asarray(np.stack(lines, -1), jnp.float32)


def _saliency(model, params, images, valid, target, smooth) -> np.ndarray:
    @jax.jit
    def gradient(params, images):
        def output(images):
            outputs, _ = run_network(model, params, images, copies)
            return outputs[-1][..., target].sum()

        return jax.grad(output)(images).mean(0)

    copies = jnp.broadcast_to(valid, (len(valid), max(smooth, 1)))
    if smooth:
        noise = jax.random.normal(
            jax.random.key(0), (smooth, *images.shape[1:]), images.dtype
        )
        images = images + NOISE * (images.max() - images.min()) * noise
    found = np.abs(np.asarray(gradient(params, images)))
    return found.max(-1) if found.ndim > 2 else found
