"""The definition of unrolling: a `lax.scan` of the cell's step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, Keys, project_step
from lstm_jax.engines.steps import Steps


def scan(
    cell: Cell,
    params: Any,
    steps: Steps,
    carry: Any,
    fresh: Any,
    *,
    time: int,
    reverse: bool = False,
    unroll: int = 1,
    remat: bool = False,
    every_carry: bool = False,
    dtype: Any = None,
) -> tuple[Any, Any, Any]:
    """Runs `cell` over a sequence.

    On GPU and TPU all inputs are projected at once, before the loop. On CPU each is
    projected in its step: writing all projections to memory and reading them back
    costs more there than the small products do (`docs/performance.md`).

    Args:
      cell: the cell.
      params: its params, in the dtype to compute in.
      steps: inputs, keys, mask and starts.
      carry: initial carry, `[*B, ...]`; its dtypes are kept through all steps.
      fresh: the carry that a start begins with, like `carry`.
      time: T.
      reverse: from the last step to the first; outputs stay where their inputs are.
      unroll: steps in one iteration of the loop, as in `lax.scan`.
      remat: the backward pass recomputes each step from its carry.
      every_carry: return the carry after each step.
      dtype: of the outputs.

    Returns:
      `(ys [T, *B, ...], final carry, carries [T, *B, ...] or None)`.
    """
    steps, project = hoist(cell, params, steps, projects_together(steps))

    def body(carry, steps_t):
        carry = start(steps_t.starts, fresh, carry)
        u_t = project(params, steps_t)
        new, y_t = gates(cell, params, carry, u_t, cell.recur(params, carry))
        new, y_t = keep_masked(steps_t.mask, new, carry, y_t.astype(dtype))
        return new, (y_t, new if every_carry else None)

    body = jax.checkpoint(body, prevent_cse=False) if remat else body
    # A symbolic time, of a program to export, is told by the steps themselves.
    length = time if isinstance(time, int) else None
    run = partial(lax.scan, length=length, reverse=reverse, unroll=unroll)
    carry, (ys, carries) = run(body, carry, steps)
    return ys, carry, carries


def hoist(cell: Cell, params: Any, steps: Steps, together: bool) -> tuple[Steps, Any]:
    """Projects all inputs now if `together`, or leaves that to each step.

    Returns:
      `(steps, project)`: steps whose `xs` hold projections or still inputs, and
      `project(params, steps_t) -> u_t` to call within the loop.
    """
    if not together or steps.xs is None or steps.xs.shape[0] == 0:
        return steps, lambda params, s: project_step(cell, params, s.xs, s.keys)
    keys = steps.keys
    if keys is not None:
        keys = Keys(keys.sequence[0], keys.steps)
    us = cell.project(params, steps.xs, keys=keys)
    return steps._replace(xs=us, keys=None), lambda params, s: s.xs


def projects_together(steps: Steps) -> bool:
    """Whether all inputs are projected before the loop, not each in its step.

    With keys they are: what stays the same through all steps is then drawn once.
    """
    if steps.xs is None:
        return False
    return steps.keys is not None or jax.default_backend() != "cpu"


def gates(cell: Cell, params: Any, carry: Any, u_t: Any, a_t: Any) -> tuple[Any, Any]:
    """`cell.gates`, with the new carry in the dtype of the old."""
    new, y_t = cell.gates(params, carry, u_t, a_t)
    return jax.tree.map(lambda n, c: n.astype(c.dtype), new, carry), y_t


def start(starts, fresh: Any, carry: Any) -> Any:
    """Where a sequence starts: the fresh carry."""
    return carry if starts is None else select(starts, fresh, carry)


def keep_masked(mask, new: Any, carry: Any, y_t: Any) -> tuple[Any, Any]:
    """Where the step is masked: the old carry, and an output of zeros."""
    zeros = jax.tree.map(jnp.zeros_like, y_t)
    return select(mask, new, carry), select(mask, y_t, zeros)


def select(mask: jax.Array | None, a: Any, b: Any) -> Any:
    """`a` where `mask [*B]` is True, or there is none, else `b`; leaves `[*B, ...]`."""
    if mask is None:
        return a

    def where(a, b):
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(where, a, b)
