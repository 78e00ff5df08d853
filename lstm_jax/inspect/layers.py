"""Runs the layers of a network one by one and returns all steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, step
from lstm_jax.engines.scan_inputs import mask_inputs
from lstm_jax.engines.scan_inputs import valid_steps as time_major_steps
from lstm_jax.inspect.gates import gate_names, with_sigmoids
from lstm_jax.models.classifier import SequenceClassifier


class Layer(NamedTuple):
    """One direction of one layer; `name` is that of its params."""

    name: str
    cell: Cell
    reverse: bool = False


class LayerSteps(NamedTuple):
    """All steps of one layer and direction, in the order of time.

    Attributes:
      xs: inputs, `[T, B, *F]`.
      ys: outputs, `[T, B, *D]`; zero at masked steps.
      state: the carry after each step, by name, `[T, B, *D]`.
      gates: each gate by name, `[T, B, *D]`; empty unless requested.
    """

    xs: jax.Array
    ys: jax.Array
    state: dict[str, jax.Array]
    gates: dict[str, jax.Array]


def layers_of(model: SequenceClassifier) -> list[Layer]:
    """All layers, bottom first; a layer's backward direction follows the forward one.

    Raises:
      ValueError: `model` is not a `SequenceClassifier`.
    """
    if not isinstance(model, SequenceClassifier):
        raise ValueError(
            f"inspect: {type(model).__name__} is not supported, only a "
            "SequenceClassifier is; use measure_cell(cell, params, xs, loss) for one "
            "of its cells"
        )
    layers = []
    for number, cell in enumerate(model.cells):
        layers.append(Layer(f"layer_{number}", cell))
        if model.bidirectional:
            layers.append(Layer(f"layer_{number}_backward", cell, reverse=True))
    return layers


def sequence(
    model: SequenceClassifier,
    params: Any,
    images: jax.Array,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Input of the first layer, `[T, B, *F]`, for `images [B, ...]`.

    Steps that are not `valid [T, B]` are zero in the encoder's input.
    """
    xs = mask_inputs(model.order.to_sequence(images).swapaxes(0, 1), valid)
    if model.encoder is None:
        return xs
    time, batch = xs.shape[:2]
    flat = xs.reshape(time * batch, *xs.shape[2:])
    encoded = model.encoder.apply({"params": params["encoder"]}, flat)
    return encoded.reshape(time, batch, *encoded.shape[1:])


def valid_steps(time: int, batch: int, lengths: Any = None) -> jax.Array:
    """bool `[T, B]` from `lengths [B]`; all True without lengths."""
    valid = time_major_steps(time, (batch,), lengths, None)
    return jnp.ones((time, batch), bool) if valid is None else valid


def run_layer(
    layer: Layer,
    params: Any,
    xs: jax.Array,
    valid: jax.Array,
    added: dict[str, jax.Array] | None = None,
    gates: bool = False,
) -> LayerSteps:
    """Runs one layer over a sequence, as `unroll` does, and returns everything.

    Args:
      layer: the layer and direction.
      params: of the layer.
      xs: `[T, B, *F]`.
      valid: bool `[T, B]`.
      added: values added to the carry after each step, by name, as in
        `LayerSteps.state`.
      gates: whether to return the gates.
    """
    cell, batch = layer.cell, xs.shape[1]
    features = xs.shape[2:]
    carry = cell.carry(params, (batch,), features, jnp.float32)
    names = gate_names(cell, features) if gates else []

    def one(carry, u):
        return step(cell, params, carry, u)

    def body(carry, inputs):
        u, valid_t, added_t = inputs
        found = []
        if gates:
            (new, y), found = with_sigmoids(one, carry, u)
        else:
            new, y = one(carry, u)
        new = jax.tree.map(lambda a, b: _where(valid_t, a, b), new, carry)
        new = _with_added(new, added_t)
        y = _where(valid_t, y, jnp.zeros_like(y))
        return new, (y, state_of(new), dict(zip(names, found, strict=True)))

    us = cell.project(params, mask_inputs(xs, valid))
    inputs = (us, valid, added or {})
    _, (ys, state, found) = lax.scan(body, carry, inputs, reverse=layer.reverse)
    return LayerSteps(xs, ys, state, found)


