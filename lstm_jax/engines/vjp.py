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

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.engines.reading import elementwise, reads, sums
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
) -> tuple[Any, Any, Any]:
    """Runs `cell` over a sequence; arguments and results as in `scan`.

    With `remat` only carries are kept: the backward pass makes all pre-activations
    anew, by one product for all steps.

    Raises:
      TypeError: from JAX, for forward-mode derivatives; use the engine "scan".
    """
    inputs = steps.xs
    steps, project = hoist(cell, params, steps)
    plan = _plan(cell, project, params, steps, carry, remat)
    loop = partial(lax.scan, length=time, unroll=unroll)
    in_step = steps.xs is inputs
    lead = 0 if inputs is None else inputs.ndim - cell.feature_ndim  # axes of T and B
    # As one axis: on CPU, XLA contracts two at half the speed of one. Elsewhere that
    # would undo the placement of a batch on many devices.
    merge = in_step and lead > 0 and not any(jax.typeof(inputs).sharding.spec)
    # Images of one step fit into a CPU's cache, those of all steps do not.
    on_cpu = jax.default_backend() == "cpu"
    stepwise = cell.feature_ndim > 1 and on_cpu
    read_step = _read_alone if on_cpu else _read
    recur_all, project_all = _over_all_steps(cell, project, time, lead, in_step, merge)

    def forward(params, xs, carry, fresh, rest):
        steps = rest._replace(xs=xs)

        def body(carry, steps_t):
            carry = start(steps_t.starts, fresh, carry)
            u_t, a_t = project(params, steps_t), cell.recur(params, carry)
            new, y_t = gates(cell, params, carry, u_t, a_t)
            new, y_t = keep_masked(steps_t.mask, new, carry, y_t)
            pre = None if remat else plan.join(u_t, a_t)
            kept = _pick(carry, plan.kept), pre
            return new, (y_t, new if every_carry else None, kept)

        last, (ys, carries, kept) = loop(body, carry, steps, reverse=reverse)
        return (ys, last, carries), (params, steps, carry, fresh, kept)

    def backward(residuals, gradients):
        params, steps, initial, fresh, (kept, pre) = residuals
        d_ys, d_last, d_carries = jax.tree.map(_real, gradients)
        not_kept = [not kept for kept in plan.kept]
        if remat:
            carries = _put(initial, plan.kept, kept)
            pre = plan.join(project_all(params, steps), recur_all(params, carries))

        # The carry before a step, where it was not kept, is what the step before
        # returns.
        missing = _pick(initial, not_kept)
        first, last, step = (time - 1, 0, -1) if reverse else (0, time - 1, 1)
        # In place, that is written one step ahead of where gradients of outputs are
        # read, and read from what was written: XLA would copy whole stacks otherwise.
        ahead = plan.in_place and len(missing) == 1 and _alike(d_ys, missing[0])

        def body(state, at_t):
            d_carry, d_fresh, d_small, stacks = state
            t, steps_t, kept_t, pre_t, d_y, d_more = at_t
            carry = _put(initial, plan.kept, kept_t)
            d_carry = d_carry if d_more is None else _add(d_carry, d_more)

            def run_gates(small, carry, pre):
                own = _put(params, plan.small, small)
                return gates(cell, own, carry, *plan.part(pre))

            if plan.in_place:
                pre_t = read_step(stacks.pre, t)
            small = _pick(params, plan.small)
            (new, _), pull = _vjp(run_gates, small, carry, pre_t)
            found_t = _pick(new, not_kept)
            if ahead:
                after = jnp.clip(t + step, 0, time - 1)
                kept_y = jnp.where(t == last, read_step(stacks.y, t), found_t[0])
                stacks = stacks._replace(y=_write(stacks.y, kept_y, after))
                d_y, found_t = read_step(stacks.y, t), []
            zeros = jax.tree.map(jnp.zeros_like, d_carry)
            d_new, d_y = keep_masked(steps_t.mask, d_carry, zeros, d_y)
            d_small_t, d_direct, d_pre = pull((d_new, d_y))
            _, pull = _vjp(partial(cell.recur, params), carry)
            d_before = _add(d_direct, pull(d_pre.a)[0])
            if steps_t.mask is not None:
                d_before = _add(d_before, select(steps_t.mask, zeros, d_carry))
            if steps_t.starts is not None:
                d_fresh = _add(d_fresh, select(steps_t.starts, d_before, zeros))
                d_before = select(steps_t.starts, zeros, d_before)

            d_small = jax.tree.map(
                lambda d, x: d + x.astype(d.dtype), d_small, d_small_t
            )
            if plan.in_place:
                pre = jax.tree.map(partial(_write, at=t), stacks.pre, d_pre)
                stacks, d_pre = stacks._replace(pre=pre), None
            d_out = (d_new, d_y) if any(plan.large) else None
            return (d_before, d_fresh, d_small, stacks), (d_pre, found_t, d_out)

        d_small = [
            jnp.zeros(leaf.shape, at_least_float32(leaf.dtype))
            for leaf in _pick(params, plan.small)
        ]
        d_fresh = jax.tree.map(jnp.zeros_like, d_last)
        stacks = _Stacks(pre if plan.in_place else None, d_ys if ahead else None)
        read = None if plan.in_place else pre, None if ahead else d_ys
        state, (d_pre, found, d_out) = loop(
            body,
            (d_last, d_fresh, d_small, stacks),
            (jnp.arange(time), steps, kept, *read, d_carries),
            reverse=not reverse,
        )
        d_carry, d_fresh, d_small, stacks = state
        d_pre = stacks.pre if plan.in_place else d_pre
        if ahead:
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
            total, d_xs = lax.scan(pull_step, total, (steps, carries, (d_xs, d_pre.a)))
            d_params = jax.tree.map(lambda p, d: d.astype(p.dtype), params, total)
        else:
            (d_params,) = _vjp(lambda p: recur_all(p, carries), params)[1](d_pre.a)
        if in_step and not stepwise:
            _, pull = _vjp(
                lambda p, xs: project_all(p, steps._replace(xs=xs)), params, steps.xs
            )
            d_project, d_xs = pull(d_xs)
            d_params = _add(d_params, d_project)
        d_params = _plus(d_params, plan.small, d_small)
        if any(plan.large):  # matrices within the gates: a product after the loop, too

            def gates_all(large):
                own = _put(params, plan.large, large)
                run = jax.vmap(lambda c, pre: gates(cell, own, c, *plan.part(pre)))
                return run(carries, pre)

            (d_large,) = _vjp(gates_all, _pick(params, plan.large))[1](d_out)
            d_params = _plus(d_params, plan.large, d_large)
        primals = params, steps.xs, initial, fresh
        pairs = zip(primals, (d_params, d_xs, d_carry, d_fresh), strict=True)
        return *(jax.tree.map(_or_float0, x, d) for x, d in pairs), None

    @jax.custom_vjp
    def run(params, xs, carry, fresh, rest):
        return forward(params, xs, carry, fresh, rest)[0]

    run.defvjp(forward, backward)
    ys, carry, carries = run(params, steps.xs, carry, fresh, steps._replace(xs=None))
    return ys, carry, carries


