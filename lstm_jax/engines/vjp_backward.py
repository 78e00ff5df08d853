"""The backward pass of the engine "vjp": a loop for the carry, products for weights."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.engines.cotangents import (
    accumulate,
    accumulators,
    or_nothing,
    replace,
    select,
)
from lstm_jax.engines.plan import Decisions, Plan, PreActivations
from lstm_jax.engines.platforms import LoopStrategy
from lstm_jax.engines.scan import gates
from lstm_jax.engines.scan_inputs import ScanInputs
from lstm_jax.engines.stacks import project_all, recur_all
from lstm_jax.engines.vjp_loop import backward_loop
from lstm_jax.engines.vjp_weights import weight_gradients


class Residuals(NamedTuple):
    """Residuals of the forward pass, for the backward pass.

    Attributes:
      params, inputs, carry, reset_carry: the arguments of the run.
      ys: outputs.
      states: saved leaves of the carry before each step.
      pre: pre-activations, or None.
    """

    params: Any
    inputs: ScanInputs
    carry: Any
    reset_carry: Any
    ys: jax.Array
    states: list
    pre: PreActivations | None


class Chunk(NamedTuple):
    """Steps that the backward pass processes at once, leaves `[K, ...]`."""

    inputs: ScanInputs
    ys: jax.Array
    states: list
    pre: PreActivations | None
    d_ys: jax.Array
    d_carries: Any


def backward(
    plan: Plan, strategy: LoopStrategy, residuals: Residuals, cotangents: Any
) -> tuple[Any, Any, Any, Any]:
    """Gradients with respect to `(params, xs, carry, reset_carry)`."""
    d_ys, d_last, d_carries = cotangents
    at, decisions = residuals, plan.decide(strategy)
    d_ys = strategy.constrain_layout(d_ys)
    whole = Chunk(at.inputs, at.ys, at.states, at.pre, d_ys, d_carries)
    run = partial(_chunk, plan, decisions, at.params)
    time, size = plan.run.time, plan.chunk
    if size == time:
        d_reset = jax.tree.map(jnp.zeros_like, d_last)
        missing = select(at.carry, plan.recomputed)
        d_carry, d_reset, d_params, d_xs = run(
            time, whole, at.carry, missing, d_last, d_reset
        )
    else:
        d_carry, d_reset, d_params, d_xs = _in_chunks(
            plan, decisions, run, at, whole, d_last
        )
    # Leaves that are not floating, such as counters, have gradients of dtype float0.
    d_params = jax.tree.map(
        lambda p, d: d.astype(p.dtype) if jnp.issubdtype(p.dtype, jnp.inexact) else d,
        at.params,
        d_params,
    )
    pairs = (
        (at.params, d_params),
        (at.inputs.xs, d_xs),
        (at.carry, d_carry),
        (at.reset_carry, d_reset),
    )
    return tuple(jax.tree.map(or_nothing, x, d) for x, d in pairs)


def _chunk(
    plan: Plan,
    decisions: Decisions,
    params: Any,
    time: int,
    chunk: Chunk,
    carry: Any,
    missing: list,
    d_carry: Any,
    d_reset: Any,
) -> tuple[Any, Any, Any, Any]:
    """Gradients of one chunk.

    Args:
      plan, decisions, params: of the run.
      time: steps of the chunk.
      chunk: its steps.
      carry: a carry, for the structure of one.
      missing: the leaves that are not saved, before the first step to be read.
      d_carry: gradient of the carry after the last one.
      d_reset: gradient of the reset carry so far.

    Returns:
      `(d_carry, d_reset, d_params, d_xs)`; of params, those of this chunk alone.
    """
    strategy = decisions.strategy
    if plan.run.remat:
        carries = replace(carry, plan.saved, chunk.states)
        us = project_all(plan, strategy, time, params, chunk.inputs)
        a = recur_all(plan, strategy, params, carries, chunk.inputs.xs)
        chunk = chunk._replace(pre=plan.join(us, a))
    carry = replace(carry, plan.recomputed, missing)
    found = backward_loop(plan, decisions, params, time, chunk, carry, d_carry, d_reset)
    d_params, d_xs = weight_gradients(plan, decisions, params, time, chunk, found)
    return found.d_carry, found.d_reset, d_params, d_xs


def _in_chunks(
    plan: Plan, decisions: Decisions, run, at: Residuals, whole: Chunk, d_last: Any
) -> tuple[Any, Any, Any, Any]:
    """The gradients of all chunks, the last one to be read first."""
    time, size, reverse = plan.run.time, plan.chunk, plan.run.reverse
    count, rest = divmod(time, size)
    begin = rest if reverse else 0  # of the whole chunks
    end = begin + count * size
    first = select(at.carry, plan.recomputed)
    starts, rest_starts = _missing_states(plan, at, first)

    d_reset = jax.tree.map(jnp.zeros_like, d_last)
    total = accumulators(at.params)
    more = None
    d_carry = d_last
    if rest:  # what is read last
        part = jax.tree.map(lambda x: x[:begin] if reverse else x[end:], whole)
        d_carry, d_reset, d_params, more = run(
            rest, part, at.carry, rest_starts, d_carry, d_reset
        )
        total = accumulate(total, d_params)

    def body(state, at_n):
        d_carry, d_reset, total = state
        part, missing = at_n
        d_carry, d_reset, d_params, d_xs = run(
            size, part, at.carry, missing, d_carry, d_reset
        )
        return (d_carry, d_reset, accumulate(total, d_params)), d_xs

    def cut(x):
        return x[begin:end].reshape(count, size, *x.shape[1:])

    (d_carry, d_reset, total), d_xs = lax.scan(
        body,
        (d_carry, d_reset, total),
        (jax.tree.map(cut, whole), starts),
        reverse=not reverse,
    )
    d_xs = jax.tree.map(lambda x: x.reshape(count * size, *x.shape[2:]), d_xs)
    if rest:
        parts = (more, d_xs) if reverse else (d_xs, more)
        d_xs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)
    return d_carry, d_reset, total, d_xs


def _missing_states(plan: Plan, at: Residuals, first: list) -> tuple[list, list | None]:
    """The leaves that are not saved, before the first step of each chunk.

    Returns:
      `(of the whole chunks [N, ...], of what is left or None)`.
    """
    time, size, reverse = plan.run.time, plan.chunk, plan.run.reverse
    count, rest = divmod(time, size)
    if not first:
        return [], [] if rest else None
    # The steps after which a chunk begins, in the order of time.
    begin = (rest or size) if reverse else size - 1
    ends = jax.tree.map(
        lambda x: x[begin::size][: count - 1 + (rest > 0)], (at.states, at.pre)
    )

    def after(at_t):
        states, pre = at_t
        carry = replace(at.carry, plan.saved, states)
        new, _ = gates(plan.run.cell, at.params, carry, *plan.part(pre))
        return select(new, plan.recomputed)

    # One after another: they are few, and a batch keeps its place on a mesh.
    found = lax.map(after, ends)

    def whole(stack, leaf):
        if reverse:
            return jnp.concatenate([stack[1:] if rest else stack, leaf[None]])
        return jnp.concatenate([leaf[None], stack[: count - 1]])

    edge = [stack[0 if reverse else -1] for stack in found] if rest else None
    return [whole(s, x) for s, x in zip(found, first, strict=True)], edge
