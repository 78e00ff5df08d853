"""Checks of the arguments of cells and of `unroll`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cell import Cell

KINDS = (
    jax.dtypes.prng_key,
    jnp.bool_,
    jnp.signedinteger,
    jnp.unsignedinteger,
    jnp.floating,
    jnp.complexfloating,
)


def is_count(value: Any, least: int = 1) -> bool:
    """Whether `value` is an integer >= `least`; a boolean is not."""
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return integer and value >= least


def check_count(caller: str, name: str, value: Any, what: str, least: int = 1) -> None:
    """Raises ValueError unless `value`, a number of `what`, is a count >= `least`."""
    if not is_count(value, least):
        raise ValueError(
            f"{caller}: {name}={value!r}, but it is a number of {what}: pass an "
            f"integer >= {least}"
        )


def initial_carry(
    cell: Cell, params: Any, batch_shape, feature_shape, dtype: Any, key: Any
) -> Any:
    """The cell's own carry; with `feature_shape=None` for a run without inputs.

    Raises:
      ValueError: the cell needs the shape of an input.
    """
    try:
        return cell.carry(params, batch_shape, feature_shape, dtype, key=key)
    except TypeError as error:
        if feature_shape is not None:
            raise
        raise ValueError(
            "unroll: xs is None, and without the shape of an input this cell makes no "
            "carry; pass carry=cell.carry(params, batch_shape, feature_shape), and no "
            "resets, which start from the cell's own"
        ) from error


def checked_carry(
    cell: Cell,
    params: Any,
    carry: Any,
    batch_shape: tuple[int, ...] | None,
    feature_shape: tuple[int, ...] | None,
    dtype: Any,
    key: Any,
) -> Any:
    """A given carry as arrays, checked to be like the cell's own.

    Args:
      cell, params: of the run.
      carry: the one given to `unroll`.
      batch_shape: `*B`; None if only the carry determines it.
      feature_shape: of the inputs; None for a run without inputs.
      dtype: of the cell's own carry; a given one may have any floating dtype.
      key: of the run. Without one, a carry made with a key is accepted, too.

    Raises:
      ValueError: structure, shapes or kinds of dtype differ. Nothing is broadcast.
    """
    carry = jax.tree.map(jnp.asarray, carry)

    def own(key):
        def make(params, key):
            shape = () if batch_shape is None else batch_shape
            return initial_carry(cell, params, shape, feature_shape, dtype, key)

        return jax.eval_shape(make, params, key)

    try:
        wanted = own(key)
    except ValueError:
        if feature_shape is not None:
            raise
        return carry  # the state has the shape of the inputs, which are missing
    if _alike(carry, wanted, batch_shape):
        return carry
    if key is None and _alike(carry, own(jax.random.key(0)), batch_shape):
        return carry
    shape = "batch_shape" if batch_shape is None else batch_shape
    own_key = ", key=key" * (key is not None)
    remedy = f"make it with cell.carry(params, {shape}, {feature_shape}{own_key})"
    if key is not None and key.ndim:  # keys per example, which a cell does not take
        remedy = "pass None, which draws it"
    raise ValueError(
        f"unroll: carry is {_described(carry)}, but this cell's is "
        f"{_described(wanted)}{' for each sequence' * (batch_shape is None)}; "
        f"{remedy}, or pass one that unroll returned"
    )


def _alike(carry: Any, wanted: Any, batch_shape: tuple[int, ...] | None) -> bool:
    """Whether shapes and kinds of dtype agree, apart from an unknown batch shape."""
    if jax.tree.structure(carry) != jax.tree.structure(wanted):
        return False
    batches = set()
    for got, want in zip(jax.tree.leaves(carry), jax.tree.leaves(wanted), strict=True):
        before = got.ndim - want.ndim
        if before < 0 or got.shape[before:] != want.shape:
            return False
        if _kind(got.dtype) != _kind(want.dtype):
            return False
        batches.add(got.shape[:before])
    return len(batches) <= 1 if batch_shape is None else batches <= {()}


def _kind(dtype: Any) -> Any:
    return next(kind for kind in KINDS if jnp.issubdtype(dtype, kind))


def _described(tree: Any) -> str:
    """Shapes and dtypes in the structure of `tree`."""

    def one(leaf):
        return f"{leaf.dtype}[{', '.join(map(str, leaf.shape))}]"

    return str(jax.tree.map(one, tree)).replace("'", "")
