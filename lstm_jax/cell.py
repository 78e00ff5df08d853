"""The contract of a recurrent cell, and the letters that name its shapes.

    T  time steps          B  batch (any number of axes: *B)
    F  input features      D  hidden width       G  all gates together (4 D)
    K  classes / outputs   H W C  height, width and channels of an image

Arrays of a sequence are time-major, `[T, *B, F]`. In names, `xs` are inputs of
all steps, `us` their projections, `ys` outputs; `x_t` and `h_tm1` one step's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.keys import Keys


class Cell(NamedTuple):
    """A recurrent cell: pure functions, and what an engine must know of them.

    One step is an input half, which needs no state; a recurrent half, *linear* in
    the state; and pointwise gates. An engine may therefore project all steps at
    once, or keep weight gradients out of its loop, for a cell it has never seen.

    Attributes:
      init: `(key, feature_shape, dtype) -> params`, a plain pytree.
      carry: `(params, batch_shape, feature_shape, dtype, *, key=None) -> carry`, the
        state before the first step, leaves `[*B, ...]`. What is drawn once for a
        sequence, such as a mask on the state, is drawn here and stays in the carry.
      project: `(params, xs, *, keys=None) -> us`, with any leading axes; `Keys` come
        only with a leading axis of time. What is drawn anew in each step is drawn
        here, or its key travels in `us`. No keys means evaluation.
      recur: `(params, carry) -> a`, linear in `params` and in `carry`.
      gates: `(params, carry, u, a) -> (carry, y)`, deterministic. One that also takes
        `consts`, a keyword, reads what is given to `unroll` for all steps.
      feature_ndim: trailing axes of an input that are features: 1 for vectors.
      equations: name of the equations a fused kernel may assume, such as "lstm".
        A combinator clears it, for what it returns obeys other equations.
      output: `(carry) -> y`, for a cell whose output is a part of its new carry, such
        as h of an LSTM; None for others. What changes the one changes the other by it,
        so a combinator with another output clears it.
      params_batch_ndim: leading axes of the batch that params have as well, as those of
        `vmapped` do: along them, `project`, `recur` and `gates` are maps.
    """

    init: Callable[..., Any]
    carry: Callable[..., Any]
    project: Callable[..., Any]
    recur: Callable[..., Any]
    gates: Callable[..., Any]
    feature_ndim: int = 1
    equations: str | None = None
    output: Callable[[Any], jax.Array] | None = None
    params_batch_ndim: int = 0


def step(cell: Cell, params: Any, carry: Any, u_t: Any) -> tuple[Any, jax.Array]:
    """One step of `cell`: `(params, carry, u_t) -> (carry, y_t)`."""
    return cell.gates(params, carry, u_t, cell.recur(params, carry))


def project_step(cell: Cell, params: Any, x_t: Any, keys_t: Keys | None = None) -> Any:
    """`u_t`, the projection of one step's input; `keys_t` holds single keys."""
    if keys_t is None or x_t is None:
        return cell.project(params, x_t, keys=keys_t)
    one = jax.tree.map(lambda x: x[None], x_t)
    us = cell.project(
        params, one, keys=Keys(keys_t.per_sequence, keys_t.per_step[None])
    )
    return jax.tree.map(lambda u: u[0], us)


def at_least_float32(dtype: Any) -> Any:
    """The wider of `dtype` and float32: what sums and states are kept in.

    Float32 for what has no gradients, as integers and keys.
    """
    wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.dtype(dtype).itemsize > 4
    return jnp.dtype(dtype if wide else "float32")
