"""The interface of a recurrent cell, and the letters that denote array sizes.

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
    """A recurrent cell: pure functions, and properties that engines rely on.

    One step consists of an input projection, independent of the state; a recurrent
    projection, *linear* in the state; and elementwise gates. An engine can therefore
    project all steps at once, or compute weight gradients outside its loop, for any
    cell.

    Attributes:
      init: `(key, feature_shape, dtype) -> params`, a plain pytree.
      carry: `(params, batch_shape, feature_shape, dtype, *, key=None) -> carry`, the
        initial state, leaves `[*B, ...]`. Randomness that is constant over a sequence,
        such as a dropout mask on the state, is drawn here and kept in the carry.
      project: `(params, xs, *, keys=None) -> us`, with any leading axes; `Keys` come
        only with a leading axis of time. Randomness that differs between
        steps is drawn here, or its key is passed in `us`. No keys: evaluation.
      recur: `(params, carry) -> a`, linear in `params` and in `carry`.
      gates: `(params, carry, u, a) -> (carry, y)`, deterministic. If it also
        takes the keyword `consts`, it gets the `consts` passed to `unroll`.
      feature_ndim: number of trailing feature axes of an input: 1 for vectors.
      equations: name of the equations a fused kernel may assume, such as "lstm".
        Combinators clear it, because their cells have other equations.
      output: `(carry) -> y`, if the output is a part of the new carry, such as h of an
        LSTM; else None. A combinator that changes the output clears it.
      params_batch_ndim: number of leading batch axes that params have, too, as with
        `vmapped`: along them `project`, `recur` and `gates` are mapped.
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
    """The wider of `dtype` and float32, for sums and states.

    Float32 for dtypes without gradients, such as integers and keys.
    """
    wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.dtype(dtype).itemsize > 4
    return jnp.dtype(dtype if wide else "float32")
