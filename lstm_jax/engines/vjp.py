"""One backward pass for every cell, with the weight gradients out of the loop.

Differentiating `lax.scan` adds to every weight gradient in every step: T passes over
the weights, and T roundings in their dtype. The contract of a cell allows better.
Only the carry's gradient is sequential; in reverse it pulls back the gates, which are
recomputed from what the forward pass kept, and the linear recurrent half. What the
weights receive is a product over all T x B at once, after the loop.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell
from lstm_jax.engines.scan import projects_together, select


def vjp(
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
    """Runs `cell` over a sequence; arguments and results as in `scan`.

    Kept for the backward pass: the carry before each step and the recurrent half `a`
    of its pre-activations.

    Raises:
      TypeError: from JAX, for forward-mode derivatives; use the engine "scan".
    """
    together = projects_together(key)
    inputs = cell.project(params, xs, key=key) if together else xs

    def project(params, input_t):
        return input_t if together else cell.project(params, input_t)

    def forward(params, inputs, carry, mask):
        def body(carry, inputs_t):
            input_t, m_t = inputs_t
            a_t = cell.recur(params, carry)
            u_t = project(params, input_t)
            new, y_t = _gates(cell, params, carry, u_t, a_t)
            y_t = select(m_t, y_t, jnp.zeros_like(y_t))
            return select(m_t, new, carry), (y_t, carry, a_t)

        last, (ys, carries, recurs) = lax.scan(
            body, carry, (inputs, mask), reverse=reverse, unroll=unroll
        )
        return (ys, last), (params, inputs, carries, recurs, mask)

    def backward(kept, gradients):
        params, inputs, carries, recurs, mask = kept
        d_ys, d_last = gradients
        own_params = _gates_read_params(cell, project, params, inputs, carries, recurs)
        # What the loop stacks; the same array twice, as d_u and d_a of a cell that
        # adds the two, is stacked once.
        stacked = _Distinct()

        def body(d_carry, inputs_t):
            input_t, carry, a_t, m_t, d_y = inputs_t
            u_t = project(params, input_t)
            zeros = jax.tree.map(jnp.zeros_like, d_carry)
            d_new, d_passed = select(m_t, d_carry, zeros), None
            if m_t is not None:
                d_passed = select(m_t, zeros, d_carry)
            d_y = select(m_t, d_y, jnp.zeros_like(d_y))
            _, pull_gates = jax.vjp(
                lambda carry, u, a: _gates(cell, params, carry, u, a), carry, u_t, a_t
            )
            d_direct, d_u, d_a = pull_gates((d_new, d_y))
            _, pull_recur = jax.vjp(lambda carry: cell.recur(params, carry), carry)
            d_carry = jax.tree.map(jnp.add, d_direct, pull_recur(d_a)[0])
            if d_passed is not None:
                d_carry = jax.tree.map(jnp.add, d_carry, d_passed)
            return d_carry, stacked.pack((d_u, d_a, (d_new, d_y) if own_params else ()))

        d_carry, leaves = lax.scan(
            body,
            d_last,
            (inputs, carries, recurs, mask, d_ys),
            reverse=not reverse,
            unroll=unroll,
        )
        d_us, d_as, d_gates = stacked.unpack(leaves)

        # On CPU, XLA contracts two axes at once at half the speed of a single one.
        # Elsewhere, merging would undo the placement of a batch on many devices.
        merged = 0 if together else inputs.ndim - cell.feature_ndim
        flat = partial(_merge_axes, merged)
        recur = jax.vmap(cell.recur, (None, 0)) if together else cell.recur
        pull = jax.vjp(lambda p: recur(p, flat(carries)), params)[1]
        d_params = pull(flat(d_as))[0]
        if own_params:
            us = project(params, inputs)

            def all_gates(params):
                gates = jax.vmap(lambda c, u, a: _gates(cell, params, c, u, a))
                return gates(carries, us, recurs)

            d_own = jax.vjp(all_gates, params)[1](d_gates)[0]
            d_params = jax.tree.map(jnp.add, d_params, d_own)
        if together:
            return d_params, d_us, d_carry, None
        pull = jax.vjp(lambda p, xs: cell.project(p, flat(xs)), params, inputs)[1]
        d_project, d_xs = pull(flat(d_us))
        return jax.tree.map(jnp.add, d_params, d_project), d_xs, d_carry, None

    @jax.custom_vjp
    def run(params, inputs, carry, mask):
        return forward(params, inputs, carry, mask)[0]

    run.defvjp(forward, backward)
    return run(params, inputs, carry, mask)


def _gates(cell: Cell, params: Any, carry: Any, u: Any, a: Any) -> tuple[Any, Any]:
    """`cell.gates`, with the new carry in the dtype of the old."""
    new, y = cell.gates(params, carry, u, a)
    return jax.tree.map(lambda n, c: n.astype(c.dtype), new, carry), y


def _merge_axes(count: int, tree: Any) -> Any:
    """Merges the first `count` axes of every leaf; none for 0."""
    if count == 0:
        return tree
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[count:]), tree)


def _gates_read_params(cell, project, params, inputs, carries, recurs) -> bool:
    """Whether the gates of one step use params of their own."""
    one_step = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
        (inputs, carries, recurs),
    )

    def gates(own, input_t, carry, a_t):
        return _gates(cell, own, carry, project(params, input_t), a_t)

    jaxpr = jax.make_jaxpr(gates)(params, *one_step).jaxpr
    read = {id(v) for eqn in jaxpr.eqns for v in eqn.invars}
    read |= {id(v) for v in jaxpr.outvars}
    own = jaxpr.invars[: len(jax.tree.leaves(params))]
    return any(id(v) in read for v in own)


class _Distinct:
    """Packs a tree as its distinct leaves, by identity, and unpacks it again."""

    def pack(self, tree: Any) -> list:
        leaves, self.treedef = jax.tree.flatten(tree)
        distinct = {id(leaf): leaf for leaf in leaves}
        order = {key: at for at, key in enumerate(distinct)}
        self.places = [order[id(leaf)] for leaf in leaves]
        return list(distinct.values())

    def unpack(self, leaves: list) -> Any:
        return jax.tree.unflatten(self.treedef, [leaves[at] for at in self.places])
