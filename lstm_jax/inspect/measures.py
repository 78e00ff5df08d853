"""What is measured of a recurrent network on one batch, before anybody judges it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cell import Cell
from lstm_jax.inspect.layers import (
    Layer,
    layers_of,
    run_layer,
    run_network,
    sequence,
    up_to,
    valid_steps,
)
from lstm_jax.models.classifier import SequenceClassifier

SATURATED = 0.9  # a gate g is saturated where |2 g - 1| > 0.9: below 0.05, over 0.95
BINS = 40  # of a gate's histogram over 0 to 1
STILL = 1e-6  # a unit whose standard deviation is below this never moves
PROJECTIONS = 8  # random ones that estimate a Frobenius norm
KEPT = 0.9  # share of the influence that "the last steps" hold


class GateMeasures(NamedTuple):
    """One gate over a batch.

    Attributes:
      mean: `[T]`, over examples and units.
      saturated: `[T]`, the share of examples and units with |2 g - 1| > 0.9.
      histogram: `[BINS]`, shares of all its values, between 0 and 1.
    """

    mean: np.ndarray
    saturated: np.ndarray
    histogram: np.ndarray


class LayerMeasures(NamedTuple):
    """One direction of one layer. Arrays `[T]` are in the order of its reading.

      A backward direction thus starts with its last step. What no example has (padding;
      of `gradients` also the last step, after which no carry goes on) is NaN, and what
    overflowed is infinite.

      Attributes:
        name: of its params.
        gradients: for each part of the carry, `[T]`: the norm of ∂loss/∂carry_t through
          the later steps, a mean over examples.
        gates: by name; empty if the cell has none.
        memory: `[T]`, ‖∂y_T/∂x_t‖: what a layer's last output hears of each input.
          The Frobenius norm is estimated from K = `PROJECTIONS` vectors v ~ N(0, 1):
          ‖J‖² = E ‖vᵀJ‖², as ‖J‖ ≈ sqrt(mean_k ‖v_kᵀJ‖²), a mean over examples.
        memory_steps: the least number of last steps that hold 90 % of the sum of
          `memory`, of each example, a mean over them.
        steps: valid steps of an example, a mean.
        still: bool `[D]`: units whose standard deviation over examples, valid steps and
          space is below 1e-6; a ReLU that is always 0, for one.
    """

    name: str
    gradients: dict[str, np.ndarray]
    gates: dict[str, GateMeasures]
    memory: np.ndarray
    memory_steps: float
    steps: float
    still: np.ndarray


class Measures(NamedTuple):
    """All layers, bottom first; `last`: the prediction comes from a last step."""

    layers: tuple[LayerMeasures, ...]
    last: bool = True


def measure(
    model: SequenceClassifier,
    params: Any,
    images: Any,
    targets: Any = None,
    *,
    loss: Callable[[jax.Array], jax.Array] | None = None,
    lengths: Any = None,
) -> Measures:
    """Measures a network on a batch, in float32 and as it is in evaluation.

    Takes the time and memory of a few training steps on plain `scan`: 32 examples are
    plenty. `tbptt_steps` is not heeded: gradients go back to the first step.

    Args:
      model: the network.
      params: its params, fresh or trained.
      images: `[B, H, W, C]`, normalised, or clips `[B, T, H, W, C]`.
      targets: int `[B]`, for the sum of cross-entropies; or floats like the outputs,
        for half the sum of squared errors.
      loss: of the outputs, in place of targets: a scalar. Take a sum over examples,
        so that the norms are those of one example.
      lengths: int `[B]`, steps of each sequence to read.

    Raises:
      ValueError: if the model is no `SequenceClassifier`, or there is no loss.
    """
    layers = layers_of(model)
    loss = _loss(loss, targets)
    key = jax.random.key(0)  # of the random projections
    images = jnp.asarray(images)
    read = jax.eval_shape(lambda p, x: sequence(model, p, x), params, images)
    time, batch = read.shape[:2]
    valid = valid_steps(time, batch, lengths)

    @jax.jit
    def run(params, images, valid):
        def through(added):
            outputs, steps = run_network(
                model, params, images, valid, added, gates=True
            )
            return loss(outputs[-1]), steps

        shapes = jax.eval_shape(lambda: run_network(model, params, images, valid)[1])
        zeros = {name: _zeros(steps.state) for name, steps in shapes.items()}
        gradients, steps = jax.grad(through, has_aux=True)(zeros)
        return {
            layer.name: _layer(
                layer,
                params[layer.name],
                steps[layer.name],
                gradients[layer.name],
                valid,
                jax.random.fold_in(key, number),
            )
            for number, layer in enumerate(layers)
        }

    found = jax.device_get(run(params, images, valid))
    last = model.pooling == "last" and not model.per_step
    return Measures(tuple(_measures(x.name, found[x.name]) for x in layers), last)


def measure_cell(
    cell: Cell,
    params: Any,
    xs: jax.Array,
    loss: Callable[[jax.Array], jax.Array],
) -> Measures:
    """The same of a bare cell: `xs [T, B, *F]`, and a loss of the outputs `[T, B, *D]`.

    >>> import jax, jax.numpy as jnp
    >>> from lstm_jax import lstm
    >>> cell = lstm(8)
    >>> params = cell.init(jax.random.key(0), (3,))
    >>> xs = jax.random.normal(jax.random.key(1), (20, 4, 3))
    >>> (layer,) = measure_cell(cell, params, xs, lambda ys: ys[-1].sum()).layers
    >>> sorted(layer.gates), sorted(layer.gradients), layer.memory.shape
    (['f', 'i', 'o'], ['c', 'h'], (20,))
    """
    found = _cell(Layer("cell", cell), loss, params, xs, jax.random.key(0))
    return Measures((_measures("cell", jax.device_get(found)),))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _cell(layer, loss, params, xs, key) -> dict:
    valid = valid_steps(*xs.shape[:2])

    def through(added):
        steps = run_layer(layer, params, xs, valid, added, gates=True)
        return loss(steps.ys), steps

    shapes = jax.eval_shape(lambda: run_layer(layer, params, xs, valid))
    gradients, steps = jax.grad(through, has_aux=True)(_zeros(shapes.state))
    return _layer(layer, params, steps, gradients, valid, key)


def _loss(loss, targets):
    if loss is not None:
        return loss
    if targets is None:
        raise ValueError(
            "measure: neither targets nor a loss; pass targets=classes [B], or "
            "loss=lambda outputs: outputs.sum()"
        )
    targets = jnp.asarray(targets)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        return lambda outputs: (
            0.5 * ((outputs - targets.reshape(outputs.shape)) ** 2).sum()
        )

    def cross_entropy(outputs):
        chosen = jnp.take_along_axis(outputs, targets[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(outputs, axis=-1) - chosen).sum()

    return cross_entropy


def _layer(layer, params, steps, gradients, valid, key) -> dict:
    """What is measured, as arrays of fixed shapes; steps in the order of reading."""

    def in_order(x):
        return x[::-1] if layer.reverse else x

    valid = in_order(valid)
    left = valid[::-1].cumsum(0)[::-1] > valid.astype(
        int
    )  # valid steps to come, [T, B]
    norms = {name: in_order(_norm(g, 2)) for name, g in gradients.items()}
    gates = {name: in_order(g) for name, g in steps.gates.items()}
    memory = in_order(_memory(layer, params, steps, in_order(valid), key))
    return {
        "gradients": {n: _mean(g, valid & left) for n, g in norms.items()},
        "gates": {n: _gate(g, valid)._asdict() for n, g in gates.items()},
        "memory": _mean(memory, valid),
        "memory_steps": _last_steps(memory, valid),
        "steps": valid.sum(0).mean(),
        "still": _deviation(in_order(steps.ys), valid) < STILL,
    }


def _measures(name: str, found: dict) -> LayerMeasures:
    gates = {gate: GateMeasures(**values) for gate, values in found["gates"].items()}
    numbers = {k: float(found[k]) for k in ("memory_steps", "steps")}
    return LayerMeasures(name=name, **found | numbers | {"gates": gates})


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _norm(x: jax.Array, first: int) -> jax.Array:
    """Norm over all axes from `first` on."""
    return jnp.sqrt(jnp.square(x).sum(tuple(range(first, x.ndim))))


def _mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of `x [T, B]` over the valid examples, `[T]`; NaN where there is none."""
    x = jnp.where(jnp.isnan(x), jnp.inf, x)  # overflowed
    return jnp.where(valid, x, 0).sum(1) / valid.sum(1).astype(x.dtype)


