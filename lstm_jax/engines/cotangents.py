"""Cotangents of pytrees: leaves without gradients, and selected leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cell import at_least_float32


def pull_back(fun, *args):
    """`jax.vjp` with float32 zeros as gradients of leaves such as keys."""
    out, pull = jax.vjp(fun, *args)

    def pull_instantiated(gradients):
        gradients = jax.tree.map(or_float0, out, gradients)
        return jax.tree.map(instantiate_float0, args, pull(gradients))

    return out, pull_instantiated


def instantiate_float0(leaf, gradient):
    # On the leaf's mesh, as a loop over such gradients requires.
    none = gradient.dtype == jax.dtypes.float0
    return jnp.zeros_like(leaf, jnp.float32) if none else gradient


def or_float0(leaf, gradient):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return gradient
    return np.zeros(leaf.shape, jax.dtypes.float0)


def or_nothing(leaf, gradient):
    # The same on every platform for what has no gradient, as keys.
    return gradient if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.zeros(())


def select(tree: Any, flags: list[bool]) -> list:
    """The leaves where a flag is set."""
    return [
        leaf for leaf, flag in zip(jax.tree.leaves(tree), flags, strict=True) if flag
    ]


def replace(tree: Any, flags: list[bool], leaves: list) -> Any:
    """`tree` with the leaves where a flag is set replaced."""
    old, treedef = jax.tree.flatten(tree)
    new = iter(leaves)
    both = [next(new) if flag else x for x, flag in zip(old, flags, strict=True)]
    return jax.tree.unflatten(treedef, both)


def add_leaves(tree: Any, flags: list[bool], leaves: list) -> Any:
    """`tree` with values added to the leaves where a flag is set."""
    pairs = zip(select(tree, flags), leaves, strict=True)
    return replace(tree, flags, [x + y.astype(x.dtype) for x, y in pairs])


def add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def accumulators(tree: Any) -> Any:
    """Zeros to accumulate gradients, in at least float32, on the mesh of `tree`."""

    def zeros(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jnp.zeros_like(leaf, at_least_float32(leaf.dtype if floating else "f4"))

    return jax.tree.map(zeros, tree)


def accumulate(total: Any, more: Any) -> Any:
    """`total + more` in the dtypes of `total`."""
    return jax.tree.map(lambda t, m: t + m.astype(t.dtype), total, more)
