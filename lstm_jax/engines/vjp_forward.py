"""The forward pass of the engine "vjp": outputs and residuals."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.engines.cotangents import select
from lstm_jax.engines.plan import Plan, PreActivations
from lstm_jax.engines.platforms import LoopStrategy
from lstm_jax.engines.scan import gates, keep_masked, where
from lstm_jax.engines.scan_inputs import ScanInputs
from lstm_jax.engines.stacks import project_all, read, write


def forward(
    plan: Plan,
    strategy: LoopStrategy,
    params: Any,
    xs: Any,
    carry: Any,
    reset_carry: Any,
    others: ScanInputs,
    *,
    differentiated: bool,
) -> tuple[tuple[Any, Any, Any], tuple[list, Any]]:
    """Runs the cell.

    Args:
      plan: decisions about the cell.
      strategy: of the platform.
      params, carry, reset_carry: as in `scan`.
      xs: of the inputs; `others` are the rest of them.
      differentiated: whether the residuals will be used.

    Returns:
      `((ys, final carry, carries or None), (states, pre))`: states before each step,
      the saved leaves alone, and pre-activations, None if they are recomputed.
    """
    run, decisions = plan.run, plan.decide(strategy)
    inputs = others._replace(xs=xs)
    project, projected = run.project, None
    overwrites = decisions.overwrite_inputs and differentiated
    if decisions.hoist_projection:
        projected = project_all(plan, strategy, run.time, params, inputs)
        projected = strategy.constrain_layout(projected)
        inputs = inputs._replace(xs=None if overwrites else projected)
        project = lambda params, inputs_t: inputs_t.xs  # noqa: E731
    project = strategy.rewrite_matmuls(project)
    recur = strategy.rewrite_matmuls(run.cell.recur)

    def body(state, inputs_t):
        t, carry, stack = state
        if overwrites:
            inputs_t = inputs_t._replace(xs=read(stack, t))
        carry = where(inputs_t.is_first, reset_carry, carry, otherwise=carry)
        u_t, a_t = project(params, inputs_t), recur(params, carry)
        new, y_t = gates(run.cell, params, carry, u_t, a_t)
        new, y_t = keep_masked(inputs_t.mask, new, carry, y_t.astype(run.dtype))
        pre = None if run.remat else plan.join(u_t, a_t)
        if overwrites:
            stack, pre = _over(stack, pre, t), None
        after = t - 1 if run.reverse else t + 1
        out = y_t, new if run.every_carry else None, select(carry, plan.saved), pre
        return (after, new, stack), out

    begin = jnp.int32(run.time - 1 if run.reverse else 0)
    (_, last, stack), (ys, carries, states, pre) = lax.scan(
        body,
        (begin, carry, projected if overwrites else None),
        inputs,
        length=run.time,
        reverse=run.reverse,
        unroll=run.unroll,
    )
    if overwrites:
        leaves = jax.tree.leaves(stack)
        pre = PreActivations(jax.tree.unflatten(plan.a_tree, leaves), [])
    ys, states, pre = strategy.constrain_layout((ys, states, pre))
    return (ys, last, carries), (states, pre)


def _over(stack: Any, pre: PreActivations, at: jax.Array) -> Any:
    """`stack`, with one step of `pre` written over its only leaf."""
    (leaf,), tree = jax.tree.flatten(stack)
    (new,) = jax.tree.leaves(pre)
    return jax.tree.unflatten(tree, [write(leaf, new, at)])
