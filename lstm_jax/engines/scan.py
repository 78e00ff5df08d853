"""The definition of unrolling: a `lax.scan` of the cell's step."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, step


def scan(
    cell: Cell,
    params: Any,
    xs: jax.Array,
    carry: Any,
    mask: jax.Array | None,
    *,
    key: jax.Array | None = None,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[jax.Array, Any]:
    """Runs `cell` over a sequence.

    On GPU and TPU all inputs are projected at once, before the loop. On CPU each is
    projected in its step: writing all projections to memory and reading them back
    costs more there than the small products do (`docs/performance.md`).

    Args:
      cell: the cell.
      params: its params, in the dtype to compute in.
      xs: inputs, `[T, *B, ...]`.
      carry: initial carry, `[*B, ...]`; its dtypes are kept through all steps.
      mask: bool `[T, *B]`; where False, the carry passes and the output is zero.
      key: for the randomness of `cell.project`; None means evaluation.
      reverse: from the last step to the first; outputs stay where their inputs are.
      unroll: steps in one iteration of the loop, as in `lax.scan`.

    Returns:
      `(ys [T, *B, ...], final carry)`.
    """
    # One key serves all steps at once only, so randomness wants them together.
    together = key is not None or jax.default_backend() != "cpu"
    inputs = cell.project(params, xs, key=key) if together else xs

    def body(carry, inputs_t):
        u_t, m_t = inputs_t
        if not together:
            u_t = cell.project(params, u_t)
        new, y_t = step(cell, params, carry, u_t)
        new = jax.tree.map(lambda n, c: n.astype(c.dtype), new, carry)
        if m_t is not None:
            new = jax.tree.map(lambda n, c: _where(m_t, n, c), new, carry)
            y_t = _where(m_t, y_t, jnp.zeros_like(y_t))
        return new, y_t

    carry, ys = lax.scan(body, carry, (inputs, mask), reverse=reverse, unroll=unroll)
    return ys, carry


def _where(mask: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Selects by a mask of the leading axes: `mask [*B]`, `a, b [*B, ...]`."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)
