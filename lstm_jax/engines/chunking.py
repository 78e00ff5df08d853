"""Runs a sequence in chunks, to save memory or to truncate the gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import at_least_float32
from lstm_jax.engines.scan_inputs import ScanInputs


def run_chunked(
    run: Callable,
    params: Any,
    inputs: ScanInputs,
    carry: Any,
    *,
    time: int,
    size: int,
    reverse: bool = False,
    remat: bool = False,
    stop_gradient: bool = False,
) -> tuple[Any, Any, Any]:
    """Runs an engine over chunks of `size` steps, each with the carry of the last.

    Args:
      run: `(params, inputs, carry, time) -> (ys, carry, carries)`, an engine.
      params, inputs, carry, time: as an engine takes them.
      size: steps per chunk, >= 1; the last chunk that is processed may be shorter.
      reverse: from the last step to the first.
      remat: the backward pass stores the carry before each chunk, and recomputes it.
      stop_gradient: stops the gradient between chunks.

    Returns:
      As `run`, for all steps.
    """
    if time <= size and not remat:
        return run(params, inputs, carry, time)
    size = min(size, time)
    # A scan sums gradients of params in their dtype, once a chunk: float32, then.
    dtypes = jax.tree.map(lambda p: p.dtype, params)
    wide = jax.tree.map(_widened, params)

    def chunk(carry, inputs_of_chunk, first, time):
        if stop_gradient:
            carry = jax.tree.map(
                lambda c: jnp.where(first, c, lax.stop_gradient(c)), carry
            )
        params = jax.tree.map(
            lambda p, dtype: p if p.dtype == dtype else p.astype(dtype), wide, dtypes
        )
        ys, carry, carries = run(params, inputs_of_chunk, carry, time)
        return carry, (ys, carries)

    if remat:
        chunk = jax.checkpoint(chunk, prevent_cse=False, static_argnums=3)
    count, rest = divmod(time, size)
    begin = rest if reverse else 0  # of the whole chunks
    end = begin + count * size

    def whole(x):
        return x[begin:end].reshape(count, size, *x.shape[1:])

    carry, out = lax.scan(
        lambda carry, at: chunk(carry, *at, size),
        carry,
        (jax.tree.map(whole, inputs), jnp.arange(count) == (count - 1) * reverse),
        reverse=reverse,
    )
    out = jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:]), out)
    if rest:
        left = jax.tree.map(lambda x: x[:begin] if reverse else x[end:], inputs)
        carry, more = chunk(carry, left, count == 0, rest)
        parts = (more, out) if reverse else (out, more)
        out = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)
    ys, carries = out
    return ys, carry, carries


def _widened(leaf: jax.Array) -> jax.Array:
    """At least float32, if it can have a gradient; integers and keys as they are."""
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return leaf.astype(at_least_float32(leaf.dtype)) if inexact else leaf
