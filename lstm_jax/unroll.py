"""`unroll`: runs a cell over a sequence."""

import difflib
import functools
import logging
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, at_least_float32
from lstm_jax.engines.chunking import run_chunked
from lstm_jax.engines.consts import bind_consts
from lstm_jax.engines.cudnn import cudnn
from lstm_jax.engines.placement import placement
from lstm_jax.engines.scan import scan
from lstm_jax.engines.scan_inputs import (
    Padding,
    ScanInputs,
    first_steps,
    mask_inputs,
    split_shape,
    valid_steps,
)
from lstm_jax.engines.vjp import vjp
from lstm_jax.keys import Keys, check_first_step, split_key
from lstm_jax.randomness import check_key, key_for, per_example
from lstm_jax.validation import check_count, checked_carry, initial_carry, is_count

ENGINES = {"scan": scan, "vjp": vjp, "cudnn": cudnn}


class Unrolled(NamedTuple):
    """Outputs `ys [T, *B, ...]` and the final carry, `[*B, ...]`."""

    ys: jax.Array
    carry: Any


class UnrolledWithCarries(NamedTuple):
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
    consts: Any = None,
    engine: str = "auto",
    remat: int | str | None = None,
    tbptt_steps: int | None = None,
    unroll: int = 1,
    dtype: Any = None,
    carry_dtype: Any = None,
    return_carries: bool = False,
) -> "Unrolled | UnrolledWithCarries":
    """Runs a cell over a sequence.

        carry_t, y_t = gates(carry_tm1, project(x_t), recur(carry_tm1))

    A step that is masked, or beyond its sequence's length, has no effect: the carry is
    unchanged and the output is zero. Its input may be anything, including NaN: it is
    replaced by zeros. In reverse, a shorter sequence starts at its own last step;
    padding stays at the end.

    >>> import jax, jax.numpy as jnp
    >>> from lstm_jax import lstm, unroll
    >>> cell = lstm(features=8)
    >>> params = cell.init(jax.random.key(0), (3,))
    >>> ys, carry = unroll(cell, params, jnp.ones((5, 2, 3)))  # T=5, B=2, F=3
    >>> ys.shape, carry.c.shape
    ((5, 2, 8), (2, 8))

    Streaming frame by frame with the returned carry gives the same result:

    >>> first = unroll(cell, params, jnp.ones((1, 2, 3)))
    >>> second = unroll(cell, params, jnp.ones((1, 2, 3)), first.carry)
    >>> bool(jnp.allclose(second.ys[0], ys[1]))
    True

    Args:
      cell: the cell; build it once and close over it, do not pass it through jit.
      params: from `cell.init`.
      xs: inputs, `[T, *B, F]`, or more feature axes for a cell over images; None to run
        without inputs over `length` steps.
      carry: initial carry; None: the cell's own, usually zeros. Must have the structure
        and shapes of the cell's own, `[*B, ...]`, in any floating dtype.
      length: T, if `xs` is None; the batch shape is then that of `carry`.
      lengths: int `[*B]`, valid steps of each sequence, clipped to 0..T.
      mask: bool `[T, *B]`, True where a step is valid; any pattern. With `lengths`,
        a step must be valid by both.
      resets: bool `[T, *B]`, True where a step starts a new sequence, from the cell's
        own initial carry instead of `carry`, even if `mask` is False there. In reverse,
        a sequence is processed from its last step to the step that starts it.
      reverse: processes the last step first; outputs stay aligned with inputs.
      key: for cells with randomness: one key, `()`, or one per example, `[*B]`, so that
        an example's randomness depends neither on its batch nor on the number of
        devices. None: evaluation.
      first_step: index of the first step of `xs` in its sequence. Chunks of a sequence,
        each with the carry of the one before, the same key, and the index of its first
        step, have the randomness of the whole sequence, also in reverse.
      consts: a pytree that the gates get at every step, in addition to params: features
        to attend to, the feature map of an encoder, weights of a feedback.
        Differentiable, and stored once instead of once per step. For cells whose gates
        take `consts`; not with one key per example.
      engine: "auto" selects "vjp", or "scan" for a single step or a symbolic T (of
        `jax.export`), which only "scan" supports. "vjp": its backward pass computes
        each weight gradient once, after the loop, and saves memory; its loops are
        adapted to the platform. "scan": the reference, and the only engine with
        forward-mode derivatives (`jax.jvp`, `jax.linearize`; a Hessian by
        `jax.jacfwd(jax.grad(f))` does not need them). "cudnn": NVIDIA's kernel for the
        plain `lstm` in float32 on one GPU, with `lengths` but without mask, resets or
        vmap, in TF32 unless `jax.default_matmul_precision("float32")`.
      remat: what the backward pass recomputes to save memory: None, nothing; "step",
        all but the carry of each step; K, all but the carry of every K-th step; "sqrt",
        the same with K about the square root of T.
      tbptt_steps: K, truncated backpropagation through time: the carry is passed
        between chunks of K steps, its gradient is not.
      unroll: steps per iteration of the loop, as in `lax.scan`.
      dtype: of the computation, such as `jnp.bfloat16`; None: params are not cast, and
        `dtype` is `jnp.result_type` of the floating params.
      carry_dtype: of the state; None: float32, or wider if `dtype` is.
      return_carries: also return the carry after each step.

    Returns:
      `Unrolled(ys, carry)`, or with `return_carries`
      `UnrolledWithCarries(ys, carry, carries)`; `ys` has `dtype`, carries have
      `carry_dtype`.

    Raises:
      ValueError: shapes that do not fit, a `carry` unlike the cell's own, an output
        that is not one array, or an invalid option (a boolean is not a number of
        steps).
      NotImplementedError: the engine does not support what is requested.
      TypeError: for forward-mode derivatives of any engine but "scan".
    """
    shapes = split_shape(cell, xs, length, lengths, mask, resets)
    time, batch_shape, feature_shape = shapes
    check_count("unroll", "unroll", unroll, "steps in one iteration of the loop")
    check_first_step("unroll", first_step)
    chunks = _chunks(time, remat, tbptt_steps)
    run = _engine(engine, time)
    valid = valid_steps(time, batch_shape, lengths, mask)
    is_first = first_steps(time, batch_shape, lengths, resets, reverse)
    if dtype is not None:
        params = _cast(params, dtype)
        xs, consts = _cast((xs, consts), dtype)
    xs = mask_inputs(xs, valid)
    compute = _compute_dtype(params, xs)
    carry_dtype = carry_dtype or at_least_float32(compute)

    keys, of_examples = None, False
    # consts may have batch axes: a step without a batch cannot be traced.
    traced = xs if consts is None else None
    key = key_for((cell,), (params,), traced, key)
    if key is not None:
        if key.ndim:
            if xs is None and not batch_shape:
                batch_shape = key.shape
            check_key(key, batch_shape)
            if consts is not None:
                raise ValueError(
                    f"unroll: key has shape {key.shape}, but consts are of all "
                    "examples; pass one key, or vmap unroll over examples"
                )
            cell = per_example(cell, key.ndim)
        of_examples = key.ndim > 0
        key, key_steps = split_key(key)
        keys = Keys.of(key_steps, time, first_step).stacked()
    about_carry = feature_shape, carry_dtype, key
    told = xs is not None or valid is not None or is_first is not None
    batch = batch_shape if told else None  # else only the carry determines it
    if carry is not None:
        carry = checked_carry(cell, params, carry, batch, *about_carry)
    by_step = xs, valid, is_first, keys if of_examples else None
    known = told or carry is None or of_examples
    ndim = len(batch_shape) if known else None
    place = placement(ndim, by_step, carry, (params, consts, key, keys))
    if of_examples:
        key, keys = place.state(key), place.steps(keys)
        about_carry = feature_shape, carry_dtype, key
    params = place.whole(params)
    if consts is not None:
        cell, params = bind_consts(cell), (params, place.varied(consts))
    xs, valid, is_first = place.steps((xs, valid, is_first))
    if carry is None or is_first is not None:
        reset_carry = initial_carry(cell, params, batch_shape, *about_carry)
        reset_carry = _cast(reset_carry, carry_dtype)
    carry = reset_carry if carry is None else _cast(carry, carry_dtype)
    reset_carry = carry if is_first is None else reset_carry
    carry, reset_carry = place.state((carry, reset_carry))

    def whole(params, inputs, carry, time):
        return run(
            cell,
            params,
            inputs,
            carry,
            reset_carry,
            time=time,
            reverse=reverse,
            unroll=unroll,
            remat=remat == "step",
            every_carry=return_carries,
            dtype=compute,
        )

    padding = Padding() if mask is None else None
    inputs = ScanInputs(xs, keys, valid, is_first, padding)
    for size, what in chunks:
        whole = _chunked(whole, size=size, reverse=reverse, **what)
    ys, carry, carries = whole(params, inputs, carry, time)
    if return_carries:
        return UnrolledWithCarries(ys, carry, carries)
    return Unrolled(ys, carry)


