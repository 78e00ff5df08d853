"""A cell over time: `unroll`."""

import difflib
import functools
import logging
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, Keys, at_least_float32, project_step, split_key
from lstm_jax.engines.cudnn import cudnn
from lstm_jax.engines.pieces import in_pieces
from lstm_jax.engines.scan import scan
from lstm_jax.engines.steps import (
    Padding,
    Steps,
    split_shape,
    starting_steps,
    valid_steps,
)
from lstm_jax.engines.vjp import vjp
from lstm_jax.randomness import key_for, per_example

ENGINES = {"scan": scan, "vjp": vjp, "cudnn": cudnn}


class Unrolled(NamedTuple):
    """Outputs `ys [T, *B, ...]` and the final carry, `[*B, ...]`."""

    ys: jax.Array
    carry: Any


class EveryCarry(NamedTuple):
    """As `Unrolled`, and the carry after each step, `[T, *B, ...]`."""

    ys: jax.Array
    carry: Any
    carries: Any


def unroll(
    cell: Cell,
    params: Any,
    xs: jax.Array | None,
    carry: Any = None,
    *,
    length: int | None = None,
    lengths: jax.Array | None = None,
    mask: jax.Array | None = None,
    resets: jax.Array | None = None,
    reverse: bool = False,
    key: jax.Array | None = None,
    first_step: int | jax.Array = 0,
    engine: str = "auto",
    remat: int | str | None = None,
    truncate: int | None = None,
    unroll: int = 1,
    dtype: Any = None,
    carry_dtype: Any = None,
    return_carries: bool = False,
) -> "Unrolled | EveryCarry":
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

    Frame by frame, a carry given back equals the whole:

    >>> first = unroll(cell, params, jnp.ones((1, 2, 3)))
    >>> second = unroll(cell, params, jnp.ones((1, 2, 3)), first.carry)
    >>> bool(jnp.allclose(second.ys[0], ys[1]))
    True

    Args:
      cell: the cell; build it once and close over it, never pass it through jit.
      params: what `cell.init` made.
      xs: inputs, `[T, *B, F]`, or more feature axes for a cell that reads images;
        None for a cell that runs without, over `length` steps.
      carry: initial carry; by default the cell's own, zeros for most.
      length: T, where `xs` is None; the batch is then that of `carry`.
      lengths: int `[*B]`, valid steps of each sequence, 0 to T.
      mask: bool `[T, *B]`, True where a step is valid; any pattern. With `lengths`,
        a step must be valid by both.
      resets: bool `[T, *B]`, True where a step starts a new sequence, from the cell's
        own initial carry, not from `carry`; also where `mask` hides the step. In
        reverse, a sequence is read from its own last step to the one that starts it.
      reverse: from the last step to the first; outputs stay where their inputs are.
      key: for cells with randomness: one key, `()`, or one for each example, `[*B]`,
        from which an example draws the same in any batch, on any number of devices.
        None means evaluation.
      first_step: number of the first step of `xs` in its sequence. Pieces of a
        sequence, each with the carry of the one before, the same key, and the number
        of its own first step, then draw what the whole would, in reverse as well.
      engine: "auto", which is "vjp", and "scan" for a single step. "vjp": its backward
        pass sums each weight gradient once, after the loop, and keeps less memory; its
        loops take the form of the platform that they are lowered for. "scan": the
        definition, and the only one with forward-mode derivatives (`jax.jvp`,
        `jax.linearize`; a Hessian by `jax.jacfwd(jax.grad(f))` wants none). "cudnn":
        NVIDIA's kernel for the plain `lstm` in float32 on one GPU, with `lengths` but
        no mask, resets or vmap, in TF32 unless
        `jax.default_matmul_precision("float32")`.
      remat: what the backward pass makes anew to save memory: None, nothing; "step",
        all but the carry of each step; K, all but the carry of every K-th; "sqrt", K
        the root of T.
      truncate: steps that a gradient goes back, K: the carry is kept between pieces
        of K steps, its gradient is not (truncated backpropagation through time).
      unroll: steps in one iteration of the loop, as in `lax.scan`.
      dtype: to compute in, such as `jnp.bfloat16`; by default that of `params`.
      carry_dtype: of the state; by default float32, or wider where `dtype` is.
      return_carries: return the carry after each step, too.

    Returns:
      `Unrolled(ys, carry)`, or `EveryCarry(ys, carry, carries)`; `ys` has dtype
      `dtype`, a carry `carry_dtype`.

    Raises:
      ValueError: if shapes do not fit, or an option has no such value.
      NotImplementedError: if the engine asked for cannot do what is asked of it.
    """
    shapes = split_shape(cell, xs, length, lengths, mask, resets)
    time, batch_shape, feature_shape = shapes
    run = _engine(engine, time)
    valid = valid_steps(time, batch_shape, lengths, mask)
    starts = starting_steps(time, batch_shape, lengths, resets, reverse)
    if dtype is not None:
        params = _cast(params, dtype)
        xs = _cast(xs, dtype)
    compute = next(iter(_floating_dtypes(params)), getattr(xs, "dtype", None))
    carry_dtype = carry_dtype or at_least_float32(compute)

    keys = None
    key = key_for((cell,), (params,), xs, key)
    if key is not None:
        if key.ndim:
            if xs is None and not batch_shape:
                batch_shape = key.shape
            if key.shape != batch_shape:
                raise ValueError(
                    f"unroll: key has shape {key.shape}; pass one key, (), or one for "
                    f"each example, [*B] = {batch_shape}"
                )
            cell = per_example(cell, key.ndim)
        key, key_steps = split_key(key)
        keys = Keys.of(key_steps, time, first_step).stacked()
    if carry is None or starts is not None:
        fresh = cell.carry(params, batch_shape, feature_shape, carry_dtype, key=key)
        fresh = _cast(fresh, carry_dtype)
    carry = fresh if carry is None else _cast(carry, carry_dtype)
    fresh = carry if starts is None else fresh
    if jax.tree.structure(carry) != jax.tree.structure(fresh):
        raise ValueError(
            f"unroll: carry is a {jax.tree.structure(carry)}, but this cell's is a "
            f"{jax.tree.structure(fresh)}; make it with cell.carry(..., key=key) if "
            "there is a key"
        )
    if time and xs is not None:
        u = project_step(cell, params, xs[0])
        carry, fresh = (_like(c, u, len(batch_shape)) for c in (carry, fresh))

    def whole(params, steps, carry, time):
        return run(
            cell,
            params,
            steps,
            carry,
            fresh,
            time=time,
            reverse=reverse,
            unroll=unroll,
            remat=remat == "step",
            every_carry=return_carries,
            dtype=compute,
        )

    padding = Padding() if mask is None else None
    steps = Steps(xs, keys, valid, starts, padding)
    for size, what in _pieces(time, remat, truncate):
        whole = _pieced(whole, size=size, reverse=reverse, **what)
    ys, carry, carries = whole(params, steps, carry, time)
    return EveryCarry(ys, carry, carries) if return_carries else Unrolled(ys, carry)


def _engine(name: str, time: int):
    if name == "auto":
        return ENGINES[_chosen("scan" if time <= 1 else "vjp")]
    if name in ENGINES and not time:
        return scan
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unroll: engine={name!r} is unknown; there are "
            f"'auto', {', '.join(map(repr, ENGINES))}{hint}"
        )
    return ENGINES[name]


@functools.cache
def _chosen(name: str) -> str:
    """Says once what "auto" chose."""
    why = {"scan": "for a single step", "vjp": "for sequences"}[name]
    logging.getLogger("lstm_jax").info('engine="auto" is "%s" %s', name, why)
    return name


def _pieced(run, **options):
    def pieces(params, steps, carry, time):
        return in_pieces(run, params, steps, carry, time=time, **options)

    return pieces


def _pieces(time: int, remat, truncate) -> list[tuple[int, dict]]:
    """Sizes of the pieces to run in, innermost first, and what each is for."""
    for name, size in (("remat", remat), ("truncate", truncate)):
        words = (None, "step", "sqrt") if name == "remat" else (None,)
        if size not in words and not (isinstance(size, int) and size >= 1):
            raise ValueError(
                f"unroll: {name}={size!r}, but it is a number of steps >= 1 or one of "
                f"{', '.join(map(repr, words))}"
            )
    size = math.isqrt(max(time - 1, 0)) + 1 if remat == "sqrt" else remat
    pieces = [(size, dict(remat=True))] if isinstance(size, int) and time else []
    return pieces + ([(truncate, dict(cut=True))] if truncate and time else [])


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
        shape = zero.shape + (1,) * (leaf.ndim - batch_ndim)
        return leaf + zero.astype(leaf.dtype).reshape(shape)

    return jax.tree.map(placed, carry)
