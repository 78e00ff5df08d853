"""One backward pass for every cell, with the weight gradients out of the loop.

Differentiating `lax.scan` adds to every weight gradient in every step: T passes over
the weights, and T roundings in their dtype. The contract of a cell allows better.
Only the carry's gradient is sequential; in reverse it pulls back the gates, which are
recomputed from what the forward pass kept, and the linear recurrent half. What the
weights receive is a product over all T x B at once, after the loop.

Memory is what long sequences cost, so little is kept and little is added:

- where gates use only the sum u + a, the sum is kept, else both;
- a leaf of the carry that the backward step does not read (h of an LSTM, which enters
  only the linear half) is not kept: the step before returns it once more;
- the gradient of each pre-activation overwrites it, and such a leaf of the carry the
  gradient of the outputs: XLA updates a loop's carry in place.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.engines.forms import Form, by_platform
from lstm_jax.engines.gradients import (
    add,
    or_float0,
    or_nothing,
    pick,
    plus,
    pull_back,
    put,
    real,
)
from lstm_jax.engines.plan import Pre, make_plan
from lstm_jax.engines.reverse_only import reverse_only
from lstm_jax.engines.scan import gates, hoist, keep_masked, select, start
from lstm_jax.engines.steps import Steps


def vjp(
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
    """Runs `cell` over a sequence; arguments and results as in `scan`.

    With `remat` only carries are kept: the backward pass makes all pre-activations
    anew, by one product for all steps.

    Raises:
      TypeError: for forward-mode derivatives; use the engine "scan".
    """
    inputs = steps.xs
    steps, project = hoist(cell, params, steps, steps.keys is not None)
    plan = make_plan(cell, project, params, steps, carry, remat)
    loop = partial(lax.scan, length=time, unroll=unroll)
    in_step = steps.xs is inputs
    over_all = partial(_over_all_steps, cell, project, time, inputs, in_step)

    def forward(form: Form, params, xs, carry, fresh, rest, *, differentiated=True):
        steps = rest._replace(xs=xs)
        _, project_all = over_all(form)
        read, project_t, us, over = steps, project, None, False
        if form.together and in_step and xs is not None:
            us = form.pin(project_all(params, steps))
            project_t = lambda params, steps_t: steps_t.xs  # noqa: E731
            # What is added to it may take its place: one stack of pre-activations.
            over = plan.one_kernel and differentiated and not remat
            read = steps._replace(xs=None if over else us)
        project_t, recur = form.products(project_t), form.products(cell.recur)

        def body(state, steps_t):
            t, carry, us = state
            if over:
                steps_t = steps_t._replace(xs=_read(us, t))
            carry = start(steps_t.starts, fresh, carry)
            u_t, a_t = project_t(params, steps_t), recur(params, carry)
            new, y_t = gates(cell, params, carry, u_t, a_t)
            new, y_t = keep_masked(steps_t.mask, new, carry, y_t.astype(dtype))
            pre = None if remat else plan.join(u_t, a_t)
            if over:
                us, pre = _over(us, pre, partial(_write, at=t)), None
            kept = pick(carry, plan.kept), pre
            after = t - 1 if reverse else t + 1
            return (after, new, us), (y_t, new if every_carry else None, kept)

        begin = jnp.int32(time - 1 if reverse else 0), carry, us if over else None
        (_, last, us), (ys, carries, kept) = loop(body, begin, read, reverse=reverse)
        if over:
            kept = (
                kept[0],
                Pre(jax.tree.unflatten(plan.a_tree, jax.tree.leaves(us)), []),
            )
        kept = form.pin((ys, *kept))
        return (ys, last, carries), (params, steps, carry, fresh, kept)

    def backward(form: Form, residuals, gradients):
        params, steps, initial, fresh, (ys, kept, pre) = residuals
        d_ys, d_last, d_carries = gradients
        d_ys = form.pin(d_ys)
        not_kept = [not kept for kept in plan.kept]
        recur_all, project_all = over_all(form)
        stepwise = form.stepwise and cell.feature_ndim > 1
        read_step = _read_alone if form.alone else _read
        # Gates that reduce, or read two stacks, do so in several kernels. XLA would
        # then copy whole stacks in every step, to keep them from being overwritten,
        # unless steps are read from them alone.
        in_place = form.alone or plan.one_kernel
        # Read by gate, they need not be converted as a whole first, in a kernel more.
        apart = None if form.alone else plan.apart
        if remat:
            carries = put(initial, plan.kept, kept)
            pre = plan.join(project_all(params, steps), recur_all(params, carries))

        # The carry before a step, where it was not kept, is what the step before
        # returns.
        missing = pick(initial, not_kept)
        first, last, step = (time - 1, 0, 1) if reverse else (0, time - 1, -1)
        # In place, that is written one step ahead of where gradients of outputs are
        # read, and read from what was written: XLA would copy whole stacks otherwise.
        shown = not form.alone and plan.shown
        ahead = in_place and len(missing) == 1 and _alike(d_ys, missing[0])
        ahead = ahead and not shown

        def body(state, at_t):
            t, d_carry, d_fresh, d_small, stacks = state
            steps_t, kept_t, pre_t, d_y, d_more = at_t
            carry = put(initial, plan.kept, kept_t)
            d_carry = d_carry if d_more is None else add(d_carry, d_more)

            def run_gates(small, carry, pre):
                own = put(params, plan.small, small)
                if apart:
                    (dtype,) = plan.a_dtypes
                    return apart.run(own, carry, [piece.astype(dtype) for piece in pre])
                return gates(cell, own, carry, *plan.part(pre))

            if apart:
                (stack,) = jax.tree.leaves(stacks.pre)
                pre_t = _read_pieces(stack, t, apart.sizes)
            elif in_place:
                pre_t = read_step(stacks.pre, t)
            small = pick(params, plan.small)
            (new, y_t), pull = pull_back(run_gates, small, carry, pre_t)
            found_t = [] if shown else pick(new, not_kept)
            if ahead:
                after = jnp.clip(t - step, 0, time - 1)
                kept_y = jnp.where(t == last, read_step(stacks.y, t), found_t[0])
                stacks = stacks._replace(y=_write(stacks.y, kept_y, after))
                d_y, found_t = read_step(stacks.y, t), []
            zeros = jax.tree.map(jnp.zeros_like, d_carry)
            d_new, d_y = keep_masked(steps_t.mask, d_carry, zeros, d_y)
            d_small_t, d_direct, d_pre = pull((d_new, d_y.astype(y_t.dtype)))
            if apart:
                whole = jnp.concatenate(d_pre, axis=-1)
                d_pre = Pre(jax.tree.unflatten(plan.a_tree, [whole]), [])
            _, pull = pull_back(partial(cell.recur, params), carry)
            d_before = add(d_direct, form.products(pull)(plan.wide(d_pre))[0])
            if steps_t.mask is not None:
                d_before = add(d_before, select(steps_t.mask, zeros, d_carry))
            if steps_t.starts is not None:
                d_fresh = add(d_fresh, select(steps_t.starts, d_before, zeros))
                d_before = select(steps_t.starts, zeros, d_before)

            d_small = jax.tree.map(
                lambda d, x: d + x.astype(d.dtype), d_small, d_small_t
            )
            if in_place:
                pre = jax.tree.map(partial(_write, at=t), stacks.pre, d_pre)
                stacks, d_pre = stacks._replace(pre=pre), None
            d_out = (d_new, d_y.astype(y_t.dtype)) if any(plan.large) else None
            state = t + step, d_before, d_fresh, d_small, stacks
            return state, (d_pre, found_t, d_out)

        d_small = [
            jnp.zeros(leaf.shape, at_least_float32(leaf.dtype))
            for leaf in pick(params, plan.small)
        ]
        d_fresh = jax.tree.map(jnp.zeros_like, d_last)
        stacks = _Stacks(pre if in_place else None, d_ys if ahead else None)
        read = None if in_place else pre, None if ahead else d_ys
        state, (d_pre, found, d_out) = loop(
            body,
            (jnp.int32(last), d_last, d_fresh, d_small, stacks),
            (steps, kept, *read, d_carries),
            reverse=not reverse,
        )
        _, d_carry, d_fresh, d_small, stacks = state
        d_pre = form.pin(stacks.pre if in_place else d_pre)
        if shown:
            found = [_shift(ys.astype(missing[0].dtype), missing[0], reverse)]
        elif ahead:
            found = [_write(stacks.y, missing[0], first)]
        else:
            found = [_shift(s, x, reverse) for s, x in zip(found, missing, strict=True)]
        carries = put(put(initial, plan.kept, kept), not_kept, found)
        d_xs = plan.gradient_of_u(d_pre)
        if stepwise:

            def pull_step(total, at_t):
                steps_t, carry, gradients = at_t

                def halves(params, x):
                    u_t = project(params, steps_t._replace(xs=x))
                    return u_t, cell.recur(params, carry)

                d_t, d_x = pull_back(halves, params, steps_t.xs)[1](gradients)
                return jax.tree.map(lambda d, x: d + x.astype(d.dtype), total, d_t), d_x

            total = jax.tree.map(
                lambda p: jnp.zeros(p.shape, at_least_float32(p.dtype)), params
            )
            total, d_xs = lax.scan(
                pull_step, total, (steps, carries, (d_xs, plan.wide(d_pre)))
            )
            d_params = jax.tree.map(_as_narrow, params, total)
        else:
            _, pull = pull_back(lambda p: recur_all(p, carries), params)
            (d_params,) = form.products(pull)(plan.wide(d_pre))
        if in_step and not stepwise:
            _, pull = pull_back(
                lambda p, xs: project_all(p, steps._replace(xs=xs)), params, steps.xs
            )
            d_project, d_xs = form.products(pull)(d_xs)
            d_params = add(d_params, d_project)
        d_params = plus(d_params, plan.small, d_small)
        if any(plan.large):  # matrices within the gates: a product after the loop, too

            def gates_all(large):
                own = put(params, plan.large, large)
                run = jax.vmap(lambda c, pre: gates(cell, own, c, *plan.part(pre)))
                return run(carries, pre)

            (d_large,) = pull_back(gates_all, pick(params, plan.large))[1](d_out)
            d_params = plus(d_params, plan.large, d_large)
        found = d_params, d_xs, d_carry, d_fresh
        pairs = zip((params, steps.xs, initial, fresh), found, strict=True)
        return tuple(jax.tree.map(or_nothing, x, d) for x, d in pairs)

    @jax.custom_vjp
    def run(*args):
        alone = partial(forward, differentiated=False)
        return by_platform(lambda form, *args: alone(form, *args)[0], *args)

    def pull_all(residuals, gradients):
        params, steps, initial, fresh, _ = residuals
        found = by_platform(backward, residuals, jax.tree.map(real, gradients))
        pairs = zip((params, steps.xs, initial, fresh), found, strict=True)
        return *(jax.tree.map(or_float0, x, d) for x, d in pairs), None

    run.defvjp(partial(by_platform, forward), pull_all)
    at = reverse_only("vjp", (params, steps.xs, carry, fresh))
    ys, carry, carries = run(*at, steps._replace(xs=None))
    return ys, carry, carries


def _over(us: Any, pre: Pre, write: Callable) -> Any:
    """`us`, with one step of `pre` written over its only leaf."""
    return jax.tree.map(
        write, us, jax.tree.unflatten(jax.tree.structure(us), jax.tree.leaves(pre))
    )


def _as_narrow(p: jax.Array, d: jax.Array) -> jax.Array:
    """A gradient in the dtype of its param, if that can have one."""
    return d.astype(p.dtype) if jnp.issubdtype(p.dtype, jnp.inexact) else d


class _Stacks(NamedTuple):
    """What the backward loop updates in place; None where it does not."""

    pre: Any
    y: jax.Array | None


def _over_all_steps(cell: Cell, project, time: int, inputs, in_step, form: Form):
    """`recur` and `project` over the stacks of all steps."""
    lead = 0 if inputs is None else inputs.ndim - cell.feature_ndim  # axes of T and B
    merge = form.merged and in_step and lead > 0 and not cell.copies
    merge = merge and not any(jax.typeof(inputs).sharding.spec)

    def merged(run, params, tree):
        shape = jax.tree.leaves(tree)[0].shape[:lead]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[lead:]), tree)
        out = run(params, flat)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), out)

    def recur_all(params, carries):
        if merge:
            return merged(cell.recur, params, carries)
        if lead == 0:
            return jax.vmap(partial(cell.recur, params))(carries)
        # The axis of time goes after the batch: on a mesh, a batch that a convolution
        # folds into one axis keeps its place only if it comes first.
        move = partial(jax.tree.map, lambda x: jnp.moveaxis(x, 0, lead - 1))
        back = partial(jax.tree.map, lambda x: jnp.moveaxis(x, lead - 1, 0))
        return back(cell.recur(params, move(carries)))

    def project_all(params, steps):
        if merge:
            return merged(cell.project, params, steps.xs)
        if lead == 0:
            return jax.vmap(partial(project, params), axis_size=time)(steps)
        return cell.project(params, steps.xs) if in_step else steps.xs

    return recur_all, project_all


def _read(stacks: Any, at: jax.Array) -> Any:
    return jax.tree.map(
        lambda stack: lax.dynamic_index_in_dim(stack, at, 0, keepdims=False), stacks
    )


def _read_pieces(stack: jax.Array, at: jax.Array, sizes: list[int]) -> list[jax.Array]:
    """One step of a stack, each piece of its last axis by a read of its own."""
    _, *batch, _ = stack.shape
    zeros = (jnp.zeros_like(at),) * len(batch)
    first = [sum(sizes[:n]) for n in range(len(sizes))]
    return [
        lax.dynamic_slice(
            stack, (at, *zeros, jnp.full_like(at, begin)), (1, *batch, size)
        )[0]
        for begin, size in zip(first, sizes, strict=True)
    ]


def _read_alone(stacks: Any, at: jax.Array) -> Any:
    """The same, in a branch of its own: XLA joins it to nothing that reads it."""
    return lax.cond(at >= 0, lambda: _read(stacks, at), lambda: _read(stacks, 0 * at))


def _alike(a, b) -> bool:
    """Whether a stack `a` holds leaves such as `b`."""
    return (a.shape[1:], a.dtype) == (b.shape, b.dtype)


def _shift(stack: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
    """What was before each step, from what was after it."""
    if reverse:
        return jnp.concatenate([stack[1:], first[None]])
    return jnp.concatenate([first[None], stack[:-1]])


def _write(stack: jax.Array, leaf: jax.Array, at: jax.Array) -> jax.Array:
    if not jnp.issubdtype(stack.dtype, jnp.inexact):
        return stack  # keys have no gradient to make room for
    return lax.dynamic_update_index_in_dim(stack, leaf, at, 0)
