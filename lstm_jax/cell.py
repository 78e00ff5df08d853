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


class Cell(NamedTuple):
    """A recurrent cell: pure functions, and what an engine must know of them.

    One step is an input half, which needs no state; a recurrent half, *linear* in
    the state; and pointwise gates. An engine may therefore project all steps at
    once, or keep weight gradients out of its loop, for a cell it has never seen.

    Attributes:
      init: `(key, feature_shape, dtype) -> params`, a plain pytree.
      carry: `(params, batch_shape, feature_shape, dtype) -> carry`, the state
        before the first step.
      project: `(params, xs, *, key=None) -> us`, with any leading axes. The only
        door for randomness; no key means evaluation.
      recur: `(params, carry) -> a`, linear in `params` and in `carry`.
      gates: `(params, carry, u, a) -> (carry, y)`, deterministic.
      feature_ndim: trailing axes of an input that are features: 1 for vectors.
      equations: name of the equations a fused kernel may assume, such as "lstm".
        A combinator clears it, for what it returns obeys other equations.
    """

    init: Callable[..., Any]
    carry: Callable[..., Any]
    project: Callable[..., Any]
    recur: Callable[..., Any]
    gates: Callable[..., Any]
    feature_ndim: int = 1
    equations: str | None = None


def step(cell: Cell, params: Any, carry: Any, u_t: Any) -> tuple[Any, jax.Array]:
    """One step of `cell`: `(params, carry, u_t) -> (carry, y_t)`."""
    return cell.gates(params, carry, u_t, cell.recur(params, carry))


def at_least_float32(dtype: Any) -> Any:
    """The wider of `dtype` and float32: what sums and states are kept in."""
    return jnp.dtype(dtype) if jnp.dtype(dtype).itemsize > 4 else jnp.dtype("float32")
