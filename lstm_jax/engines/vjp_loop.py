"""The sequential part of the backward pass: the gradient of the carry, step by step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.engines.cotangents import (
    accumulate,
    accumulators,
    add,
    pull_back,
    replace,
    select,
)
from lstm_jax.engines.plan import Decisions, Plan, PreActivations
from lstm_jax.engines.scan import gates, keep_masked, where
from lstm_jax.engines.stacks import delay, read, read_isolated, read_pieces, write


class Found(NamedTuple):
    """Results of the loop, for the products after it.

    Attributes:
      d_carry: gradient of the carry before the first step.
      d_reset: gradient of the reset carry.
      d_vectors: gradients of the params that gates read as vectors, summed up.
      d_pre: gradients of pre-activations, `[K, ...]`.
      d_out: gradients of the gates' outputs, `[K, ...]`, or None.
      carries: before each step, `[K, ...]`.
    """

    d_carry: Any
    d_reset: Any
    d_vectors: list
    d_pre: PreActivations
    d_out: Any
    carries: Any


class _Stacks(NamedTuple):
    """What the loop updates in place; None where it does not."""

    pre: Any
    y: jax.Array | None


def backward_loop(
    plan: Plan,
    decisions: Decisions,
    params: Any,
    time: int,
    chunk: Any,
    carry: Any,
    d_last: Any,
    d_reset: Any,
) -> Found:
    """Pulls the gradient of the carry back through `time` steps of a chunk.

    Args:
      plan, decisions, params: of the run.
      time: steps of the chunk.
      chunk: a `Chunk`, with its pre-activations.
      carry: before its first step; only the leaves that are not saved are read.
      d_last: gradient of the carry after its last step.
      d_reset: gradient of the reset carry so far.
    """
    run, reverse = plan.run, plan.run.reverse
    missing = select(carry, plan.recomputed)
    first, last, step = (time - 1, 0, 1) if reverse else (0, time - 1, -1)
    read_step = read_isolated if decisions.strategy.isolate_reads else read
    reads_state = not decisions.output_is_state

    def states_ahead(stacks, t, found):
        """Writes what this step returns before where the next one reads, and reads."""
        after = jnp.clip(t - step, 0, time - 1)
        kept_y = jnp.where(t == last, read_step(stacks.y, t), found)
        stacks = stacks._replace(y=write(stacks.y, kept_y, after))
        return stacks, read_step(stacks.y, t)

    def body(state, at_t):
        t, d_carry, d_reset, d_vectors, stacks = state
        inputs_t, states_t, pre_t, d_y, d_more = at_t
        before = replace(carry, plan.saved, states_t)
        d_carry = d_carry if d_more is None else add(d_carry, d_more)
        pre_t = _read_pre(decisions, stacks, t, pre_t, read_step)
        vectors = select(params, plan.vector_params)
        run_gates = partial(_gates, plan, decisions, params)
        (new, y_t), pull = pull_back(run_gates, vectors, before, pre_t)
        found = select(new, plan.recomputed) if reads_state else []
        if decisions.state_in_outputs:
            stacks, d_y = states_ahead(stacks, t, found[0])
            found = []
        zeros = jax.tree.map(jnp.zeros_like, d_carry)
        d_new, d_y = keep_masked(inputs_t.mask, d_carry, zeros, d_y)
        d_out = d_new, d_y.astype(y_t.dtype)
        d_vectors_t, d_direct, d_pre = pull(d_out)
        if decisions.split_gates:
            whole = jnp.concatenate(d_pre, axis=-1)
            d_pre = PreActivations(jax.tree.unflatten(plan.a_tree, [whole]), [])
        _, pull = pull_back(partial(run.cell.recur, params), before)
        pull = decisions.strategy.rewrite_matmuls(pull)
        d_before = add(d_direct, pull(plan.a_of(d_pre))[0])
        if inputs_t.mask is not None:
            d_before = add(d_before, where(inputs_t.mask, zeros, d_carry))
        if inputs_t.is_first is not None:
            d_reset = add(d_reset, where(inputs_t.is_first, d_before, zeros))
            d_before = where(inputs_t.is_first, zeros, d_before)
        d_vectors = accumulate(d_vectors, d_vectors_t)
        if decisions.in_place:
            pre = jax.tree.map(partial(write, at=t), stacks.pre, d_pre)
            stacks, d_pre = stacks._replace(pre=pre), None
        d_out = d_out if any(plan.matrix_params) else None
        return (t + step, d_before, d_reset, d_vectors, stacks), (d_pre, found, d_out)

    stacks = _Stacks(
        chunk.pre if decisions.in_place else None,
        chunk.d_ys if decisions.state_in_outputs else None,
    )
    at = (
        chunk.inputs,
        chunk.states,
        None if decisions.in_place else chunk.pre,
        None if decisions.state_in_outputs else chunk.d_ys,
        chunk.d_carries,
    )
    d_vectors = accumulators(select(params, plan.vector_params))
    state, (d_pre, found, d_out) = lax.scan(
        body,
        (jnp.int32(last), d_last, d_reset, d_vectors, stacks),
        at,
        length=time,
        reverse=not reverse,
        unroll=run.unroll,
    )
    _, d_carry, d_reset, d_vectors, stacks = state
    if decisions.output_is_state:
        (leaf,) = missing
        found = [delay(chunk.ys.astype(leaf.dtype), leaf, reverse)]
    elif decisions.state_in_outputs:
        found = [write(stacks.y, missing[0], first)]
    else:
        found = [delay(s, x, reverse) for s, x in zip(found, missing, strict=True)]
    carries = replace(carry, plan.saved, chunk.states)
    carries = replace(carries, plan.recomputed, found)
    d_pre = stacks.pre if decisions.in_place else d_pre
    d_pre = decisions.strategy.constrain_layout(d_pre)
    return Found(d_carry, d_reset, d_vectors, d_pre, d_out, carries)


def _gates(plan: Plan, decisions: Decisions, params, vectors, carry, pre):
    """`(carry, y)` of one step, from its pre-activations or the pieces of them."""
    own = replace(params, plan.vector_params, vectors)
    if decisions.split_gates is None:
        return gates(plan.run.cell, own, carry, *plan.part(pre))
    (dtype,) = plan.a_dtypes
    return decisions.split_gates.run(own, carry, [p.astype(dtype) for p in pre])


def _read_pre(decisions: Decisions, stacks: _Stacks, t, pre_t, read_step):
    """The pre-activations of one step: from a stack, or as the loop has read them."""
    if decisions.split_gates is not None:
        (stack,) = jax.tree.leaves(stacks.pre)
        return read_pieces(stack, t, decisions.split_gates.sizes)
    return read_step(stacks.pre, t) if decisions.in_place else pre_t
