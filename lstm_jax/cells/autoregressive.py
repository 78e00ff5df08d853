"""Autoregressive cells: their last output is their next input."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, project_step
from lstm_jax.cells.combinators import output_shape
from lstm_jax.keys import Keys


class AutoregressiveCarry(NamedTuple):
    """The carry of the wrapped cell, and its last output, `[*B, ...]`."""

    cell: Any
    y: jax.Array


class _InStep(NamedTuple):
    """What a step needs whose input is known only then."""

    x: jax.Array | None  # [*B, ...]
    sampled: jax.Array | None  # bool [*B], True where the output replaces x
    keys: Keys | None


def autoregressive(
    cell: Cell,
    *,
    feedback: Callable[..., jax.Array] | None = None,
    sampling: float | jax.Array = 0.0,
) -> Cell:
    """A cell whose last output is its next input.

        x̂_t = feedback(y_tm1)             y_0 = 0, or what the carry holds

    Without inputs (`xs=None`, a free run) the cell reads x̂_t in every step. With
    inputs it reads these, which is teacher forcing, except that x̂_t replaces x_t
    with probability `sampling`, drawn for each example and step from the keys;
    without keys never. Gradients flow through the outputs that are fed back.

    Inputs that are never replaced are projected as the cell alone would, all at once
    where the engine likes; else each in its step.

    Args:
      cell: any cell.
      feedback: turns outputs `[*B, ...]` to inputs `[*B, ...]`; by default they are
        taken as they are. A softmax, a slice or a threshold, say. One of two
        arguments, `lambda y, w: y @ w`, also gets the `consts` of `unroll`, by which
        it may be differentiated; what it closes over must be no traced value.
      sampling: in [0, 1]; an array `()`, such as an argument of the jitted step that
        builds this cell, may change between calls without recompilation.

    Returns:
      A `Cell` with the params of `cell` and carry `AutoregressiveCarry`.

    Raises:
      ValueError: if `sampling` is outside [0, 1] or no scalar; at init, if what is
        fed back has not the shape of an input.

    Reference: Graves 2013, section 2; `sampling`: Bengio et al. 2015.
    """
    never = False
    if isinstance(sampling, int | float):
        never = sampling == 0
        if not 0 <= sampling <= 1:
            raise ValueError(
                f"autoregressive: sampling={sampling!r}, but it is a probability"
            )
    elif jnp.shape(sampling) != ():
        raise ValueError(
            f"autoregressive: sampling has shape {jnp.shape(sampling)}, but it is one "
            "probability for all examples and steps: pass a number or an array ()"
        )
    feedback = feedback or (lambda y: y)
    reads_consts = _reads_consts(feedback)

    def init(key, feature_shape, dtype=jnp.float32):
        params = cell.init(key, feature_shape, dtype)
        shape = output_shape(cell, params, feature_shape, dtype)
        y = jax.ShapeDtypeStruct(shape, dtype)
        fed = feature_shape if reads_consts else jax.eval_shape(feedback, y).shape
        if tuple(fed) != tuple(feature_shape):
            raise ValueError(
                f"autoregressive: an output {shape} is fed back as {fed}, but the "
                f"cell reads {tuple(feature_shape)}; pass a feedback that maps one to "
                "the other"
            )
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        state = cell.carry(params, batch_shape, feature_shape, dtype, key=key)
        shape = output_shape(cell, params, feature_shape, dtype)
        return AutoregressiveCarry(state, jnp.zeros((*batch_shape, *shape), dtype))

    def project(params, xs, *, keys=None):
        if keys is None:
            late = _InStep(None, None, None)
            return (None, late) if xs is None else (cell.project(params, xs), None)
        own, inner = keys.fold_in(0), keys.fold_in(1)
        if xs is None:
            return None, _InStep(None, None, inner.stacked())
        if never:
            return cell.project(params, xs, keys=inner), None

        def draw(key):
            batch_shape = xs.shape[1 : xs.ndim - cell.feature_ndim]
            probability = jnp.asarray(sampling, jnp.float32)
            return jax.random.bernoulli(key, probability, batch_shape)

        return None, _InStep(xs, jax.vmap(draw)(own.per_step), inner.stacked())

    def recur(params, carry):
        return cell.recur(params, carry.cell)

    def gates(params, carry, u, a):
        return advance(params, carry, u, a)

    def gates_with_consts(params, carry, u, a, *, consts=None):
        return advance(params, carry, u, a, consts)

    def advance(params, carry, u, a, *consts):
        u, late = u
        if late is not None:
            x = feedback(carry.y, *consts)
            if late.x is not None:
                axes = tuple(range(-cell.feature_ndim, 0))
                sampled = jnp.expand_dims(late.sampled, axes)
                x = jnp.where(sampled, x.astype(late.x.dtype), late.x)
            u = project_step(cell, params, x, late.keys)
        new, y = cell.gates(params, carry.cell, u, a)
        return AutoregressiveCarry(new, y.astype(carry.y.dtype)), y

    def output(carry):
        return carry.y

    run = gates_with_consts if reads_consts else gates
    return Cell(init, carry, project, recur, run, cell.feature_ndim, output=output)


def _reads_consts(feedback: Callable) -> bool:
    """Whether it takes a second argument, `consts`."""
    try:
        parameters = inspect.signature(feedback).parameters.values()
    except ValueError:  # some functions written in C
        return False
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    wanted = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    return len(wanted) > 1