def _gate(values: jax.Array, valid: jax.Array) -> GateMeasures:
    """Statistics of a gate `[T, B, *D]`."""
    flat = values.reshape(*valid.shape, -1)
    stuck = (jnp.abs(2 * flat - 1) > SATURATED).astype(jnp.float32)
    weights = jnp.broadcast_to(valid[..., None], flat.shape).astype(jnp.float32)
    at = jnp.clip((flat * BINS).astype(jnp.int32), 0, BINS - 1)
    counts = jnp.zeros(BINS).at[at.ravel()].add(weights.ravel())
    return GateMeasures(
        mean=_mean(flat.mean(-1), valid),
        saturated=_mean(stuck.mean(-1), valid),
        histogram=counts / jnp.maximum(weights.sum(), 1),
    )


def _memory(layer, params, steps, valid, key) -> jax.Array:
    """‖∂y_T/∂x_t‖ of each example, estimated: `[T, B]`, in the order of time."""

    def last(xs):
        ys = run_layer(layer, params, xs, valid).ys
        if layer.reverse:
            return up_to(ys[::-1], valid[::-1])[-1]
        return up_to(ys, valid)[-1]

    y, pull = jax.vjp(last, steps.xs)
    vs = jax.random.normal(key, (PROJECTIONS, *y.shape), y.dtype)
    pulled = jax.lax.map(lambda v: _norm(pull(v)[0], 2), vs)  # [K, T, B]
    return jnp.sqrt(jnp.square(pulled).mean(0))


def _last_steps(memory: jax.Array, valid: jax.Array) -> jax.Array:
    """How many last valid steps hold `KEPT` of the sum, a mean over examples."""
    memory = jnp.where(valid, memory, 0)[::-1]  # last step first
    held = memory.cumsum(0) - memory  # by the steps after this one
    wanted = (held < KEPT * memory.sum(0)) & valid[::-1]
    return wanted.sum(0).mean()


def _deviation(ys: jax.Array, valid: jax.Array) -> jax.Array:
    """Standard deviation of each unit over valid steps, examples and space: `[D]`."""
    axes = tuple(range(ys.ndim - 1))
    ok = jnp.broadcast_to(valid.reshape(*valid.shape, *(1,) * (ys.ndim - 2)), ys.shape)
    count = jnp.maximum(ok.sum(axes), 1).astype(ys.dtype)
    mean = jnp.where(ok, ys, 0).sum(axes) / count
    return jnp.sqrt(jnp.where(ok, jnp.square(ys - mean), 0).sum(axes) / count)