def run_network(
    model: SequenceClassifier,
    params: Any,
    images: jax.Array,
    valid: jax.Array,
    added: dict[str, dict[str, jax.Array]] | None = None,
    gates: bool = False,
) -> tuple[jax.Array, dict[str, LayerSteps]]:
    """Returns the outputs of `predictions`, and the steps of all layers, by name.

    The last output equals the model's `apply`, in float32. `added` has the layer's name
    as its first key; the rest is as in `run_layer`.
    """
    xs = sequence(model, params, images, valid)
    steps, directions = {}, []
    for layer in layers_of(model):
        if not layer.reverse and directions:
            xs = jnp.concatenate(directions, axis=-1)
            directions = []
        own = None if added is None else added[layer.name]
        done = run_layer(layer, params[layer.name], xs, valid, own, gates)
        steps[layer.name] = done
        directions.append(done.ys)
    return predictions(model, params, directions, valid), steps


def predictions(
    model: SequenceClassifier,
    params: Any,
    directions: list[jax.Array],
    valid: jax.Array,
) -> jax.Array:
    """Output of the head for the steps up to each, `[T, B, K]`.

    The last entry is the network's output; with `per_step` all outputs are returned,
    `[1, B, T, K]`. The backward direction of a bidirectional network starts at the end,
    so only the last entry is meaningful.

    Args:
      model: defines how steps are pooled.
    Args:
      model: says how steps are pooled.
      params: of the model.
      directions: outputs of the top layer, `[T, B, *D]` each.
      valid: bool `[T, B]`.
    """
    pooled = []
    for number, ys in enumerate(directions):
        ys = ys.mean(tuple(range(2, ys.ndim - 1)))  # over space, if any
        backward = number == 1 and model.pooling == "last" and not model.per_step
        if backward:
            ys, own = ys[::-1], valid[::-1]
        else:
            own = valid
        pooled.append(ys if model.per_step else _pooled(ys, own, model.pooling))
    features = jnp.concatenate(pooled, axis=-1).astype(jnp.float32)
    head = params["head"]
    outputs = features @ head["kernel"] + head["bias"]
    return outputs.swapaxes(0, 1)[None] if model.per_step else outputs


def _pooled(ys: jax.Array, valid: jax.Array, pooling: str) -> jax.Array:
    """Pools the valid steps up to each step; zero before the first."""
    ok = valid[..., None]
    if pooling == "mean":
        return ys.cumsum(0) / jnp.maximum(ok.cumsum(0), 1).astype(ys.dtype)
    if pooling == "max":
        most = lax.cummax(jnp.where(ok, ys, jnp.finfo(ys.dtype).min))
        return jnp.where(ok.cumsum(0) > 0, most, 0)
    return up_to(ys, valid)


def up_to(ys: jax.Array, valid: jax.Array) -> jax.Array:
    """The last valid step up to each step, `[T, B, ...]`; zero before the first."""
    at = lax.cummax(jnp.where(valid, jnp.arange(len(ys))[:, None], -1))
    at = at.reshape(*at.shape, *(1,) * (ys.ndim - 2))
    taken = jnp.take_along_axis(ys, jnp.maximum(at, 0), axis=0)
    return jnp.where(at >= 0, taken, jnp.zeros_like(taken))


def state_of(carry: Any) -> dict[str, jax.Array]:
    """The floating leaves of a carry by name: {"c": ..., "h": ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(carry)
    floating = [(p, x) for p, x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return {path_name(path) or "state": leaf for path, leaf in floating}


def path_name(path: tuple) -> str:
    """ "layers.0.w_x", from the path of a leaf of a pytree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _with_added(carry: Any, added: dict[str, jax.Array]) -> Any:
    def add(path, leaf):
        name = path_name(path) or "state"
        return leaf + added[name] if name in added else leaf

    return jax.tree_util.tree_map_with_path(add, carry)


def _where(valid: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """`a` where `valid [B]`, else `b`; leaves without a batch axis stay `a`."""
    if a.shape[:1] != valid.shape:
        return a
    return jnp.where(valid.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
