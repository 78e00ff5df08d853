"""Steps read from and written to stacks `[T, ...]`, and functions of whole stacks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.engines.plan import Plan
from lstm_jax.engines.platforms import LoopStrategy
from lstm_jax.engines.scan_inputs import ScanInputs


def read(stacks: Any, at: jax.Array) -> Any:
    """One step of each stack."""
    return jax.tree.map(
        lambda stack: lax.dynamic_index_in_dim(stack, at, 0, keepdims=False), stacks
    )


def read_isolated(stacks: Any, at: jax.Array) -> Any:
    """The same, in a branch of its own: XLA joins it to nothing that reads it."""
    return lax.cond(at >= 0, lambda: read(stacks, at), lambda: read(stacks, 0 * at))


def read_pieces(stack: jax.Array, at: jax.Array, sizes: list[int]) -> list[jax.Array]:
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


def write(stack: jax.Array, leaf: jax.Array, at: jax.Array) -> jax.Array:
    """`stack` with another step in the place of one."""
    if not jnp.issubdtype(stack.dtype, jnp.inexact):
        return stack  # keys have no gradient to make room for
    return lax.dynamic_update_index_in_dim(stack, leaf, at, 0)


def delay(stack: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
    """What was before each step, from what was after it."""
    if reverse:
        return jnp.concatenate([stack[1:], first[None]])
    return jnp.concatenate([first[None], stack[:-1]])


def project_all(
    plan: Plan, strategy: LoopStrategy, time: int, params, inputs: ScanInputs
) -> Any:
    """Projections of all steps of `inputs`, `time` of them."""
    run = plan.run
    if not run.projects:
        if inputs.xs is not None:
            return inputs.xs
        return jax.vmap(partial(run.project, params), axis_size=time)(inputs)
    if _flattens(plan, strategy, inputs.xs):
        return _flattened(run.cell.project, run.inputs_ndim, params, inputs.xs)
    return run.cell.project(params, inputs.xs)


def recur_all(plan: Plan, strategy: LoopStrategy, params, carries, xs) -> Any:
    """`recur` of the carries of all steps; `xs` tell where the batch is."""
    cell, ndim = plan.run.cell, plan.run.inputs_ndim
    if _flattens(plan, strategy, xs):
        return _flattened(cell.recur, ndim, params, carries)
    if ndim == 0:
        return jax.vmap(partial(cell.recur, params))(carries)
    if cell.feature_ndim == 1 and not cell.params_batch_ndim:
        return cell.recur(params, carries)
    # The axis of time goes after the batch: on a mesh, a batch that a convolution
    # folds into one axis keeps its place only if it comes first.
    move = partial(jax.tree.map, lambda x: jnp.moveaxis(x, 0, ndim - 1))
    back = partial(jax.tree.map, lambda x: jnp.moveaxis(x, ndim - 1, 0))
    return back(cell.recur(params, move(carries)))


def is_sharded(tree: Any) -> bool:
    """Whether any leaf is sharded over a mesh axis that its type tells."""
    return any(any(jax.typeof(x).sharding.spec) for x in jax.tree.leaves(tree))


def _flattens(plan: Plan, strategy: LoopStrategy, xs) -> bool:
    wanted = strategy.flatten_time_batch and plan.run.projects
    return wanted and not plan.run.cell.params_batch_ndim and not is_sharded(xs)


def _flattened(fun: Callable, ndim: int, params: Any, tree: Any) -> Any:
    """`fun(params, tree)`, with the first `ndim` axes of its leaves as one."""
    shape = jax.tree.leaves(tree)[0].shape[:ndim]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[ndim:]), tree)
    out = fun(params, flat)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), out)