class _Pre(NamedTuple):
    """Pre-activations: `a`, with what of `u` is only added to it; the rest of `u`."""

    a: Any
    rest: list


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
      in_place: whether gradients may overwrite what they are made of.
    """

    kept: list[bool]
    small: list[bool]
    large: list[bool]
    partners: list[int | None]
    dtypes: list[Any]
    tree: Any
    in_place: bool

    def join(self, u: Any, a: Any) -> _Pre:
        """The pre-activations of `u` and `a`."""
        rest, (leaves, tree) = [], jax.tree.flatten(a)
        for u_leaf, at in zip(jax.tree.leaves(u), self.partners, strict=True):
            if at is None:
                rest.append(u_leaf)
            else:
                leaves[at] = u_leaf.astype(leaves[at].dtype) + leaves[at]
        return _Pre(jax.tree.unflatten(tree, leaves), rest)

    def part(self, pre: _Pre) -> tuple[Any, Any]:
        """`(u, a)` of the same gates, with zeros in `u` for what was added."""
        return self._u(pre, jnp.zeros_like), pre.a

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
    vector = [leaf.ndim <= cell.feature_ndim for leaf in jax.tree.leaves(params)]
    small = [o and v for o, v in zip(own, vector, strict=True)]
    large = [o and not v for o, v in zip(own, vector, strict=True)]
    u_leaves, tree = jax.tree.flatten(u)
    dtypes = [leaf.dtype for leaf in u_leaves]
    # Gates that reduce, or read two stacks, do so in several kernels. XLA would then
    # copy whole stacks in every step, to keep them from being overwritten; on CPU it
    # does not if steps are read from them alone.
    one_stack = None not in partners and len(jax.tree.leaves(a)) == 1
    in_place = jax.default_backend() == "cpu" or (
        one_stack and elementwise(partial(gates, cell), params, carry, u, a)
    )
    return _Plan(kept, small, large, partners, dtypes, tree, in_place)


def _over_all_steps(cell: Cell, project, time: int, lead: int, in_step, merge):
    """`recur` and `project` over the stacks of all steps."""

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
