"""The contract of a recurrent cell, and the letters that name its shapes.

    T  time steps          B  batch (any number of axes: *B)
    F  input features      D  hidden width       G  all gates together (4 D)
    K  classes / outputs   H W C  height, width and channels of an image

Arrays of a sequence are time-major, `[T, *B, F]`. In names, `xs` are inputs of
all steps, `us` their projections, `ys` outputs; `x_t` and `h_tm1` one step's.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Keys(NamedTuple):
    """Randomness of one run over a sequence, made by `Keys.of`.

    Attributes:
      sequence: a typed key, `()`, for what stays the same through all steps.
      steps: typed keys, `[T]`, one for each step; `()` where one step is meant.
    """

    sequence: jax.Array
    steps: jax.Array

    @classmethod
    def of(cls, key: jax.Array, time: int) -> "Keys":
        """Keys for `time` steps; step t's key does not depend on `time`."""
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            key = jax.random.wrap_key_data(key)
        sequence, seed = jax.random.split(key)
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        return cls(sequence, fold(seed, jnp.arange(time, dtype=jnp.uint32)))

    def fold_in(self, data: int) -> "Keys":
        """Keys of their own for one of several users, such as a layer."""

        def fold(keys):
            if keys.ndim:
                return jax.vmap(fold)(keys)
            return jax.random.fold_in(keys, data)

        return Keys(fold(self.sequence), fold(self.steps))

    def stacked(self) -> "Keys":
        """Both `[T]`, to travel through the steps as a part of `us`."""
        sequence = jnp.broadcast_to(self.sequence, self.steps.shape)
        return Keys(sequence, self.steps)


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
      copies: whether it is several of one cell, side by side: params have a first
        axis of them, and so has the batch, `[*B]`.
    """

    init: Callable[..., Any]
    carry: Callable[..., Any]
    project: Callable[..., Any]
    recur: Callable[..., Any]
    gates: Callable[..., Any]
    feature_ndim: int = 1
    equations: str | None = None
    copies: bool = False


def step(cell: Cell, params: Any, carry: Any, u_t: Any) -> tuple[Any, jax.Array]:
    """One step of `cell`: `(params, carry, u_t) -> (carry, y_t)`."""
    return cell.gates(params, carry, u_t, cell.recur(params, carry))


def bind_consts(cell: Cell) -> Cell:
    """`cell` with params `(params, consts)`, of which its gates read both.

    Raises:
      ValueError: if they take no `consts`.
    """
    taken = inspect.signature(cell.gates).parameters.values()
    if not any(p.name == "consts" or p.kind == p.VAR_KEYWORD for p in taken):
        raise ValueError(
            "unroll: consts are given, but this cell's gates do not read any; write "
            "gates(params, carry, u, a, *, consts), or leave them out"
        )

    def carry(params, *args, **options):
        return cell.carry(params[0], *args, **options)

    def project(params, xs, *, keys=None):
        return cell.project(params[0], xs, keys=keys)

    def recur(params, carry):
        return cell.recur(params[0], carry)

    def gates(params, carry, u, a):
        params, consts = params
        return cell.gates(params, carry, u, a, consts=consts)

    return cell._replace(
        carry=carry, project=project, recur=recur, gates=gates, equations=None
    )


def project_step(cell: Cell, params: Any, x_t: Any, keys_t: Keys | None = None) -> Any:
    """`u_t`, the projection of one step's input; `keys_t` holds single keys."""
    if keys_t is None or x_t is None:
        return cell.project(params, x_t, keys=keys_t)
    one = jax.tree.map(lambda x: x[None], x_t)
    us = cell.project(params, one, keys=Keys(keys_t.sequence, keys_t.steps[None]))
    return jax.tree.map(lambda u: u[0], us)


def at_least_float32(dtype: Any) -> Any:
    """The wider of `dtype` and float32: what sums and states are kept in.

    Float32 for what has no gradients, as integers and keys.
    """
    wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.dtype(dtype).itemsize > 4
    return jnp.dtype(dtype if wide else "float32")
