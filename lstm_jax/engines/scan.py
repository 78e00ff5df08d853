"""The reference engine: a `lax.scan` of the cell's step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, project_step
from lstm_jax.engines.scan_inputs import ScanInputs
from lstm_jax.keys import Keys


def scan(
    cell: Cell,
    params: Any,
    inputs: ScanInputs,
    carry: Any,
    reset_carry: Any,
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
      inputs: what each step reads.
      carry: initial carry, `[*B, ...]`; its dtypes are kept through all steps.
      reset_carry: the carry that a first step reads, like `carry`.
      time: T.
      reverse: from the last step to the first; outputs stay where their inputs are.
      unroll: steps in one iteration of the loop, as in `lax.scan`.
      remat: the backward pass recomputes each step from its carry.
      every_carry: return the carry after each step.
      dtype: of the outputs.

    Returns:
      `(ys [T, *B, ...], final carry, carries [T, *B, ...] or None)`.
    """
    inputs, project = hoist(cell, params, inputs, hoists_projection(inputs))

    def body(carry, inputs_t):
        carry = where(inputs_t.is_first, reset_carry, carry, otherwise=carry)
        u_t = project(params, inputs_t)
        new, y_t = gates(cell, params, carry, u_t, cell.recur(params, carry))
        new, y_t = keep_masked(inputs_t.mask, new, carry, y_t.astype(dtype))
        return new, (y_t, new if every_carry else None)

    body = jax.checkpoint(body, prevent_cse=False) if remat else body
    # With a symbolic time, in an export, the inputs determine the length.
    length = time if isinstance(time, int) else None
    run = partial(lax.scan, length=length, reverse=reverse, unroll=unroll)
    carry, (ys, carries) = run(body, carry, inputs)
    return ys, carry, carries


def hoist(
    cell: Cell, params: Any, inputs: ScanInputs, now: bool
) -> tuple[ScanInputs, Any]:
    """Projects all inputs `now`, or leaves that to each step.

    Returns:
      `(inputs, project)`: their `xs` hold projections or still inputs, and
      `project(params, inputs_t) -> u_t` is to be called within the loop.
    """
    if not now or inputs.xs is None or inputs.xs.shape[0] == 0:
        return inputs, lambda params, s: project_step(cell, params, s.xs, s.keys)
    keys = inputs.keys
    if keys is not None:
        keys = Keys(keys.per_sequence[0], keys.per_step)
    us = cell.project(params, inputs.xs, keys=keys)
    return inputs._replace(xs=us, keys=None), lambda params, s: s.xs


def hoists_projection(inputs: ScanInputs) -> bool:
    """Whether all inputs are projected before the loop, not each in its step.

    With keys they are: what stays the same through all steps is then drawn once.
    """
    if inputs.xs is None:
        return False
    return inputs.keys is not None or jax.default_backend() != "cpu"


def gates(cell: Cell, params: Any, carry: Any, u_t: Any, a_t: Any) -> tuple[Any, Any]:
    """`cell.gates`, with the new carry in the dtype of the old."""
    new, y_t = cell.gates(params, carry, u_t, a_t)
    if not hasattr(y_t, "dtype"):
        raise ValueError(
            f"unroll: this cell puts out a {type(y_t).__name__}, but an output is one "
            "array; join them along an axis, or return them as a part of the carry"
        )

    def like(n, c):  # keys have no other dtype to be cast from
        return n if n.dtype == c.dtype else n.astype(c.dtype)

    return jax.tree.map(like, new, carry), y_t


def keep_masked(mask, new: Any, carry: Any, y_t: Any) -> tuple[Any, Any]:
    """At masked steps, keeps the old carry and outputs zeros."""
    zeros = jax.tree.map(jnp.zeros_like, y_t)
    return where(mask, (new, y_t), (carry, zeros), otherwise=(new, y_t))


def where(flags: jax.Array | None, a: Any, b: Any, *, otherwise: Any = None) -> Any:
    """`a` where `flags [*B]`, else `b`; `otherwise` if `flags` is None."""
    if flags is None:
        return otherwise

    def choose(a, b):
        shape = flags.shape + (1,) * (a.ndim - flags.ndim)
        return jnp.where(flags.reshape(shape), a, b)

    return jax.tree.map(choose, a, b)
