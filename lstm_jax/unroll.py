"""Cells over time: `unroll`, and `bidirectional` for a sequence known whole."""

import difflib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.engines.scan import scan
from lstm_jax.engines.vjp import vjp

ENGINES = {"scan": scan, "vjp": vjp}


class Unrolled(NamedTuple):
    """Outputs `ys [T, *B, ...]` and the final carry, `[*B, ...]`."""

    ys: jax.Array
    carry: Any


def unroll(
    cell: Cell,
    params: Any,
    xs: jax.Array,
    carry: Any = None,
    *,
    lengths: jax.Array | None = None,
    mask: jax.Array | None = None,
    reverse: bool = False,
    key: jax.Array | None = None,
    engine: str = "auto",
    unroll: int = 1,
    dtype: Any = None,
    carry_dtype: Any = None,
) -> Unrolled:
    """Runs a cell over a sequence.

        carry_t, y_t = gates(carry_tm1, project(x_t), recur(carry_tm1))

    A step that is masked, or past its sequence's length, changes nothing: the carry
    passes through and the output is zero. In reverse, a shorter sequence is read
    from its own last step; padding stays at the end.

    >>> import jax, jax.numpy as jnp
    >>> from lstm_jax import lstm, unroll
    >>> cell = lstm(features=8)
    >>> params = cell.init(jax.random.key(0), (3,))
    >>> ys, carry = unroll(cell, params, jnp.ones((5, 2, 3)))  # T=5, B=2, F=3
    >>> ys.shape, carry.c.shape
    ((5, 2, 8), (2, 8))

    Args:
      cell: the cell; build it once and close over it, never pass it through jit.
      params: what `cell.init` made.
      xs: inputs, `[T, *B, F]`, or more feature axes for a cell that reads images.
      carry: initial carry; by default the cell's own, zeros for most.
      lengths: int `[*B]`, valid steps of each sequence, 0 to T.
      mask: bool `[T, *B]`, True where a step is valid; any pattern. With `lengths`,
        a step must be valid by both.
      reverse: from the last step to the first; outputs stay where their inputs are.
      key: for cells with randomness; None means evaluation.
      engine: "scan", the definition; "vjp", whose backward pass sums each weight
        gradient once, after the loop, which half precision needs on long sequences,
        but which knows no forward-mode derivatives; or "auto", today "scan".
      unroll: steps in one iteration of the loop, as in `lax.scan`.
      dtype: to compute in, such as `jnp.bfloat16`; by default that of `params`.
      carry_dtype: of the state; by default float32, or wider where `dtype` is.

    Returns:
      `Unrolled(ys, carry)`; `ys` has dtype `dtype`, the carry `carry_dtype`.

    Raises:
      ValueError: if shapes do not fit, or the engine is unknown.
    """
    run = _engine(engine)
    time, batch_shape, feature_shape = _split_shape(cell, xs)
    mask = _valid_steps(time, batch_shape, lengths, mask)
    if dtype is not None:
        params = _cast(params, dtype)
        xs = _cast(xs, dtype)
    compute = next(iter(_floating_dtypes(params)), xs.dtype)
    carry_dtype = carry_dtype or at_least_float32(compute)

    if carry is None:
        carry = cell.carry(params, batch_shape, feature_shape, carry_dtype)
    carry = _cast(carry, carry_dtype)
    if time:
        carry = _like(carry, cell.project(params, xs[0]), len(batch_shape))
    options = dict(key=key, reverse=reverse, unroll=unroll)
    ys, carry = run(cell, params, xs, carry, mask, **options)
    return Unrolled(ys.astype(compute), carry)


def bidirectional(
    cells: tuple[Cell, Cell],
    params: tuple[Any, Any],
    xs: jax.Array,
    carry: tuple[Any, Any] | None = None,
    *,
    key: jax.Array | None = None,
    **options: Any,
) -> Unrolled:
    """Runs one cell forward and another backward, and joins their outputs.

    Args:
      cells: the forward and the backward cell; the same one twice is fine.
      params: params of each.
      xs: inputs, `[T, *B, F]`.
      carry: initial carry of each, or None.
      key: for cells with randomness; None means evaluation.
      **options: `lengths`, `mask`, `engine`, `unroll`, `dtype`, `carry_dtype` of
        `unroll`.

    Returns:
      `Unrolled`: outputs `[T, *B, 2D]`, forward features first, both aligned with
      their inputs; and the pair of final carries.

    Reference: Schuster & Paliwal 1997.
    """
    if "reverse" in options:
        raise ValueError(
            "bidirectional: reverse is no option here, both directions are run; "
            "use unroll(..., reverse=True) for the backward one alone"
        )
    keys = (None, None) if key is None else jax.random.split(key)
    carries = (None, None) if carry is None else carry
    runs = [
        unroll(cell, p, xs, c, key=k, reverse=backward, **options)
        for backward, (cell, p, c, k) in enumerate(
            zip(cells, params, carries, keys, strict=True)
        )
    ]
    ys = jnp.concatenate([run.ys for run in runs], axis=-1)
    return Unrolled(ys, tuple(run.carry for run in runs))


def _engine(name: str):
    if name == "auto":
        return scan
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unroll: engine={name!r} is unknown; there are "
            f"'auto', {', '.join(map(repr, ENGINES))}{hint}"
        )
    return ENGINES[name]


def _split_shape(cell: Cell, xs: jax.Array) -> tuple[int, tuple, tuple]:
    """`(T, batch shape, feature shape)` of `xs`."""
    if xs.ndim < 1 + cell.feature_ndim:
        raise ValueError(
            f"unroll: xs has shape {xs.shape}, but this cell wants [T, *B, features] "
            f"with {cell.feature_ndim} feature axes"
        )
    first_feature = xs.ndim - cell.feature_ndim
    return xs.shape[0], xs.shape[1:first_feature], xs.shape[first_feature:]


def _valid_steps(time: int, batch_shape: tuple, lengths, mask) -> jax.Array | None:
    """One bool mask `[T, *B]` of `lengths` and `mask`; None if neither is given."""
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.shape != (time, *batch_shape):
            raise ValueError(
                f"unroll: mask has shape {mask.shape}, but xs wants one of "
                f"[T, *B] = {(time, *batch_shape)}"
            )
        mask = mask.astype(bool)
    if lengths is None:
        return mask
    lengths = jnp.asarray(lengths)
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
    steps = jnp.arange(time, dtype=lengths.dtype)
    valid = steps.reshape((time,) + (1,) * len(batch_shape)) < lengths
    return valid if mask is None else valid & mask


def _floating_dtypes(tree: Any) -> list:
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(tree)]
    return [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]


def _cast(tree: Any, dtype: Any) -> Any:
    """Casts floating leaves, and leaves others (keys, counters) alone."""

    def cast(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)


def _like(carry: Any, u: Any, batch_ndim: int) -> Any:
    """Adds a zero made of a projected input, to place the carry as the inputs are.

    Under `shard_map` and on meshes with explicit axes a loop's carry must vary over
    the same mesh axes from its first step on; plain zeros vary over none.
    """
    u = jax.tree.leaves(u)[0]  # [*B, ...]
    zero = jnp.zeros_like(u[(..., *(0,) * (u.ndim - batch_ndim))])  # [*B]

    def placed(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        shape = zero.shape + (1,) * (leaf.ndim - batch_ndim)
        return leaf + zero.astype(leaf.dtype).reshape(shape)

    return jax.tree.map(placed, carry)
