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
    together = projects_together(key)
    inputs = cell.project(params, xs, key=key) if together else xs

    def body(carry, inputs_t):
        u_t, m_t = inputs_t
        if not together:
            u_t = cell.project(params, u_t)
        new, y_t = step(cell, params, carry, u_t)
        new = jax.tree.map(lambda n, c: n.astype(c.dtype), new, carry)
        return select(m_t, new, carry), select(m_t, y_t, jnp.zeros_like(y_t))

    carry, ys = lax.scan(body, carry, (inputs, mask), reverse=reverse, unroll=unroll)
    return ys, carry


def projects_together(key: jax.Array | None) -> bool:
    """Whether all inputs are projected before the loop, not each in its step.

    One key serves all steps only when they are projected together.
    """
    return key is not None or jax.default_backend() != "cpu"


def select(mask: jax.Array | None, a: Any, b: Any) -> Any:
    """`a` where `mask [*B]` is True, else `b`; trees of leaves `[*B, ...]`."""
    if mask is None:
        return a

    def where(a, b):
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(where, a, b)
