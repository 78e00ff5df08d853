"""Gate activations of any cell: every sigmoid of a step, with its name."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from lstm_jax.cell import Cell, step
from lstm_jax.cells import GRUCarry, LSTMCarry

# Blocks of the projected input, by the type of the carry and their number.
_BLOCKS = {LSTMCarry: {4: "ifgo", 3: "igo"}, GRUCarry: {3: "rzn"}}


def with_sigmoids(function: Callable, *args: Any) -> tuple[Any, list[jax.Array]]:
    """`function(*args)`, and the output of each sigmoid in it, in order of evaluation.

    The function is traced; results of the primitive `logistic` become outputs of the
    program. Sigmoids inside a custom derivative rule of the function are not found.
    """
    with jax.disable_jit():  # so that jitted sigmoids are inlined
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    outs = closed.jaxpr.outvars
    found = [e.outvars[0] for e in closed.jaxpr.eqns if e.primitive is lax.logistic_p]
    more = ClosedJaxpr(closed.jaxpr.replace(outvars=[*outs, *found]), closed.consts)
    values = jaxpr_as_fun(more)(*jax.tree.leaves(args))
    out = jax.tree.unflatten(jax.tree.structure(shape), values[: len(outs)])
    return out, values[len(outs) :]


def gate_names(cell: Cell, feature_shape: tuple[int, ...]) -> list[str]:
    """A name for each sigmoid of a step, in the order of `with_sigmoids`.

    If the cell's carry contains one `LSTMCarry` or `GRUCarry`, a gate is named after
    the block of the projected input that it depends on: i, f, o; r, z. The block is
    found by perturbing one number of each. Gates of other cells are named gate_1,
    gate_2, …
    """
    return list(_names(cell, tuple(feature_shape)))


def in_order(names: Iterable[str]) -> list[str]:
    """Gate names in the order of the usual equations: i f o, r z, gate_1 gate_2 …"""
    return sorted(names, key=lambda name: ("ifgorzn".find(name), len(name), name))


@functools.lru_cache(maxsize=64)
def _names(cell: Cell, feature_shape: tuple[int, ...]) -> tuple[str, ...]:
    shapes = jax.eval_shape(
        lambda: cell.init(jax.random.key(0), feature_shape, jnp.float32)
    )
    # Moderate params: neither 0, which blocks signals, nor saturating.
    params = jax.tree.map(lambda s: np.full(s.shape, 0.1, s.dtype), shapes)

    def first(params):
        carry = cell.carry(params, (1,), feature_shape, jnp.float32)
        us = cell.project(params, jnp.zeros((1, 1, *feature_shape)))
        return carry, jax.tree.map(lambda u: u[0], us)

    def gates(params, carry, u):
        def one(carry, u):
            return step(cell, params, carry, u)

        return with_sigmoids(one, carry, u)[1]

    carry, u = jax.eval_shape(first, params)
    found = jax.eval_shape(gates, params, carry, u)
    plain = tuple(f"gate_{number}" for number, _ in enumerate(found, start=1))
    known = [c for c in _states(carry) if type(c) in _BLOCKS]
    widths = {gate.shape[-1] for gate in found}
    if len(known) != 1 or len(widths) != 1:
        return plain
    (width,) = widths
    sizes = {count * width: b for count, b in _BLOCKS[type(known[0])].items()}
    leaves, tree = jax.tree.flatten(u)
    at = [k for k, x in enumerate(leaves) if x.ndim and x.shape[-1] in sizes]
    if len(at) != 1:
        return plain
    blocks = sizes[leaves[at[0]].shape[-1]]

    @jax.jit
    def moved(params, block):  # change of each gate's first unit with the block's
        carry, u = first(params)
        nudges = [jnp.zeros_like(leaf) for leaf in jax.tree.leaves(u)]
        nudges[at[0]] = nudges[at[0]].at[..., block * width].set(1)
        nudge = jax.tree.unflatten(tree, nudges)
        changes = jax.jvp(lambda u: gates(params, carry, u), [u], [nudge])[1]
        return [jnp.abs(change[..., 0]).sum() for change in changes]

    with jax.ensure_compile_time_eval():  # called while a network is traced
        table = [moved(params, np.int32(block)) for block in range(len(blocks))]
    names = tuple(blocks[block] for block in np.asarray(table).argmax(0))
    return names if len(set(names)) == len(names) else plain


def _states(carry: Any) -> list:
    return jax.tree.leaves(carry, is_leaf=lambda c: type(c) in _BLOCKS)
