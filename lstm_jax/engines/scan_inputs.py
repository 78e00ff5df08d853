"""The inputs of each step of an engine, made from the arguments of `unroll`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from lstm_jax.cell import Cell
from lstm_jax.keys import Keys
from lstm_jax.validation import check_count

MOST = 2**31 - 1  # of an int32


class Padding(NamedTuple):
    """Marks a mask that is False only at the end of each sequence.

    A pytree without leaves: static, even if the mask is traced, and valid for any chunk
    of the steps.
    """


class ScanInputs(NamedTuple):
    """Inputs of each step of an engine, `[T, ...]` or None each.

    Attributes:
      xs: inputs, `[T, *B, ...]`, zero where masked; None for a run without.
      keys: both fields `[T]`; None means evaluation.
      mask: bool `[T, *B]`; where False, the carry passes and the output is zero.
      is_first: bool `[T, *B]`; where True, the step reads the reset carry.
      padding: `Padding()` where lengths alone made the mask, or there is none.
    """

    xs: Any = None
    keys: Keys | None = None
    mask: jax.Array | None = None
    is_first: jax.Array | None = None
    padding: Padding | None = None


def split_shape(
    cell: Cell, xs, length, lengths, mask, resets
) -> tuple[int, tuple, tuple | None]:
    """`(T, batch shape, feature shape)`."""
    if (xs is None) == (length is None):
        raise ValueError(
            "unroll: xs is None and length is not given; pass xs=None, length=T"
            if xs is None
            else f"unroll: length={length} is for xs=None; xs [T, *B, F] tells T"
        )
    if xs is None:
        if not is_symbolic_dim(length):
            check_count("unroll", "length", length, "steps", least=0)
        steps = next((a.shape[1:] for a in (mask, resets) if a is not None), ())
        return length, steps if lengths is None else jnp.shape(lengths), None
    if xs.ndim < 1 + cell.feature_ndim:
        raise ValueError(
            f"unroll: xs has shape {xs.shape}, but this cell wants [T, *B, features] "
            f"with {cell.feature_ndim} feature axes"
        )
    first_feature = xs.ndim - cell.feature_ndim
    return xs.shape[0], xs.shape[1:first_feature], xs.shape[first_feature:]


def valid_steps(time: int, batch_shape: tuple, lengths, mask) -> jax.Array | None:
    """One bool mask `[T, *B]` of `lengths` and `mask`; None if neither is given."""
    if mask is not None:
        mask = _flags("mask", mask, time, batch_shape)
    if lengths is None:
        return mask
    within = _within(time, batch_shape, lengths)
    return within if mask is None else within & mask


def mask_inputs(xs: Any, valid: jax.Array | None) -> Any:
    """`xs`, leaves `[T, *B, ...]`, with zeros where `valid [T, *B]` is False.

    What padding holds, such as NaN, then reaches no output: a select after a step
    would hide it from values, but not from gradients, where it is a factor of zeros.
    """
    if valid is None:
        return xs

    def masked(x):
        at = valid.reshape(valid.shape + (1,) * (x.ndim - valid.ndim))
        return jnp.where(at, x, jnp.zeros((), x.dtype))

    return jax.tree.map(masked, xs)


def first_steps(
    time: int, batch_shape: tuple, lengths, resets, reverse: bool
) -> jax.Array | None:
    """Where the carry is fresh in the order of reading; bool `[T, *B]` or None."""
    if resets is None:
        return None
    starts = _flags("resets", resets, time, batch_shape)
    if lengths is not None:
        starts &= _within(time, batch_shape, lengths)
    if reverse:  # a sequence ends before the step that starts the next
        starts = jnp.concatenate([starts[1:], jnp.zeros_like(starts[:1])])
    return starts


def _flags(name: str, flags, time: int, batch_shape: tuple) -> jax.Array:
    flags = jnp.asarray(flags)
    if flags.shape != (time, *batch_shape):
        raise ValueError(
            f"unroll: {name} has shape {flags.shape}, but xs wants one of "
            f"[T, *B] = {(time, *batch_shape)}"
        )
    return flags.astype(bool)


def _within(time: int, batch_shape: tuple, lengths) -> jax.Array:
    """Bool `[T, *B]`: whether a step is within its sequence's length."""
    if not isinstance(lengths, jax.Array):
        lengths = np.asarray(lengths)
    if lengths.shape != batch_shape:
        raise ValueError(
            f"unroll: lengths has shape {lengths.shape}, but xs wants one of "
            f"[*B] = {batch_shape}"
        )
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"unroll: lengths has dtype {lengths.dtype}; pass integers, a count of "
            "valid steps for each sequence"
        )
    if jnp.iinfo(lengths.dtype).max > MOST:  # wider than int32: do not wrap
        lengths = lengths.clip(0, MOST)
    steps = jnp.arange(time, dtype=jnp.int32)
    steps = steps.reshape((time,) + (1,) * len(batch_shape))
    return steps < jnp.asarray(lengths.astype(np.int32))
