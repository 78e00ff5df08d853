"""A sequence in pieces: to keep less of it, or to cut its gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import at_least_float32
from lstm_jax.engines.steps import Steps


def in_pieces(
    run: Callable,
    params: Any,
    steps: Steps,
    carry: Any,
    *,
    time: int,
    size: int,
    reverse: bool = False,
    remat: bool = False,
    cut: bool = False,
) -> tuple[Any, Any, Any]:
    """Runs an engine over pieces of `size` steps, each with the carry of the last.

    Args:
      run: `(params, steps, carry, time) -> (ys, carry, carries)`, an engine.
      params, steps, carry, time: as an engine takes them.
      size: steps of a piece, >= 1; the last one to be read may be shorter.
      reverse: from the last step to the first.
      remat: the backward pass keeps the carry before each piece, and runs it again.
      cut: no gradient goes from a piece to the one before.

    Returns:
      As `run`, for all steps.
    """
    if time <= size and not remat:
        return run(params, steps, carry, time)
    # A scan sums gradients of params in their dtype, once a piece: float32, then.
    dtypes = jax.tree.map(lambda p: p.dtype, params)
    wide = jax.tree.map(_widened, params)

    def piece(carry, steps_of_piece, first, time):
        if cut:
            carry = jax.tree.map(
                lambda c: jnp.where(first, c, lax.stop_gradient(c)), carry
            )
        params = jax.tree.map(
            lambda p, dtype: p if p.dtype == dtype else p.astype(dtype), wide, dtypes
        )
        ys, carry, carries = run(params, steps_of_piece, carry, time)
        return carry, (ys, carries)

    if remat:
        piece = jax.checkpoint(piece, prevent_cse=False, static_argnums=3)
    count, rest = divmod(time, size)
    begin = rest if reverse else 0  # of the whole pieces
    end = begin + count * size

    def whole(x):
        return x[begin:end].reshape(count, size, *x.shape[1:])

    carry, out = lax.scan(
        lambda carry, at: piece(carry, *at, size),
        carry,
        (jax.tree.map(whole, steps), jnp.arange(count) == (count - 1) * reverse),
        reverse=reverse,
    )
    out = jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:]), out)
    if rest:
        left = jax.tree.map(lambda x: x[:begin] if reverse else x[end:], steps)
        carry, more = piece(carry, left, count == 0, rest)
        parts = (more, out) if reverse else (out, more)
        out = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)
    ys, carries = out
    return ys, carry, carries


def _widened(p: jax.Array) -> jax.Array:
    """At least float32, if `p` can have a gradient; integers and keys as they are."""
    inexact = jnp.issubdtype(p.dtype, jnp.inexact)
    return p.astype(at_least_float32(p.dtype)) if inexact else p