def _engine(name: str, time: int):
    known = isinstance(time, int)  # not a dimension of a program to export
    if name == "auto":
        chosen = "vjp" if known and time > 1 else "scan"
        return ENGINES[_chosen(chosen, known)]
    if name in ENGINES and known and not time:
        return scan
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unroll: engine={name!r} is unknown; there are "
            f"'auto', {', '.join(map(repr, ENGINES))}{hint}"
        )
    if name != "scan" and not known:
        raise NotImplementedError(
            f"unroll: engine={name!r} needs a known T, which is {time} here; use "
            'engine="scan"'
        )
    return ENGINES[name]


@functools.cache
def _chosen(name: str, known: bool) -> str:
    """Logs once which engine "auto" selected."""
    why = {"scan": "for a single step", "vjp": "for sequences"}[name]
    why = why if known else "for a symbolic number of steps"
    logging.getLogger("lstm_jax").info('engine="auto" is "%s" %s', name, why)
    return name


def _chunked(run, **options):
    def chunks(params, inputs, carry, time):
        return run_chunked(run, params, inputs, carry, time=time, **options)

    return chunks


def _chunks(time: int, remat, tbptt_steps) -> list[tuple[int, dict]]:
    """Sizes of the chunks, innermost first, and the option that each implements."""
    for name, size in (("remat", remat), ("tbptt_steps", tbptt_steps)):
        words = (None, "step", "sqrt") if name == "remat" else (None,)
        named = size is None or isinstance(size, str) and size in words
        if not named and not is_count(size):
            raise ValueError(
                f"unroll: {name}={size!r}, but it is a number of steps >= 1 or one of "
                f"{', '.join(map(repr, words))}"
            )
    chunks = [] if remat in (None, "step") else [(remat, dict(remat=True))]
    chunks += [] if tbptt_steps is None else [(tbptt_steps, dict(stop_gradient=True))]
    if chunks and not isinstance(time, int):
        raise NotImplementedError(
            f"unroll: remat={remat!r}, tbptt_steps={tbptt_steps!r} cut a sequence into "
            f"chunks, which needs a known T; it is {time} here: pass remat=None or "
            '"step" and no tbptt_steps'
        )
    root = math.isqrt(max(time - 1, 0)) + 1 if remat == "sqrt" else None
    return [(root if n == "sqrt" else int(n), how) for n, how in chunks if time]


def _compute_dtype(params: Any, xs: Any) -> Any:
    """Common dtype of the floating params; else of the inputs, or float32."""
    for tree in (params, xs):
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(tree)]
        if floating := [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]:
            with jax.numpy_dtype_promotion("standard"):
                return jnp.result_type(*floating)
    return jnp.dtype("float32")


def _cast(tree: Any, dtype: Any) -> Any:
    """Casts floating leaves; others, such as keys and counters, stay as they are."""

    def cast(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)
