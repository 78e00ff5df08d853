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
import numpy as np
from jax import lax

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.engines.forms import Form, by_platform
from lstm_jax.engines.reading import Apart, apart, elementwise, reads, shows, sums
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
      TypeError: from JAX, for forward-mode derivatives; use the engine "scan".
    """
    inputs = steps.xs
    steps, project = hoist(cell, params, steps, steps.keys is not None)
    plan = _plan(cell, project, params, steps, carry, remat)
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
            kept = _pick(carry, plan.kept), pre
            after = t - 1 if reverse else t + 1
            return (after, new, us), (y_t, new if every_carry else None, kept)

        begin = jnp.int32(time - 1 if reverse else 0), carry, us if over else None
        (_, last, us), (ys, carries, kept) = loop(body, begin, read, reverse=reverse)
        if over:
            kept = (
                kept[0],
                _Pre(jax.tree.unflatten(plan.a_tree, jax.tree.leaves(us)), []),
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
            carries = _put(initial, plan.kept, kept)
            pre = plan.join(project_all(params, steps), recur_all(params, carries))

        # The carry before a step, where it was not kept, is what the step before
        # returns.
        missing = _pick(initial, not_kept)
        first, last, step = (time - 1, 0, 1) if reverse else (0, time - 1, -1)
        # In place, that is written one step ahead of where gradients of outputs are
        # read, and read from what was written: XLA would copy whole stacks otherwise.
        shown = not form.alone and plan.shown
        ahead = in_place and len(missing) == 1 and _alike(d_ys, missing[0])
        ahead = ahead and not shown

        def body(state, at_t):
            t, d_carry, d_fresh, d_small, stacks = state
            steps_t, kept_t, pre_t, d_y, d_more = at_t
            carry = _put(initial, plan.kept, kept_t)
            d_carry = d_carry if d_more is None else _add(d_carry, d_more)

            def run_gates(small, carry, pre):
                own = _put(params, plan.small, small)
                if apart:
                    (dtype,) = plan.a_dtypes
                    return apart.run(own, carry, [piece.astype(dtype) for piece in pre])
                return gates(cell, own, carry, *plan.part(pre))

            if apart:
                (stack,) = jax.tree.leaves(stacks.pre)
                pre_t = _read_pieces(stack, t, apart.sizes)
            elif in_place:
                pre_t = read_step(stacks.pre, t)
            small = _pick(params, plan.small)
            (new, y_t), pull = _vjp(run_gates, small, carry, pre_t)
            found_t = [] if shown else _pick(new, not_kept)
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
                d_pre = _Pre(jax.tree.unflatten(plan.a_tree, [whole]), [])
            _, pull = _vjp(partial(cell.recur, params), carry)
            d_before = _add(d_direct, form.products(pull)(plan.wide(d_pre))[0])
            if steps_t.mask is not None:
                d_before = _add(d_before, select(steps_t.mask, zeros, d_carry))
            if steps_t.starts is not None:
                d_fresh = _add(d_fresh, select(steps_t.starts, d_before, zeros))
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
            for leaf in _pick(params, plan.small)
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
        carries = _put(_put(initial, plan.kept, kept), not_kept, found)
        d_xs = plan.gradient_of_u(d_pre)
        if stepwise:

            def pull_step(total, at_t):
                steps_t, carry, gradients = at_t

                def halves(params, x):
                    u_t = project(params, steps_t._replace(xs=x))
                    return u_t, cell.recur(params, carry)

                d_t, d_x = _vjp(halves, params, steps_t.xs)[1](gradients)
                return jax.tree.map(lambda d, x: d + x.astype(d.dtype), total, d_t), d_x

            total = jax.tree.map(
                lambda p: jnp.zeros(p.shape, at_least_float32(p.dtype)), params
            )
            total, d_xs = lax.scan(
                pull_step, total, (steps, carries, (d_xs, plan.wide(d_pre)))
            )
            d_params = jax.tree.map(lambda p, d: d.astype(p.dtype), params, total)
        else:
            _, pull = _vjp(lambda p: recur_all(p, carries), params)
            (d_params,) = form.products(pull)(plan.wide(d_pre))
        if in_step and not stepwise:
            _, pull = _vjp(
                lambda p, xs: project_all(p, steps._replace(xs=xs)), params, steps.xs
            )
            d_project, d_xs = form.products(pull)(d_xs)
            d_params = _add(d_params, d_project)
        d_params = _plus(d_params, plan.small, d_small)
        if any(plan.large):  # matrices within the gates: a product after the loop, too

            def gates_all(large):
                own = _put(params, plan.large, large)
                run = jax.vmap(lambda c, pre: gates(cell, own, c, *plan.part(pre)))
                return run(carries, pre)

            (d_large,) = _vjp(gates_all, _pick(params, plan.large))[1](d_out)
            d_params = _plus(d_params, plan.large, d_large)
        found = d_params, d_xs, d_carry, d_fresh
        pairs = zip((params, steps.xs, initial, fresh), found, strict=True)
        return tuple(jax.tree.map(_or_nothing, x, d) for x, d in pairs)

    @jax.custom_vjp
    def run(*args):
        alone = partial(forward, differentiated=False)
        return by_platform(lambda form, *args: alone(form, *args)[0], *args)

    def pull_back(residuals, gradients):
        params, steps, initial, fresh, _ = residuals
        found = by_platform(backward, residuals, jax.tree.map(_real, gradients))
        pairs = zip((params, steps.xs, initial, fresh), found, strict=True)
        return *(jax.tree.map(_or_float0, x, d) for x, d in pairs), None

    run.defvjp(partial(by_platform, forward), pull_back)
    ys, carry, carries = run(params, steps.xs, carry, fresh, steps._replace(xs=None))
    return ys, carry, carries


class _Pre(NamedTuple):
    """Pre-activations: `a`, with what of `u` is only added to it; the rest of `u`."""

    a: Any
    rest: list


def _over(us: Any, pre: _Pre, write: Callable) -> Any:
    """`us`, with one step of `pre` written over its only leaf."""
    return jax.tree.map(
        write, us, jax.tree.unflatten(jax.tree.structure(us), jax.tree.leaves(pre))
    )


class _Stacks(NamedTuple):
    """What the backward loop updates in place; None where it does not."""

    pre: Any
    y: jax.Array | None


class _Plan(NamedTuple):
    """What to keep of a step, found by looking at the cell's functions.

    Attributes:
      kept: for each leaf of the carry, whether it is kept.
      small: for each leaf of the params, whether the gates read it as a vector.
      large: the same for those that are matrices or kernels.
      partners: for each leaf of u, the leaf of a it is only ever added to, or None.
      dtypes, tree: of the leaves of u, and its structure.
      a_dtypes, a_tree: the same of a.
      one_kernel: whether gates are elementwise, and read one stack.
      apart: gates as a function of what they split that stack into, or None.
      shown: whether one leaf of the carry is not kept, and it is the output.
    """

    kept: list[bool]
    small: list[bool]
    large: list[bool]
    partners: list[int | None]
    dtypes: list[Any]
    tree: Any
    a_dtypes: list[Any]
    a_tree: Any
    one_kernel: bool
    apart: Apart | None
    shown: bool

    def join(self, u: Any, a: Any) -> _Pre:
        """The pre-activations of `u` and `a`."""
        rest, (leaves, tree) = [], jax.tree.flatten(a)
        for u_leaf, at in zip(jax.tree.leaves(u), self.partners, strict=True):
            if at is None:
                rest.append(u_leaf)
            else:
                z = u_leaf.astype(leaves[at].dtype) + leaves[at]
                leaves[at] = z.astype(u_leaf.dtype)
        return _Pre(jax.tree.unflatten(tree, leaves), rest)

    def part(self, pre: _Pre) -> tuple[Any, Any]:
        """`(u, a)` of the same gates, with zeros in `u` for what was added."""
        a = self.wide(pre)
        return self._u(pre._replace(a=a), jnp.zeros_like), a

    def wide(self, pre: _Pre) -> Any:
        """Pre-activations or their gradients in the dtypes of `a`."""
        leaves = zip(jax.tree.leaves(pre.a), self.a_dtypes, strict=True)
        return jax.tree.unflatten(self.a_tree, [x.astype(d) for x, d in leaves])

    def gradient_of_u(self, d_pre: _Pre) -> Any:
        """What reaches `u`: the gradient of a sum is that of its terms."""
        return self._u(d_pre, lambda d_a, dtype: d_a.astype(dtype))

    def _u(self, pre: _Pre, of_added) -> Any:
        leaves, rest = jax.tree.leaves(pre.a), iter(pre.rest)
        both = zip(self.partners, self.dtypes, strict=True)
        return jax.tree.unflatten(
            self.tree,
            [next(rest) if i is None else of_added(leaves[i], d) for i, d in both],
        )


def _plan(cell, project, params, steps, carry, remat) -> _Plan:
    # Of the first step, for shapes and jaxprs only: XLA drops what it computes.
    steps_t = jax.tree.map(lambda x: x[0], steps)
    u, a = project(params, steps_t), cell.recur(params, carry)
    partners = sums(lambda u, a: gates(cell, params, carry, u, a), u, a)

    def pulled(carry):
        (new, y), pull = _vjp(partial(gates, cell), params, carry, u, a)
        _, pull_recur = _vjp(partial(cell.recur, params), carry)
        return pull((new, y)), pull_recur(a)

    everything = remat or steps.mask is not None or steps.starts is not None
    kept = [
        everything or read or not jnp.issubdtype(leaf.dtype, jnp.inexact)
        for leaf, read in zip(jax.tree.leaves(carry), reads(pulled, carry), strict=True)
    ]
    own = reads(lambda params: gates(cell, params, carry, u, a), params)
    most = cell.feature_ndim + cell.copies
    vector = [leaf.ndim <= most for leaf in jax.tree.leaves(params)]
    small = [o and v for o, v in zip(own, vector, strict=True)]
    large = [o and not v for o, v in zip(own, vector, strict=True)]
    u_leaves, tree = jax.tree.flatten(u)
    dtypes = [leaf.dtype for leaf in u_leaves]
    a_leaves, a_tree = jax.tree.flatten(a)
    a_dtypes = [leaf.dtype for leaf in a_leaves]
    one_stack = partners == [0] and len(a_leaves) == 1
    one_kernel = one_stack and elementwise(partial(gates, cell), params, carry, u, a)
    pieces = apart(partial(gates, cell), params, carry, u, a) if one_kernel else None
    lacking = kept.count(False)
    shown = lacking == 1 and shows(partial(gates, cell), params, carry, u, a) == (
        kept.index(False)
    )
    u_facts, a_facts = (dtypes, tree), (a_dtypes, a_tree)
    return _Plan(
        kept, small, large, partners, *u_facts, *a_facts, one_kernel, pieces, shown
    )


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


def _vjp(fun, *args):
    """`jax.vjp`, where what has no gradient, as keys, has zeros of float32 for one."""
    out, pull = jax.vjp(fun, *args)

    def pull_real(gradients):
        gradients = jax.tree.map(_or_float0, out, gradients)
        return jax.tree.map(_real, pull(gradients))

    return out, pull_real


def _real(gradient):
    none = gradient.dtype == jax.dtypes.float0
    return jnp.zeros(gradient.shape) if none else gradient


def _or_float0(leaf, gradient):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return gradient
    return np.zeros(leaf.shape, jax.dtypes.float0)


def _or_nothing(leaf, gradient):
    # The same on every platform for what has no gradient, as keys.
    return gradient if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.zeros(())


def _pick(tree: Any, flags: list[bool]) -> list:
    """The leaves where a flag is set."""
    return [
        leaf for leaf, flag in zip(jax.tree.leaves(tree), flags, strict=True) if flag
    ]


def _put(tree: Any, flags: list[bool], leaves: list) -> Any:
    """`tree` with others in the place of the leaves where a flag is set."""
    old, treedef = jax.tree.flatten(tree)
    new = iter(leaves)
    both = [next(new) if flag else x for x, flag in zip(old, flags, strict=True)]
    return jax.tree.unflatten(treedef, both)


def _plus(tree: Any, flags: list[bool], leaves: list) -> Any:
    """`tree` with something added to the leaves where a flag is set."""
    pairs = zip(_pick(tree, flags), leaves, strict=True)
    return _put(tree, flags, [x + y.astype(x.dtype) for x, y in pairs])


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


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
