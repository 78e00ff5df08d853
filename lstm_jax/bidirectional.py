"""`bidirectional`: runs a cell over a sequence in both directions."""

from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.cells.combinators import vmapped
from lstm_jax.engines.scan_inputs import split_shape, valid_steps
from lstm_jax.keys import split_key
from lstm_jax.randomness import key_for
from lstm_jax.unroll import Unrolled, UnrolledWithCarries, unroll


def bidirectional(
    cells: tuple[Cell, Cell],
    params: tuple[Any, Any],
    xs: jax.Array | None,
    carry: tuple[Any, Any] | None = None,
    *,
    key: jax.Array | None = None,
    **options: Any,
) -> Unrolled | UnrolledWithCarries:
    """Runs one cell forward and another backward, and concatenates their outputs.

    If both are the same cell, they run in one loop where that is faster: on GPU and
    TPU, for sequences without resets and cells without randomness.

    Args:
      cells: the forward and the backward cell; may be the same.
      params: params of each.
      xs: inputs, `[T, *B, F]`; None to run without inputs over `length` steps.
      carry: initial carry of each, or None.
      key: for cells with randomness, one key or one per example, as in `unroll`; None:
        evaluation.
      **options: of `unroll`, except `reverse`.

    Returns:
      `Unrolled`: outputs `[T, *B, 2D]`, forward features first, aligned with the
      inputs; and the pair of final carries.

    Reference: Schuster & Paliwal 1997.
    """
    if "reverse" in options:
        raise ValueError(
            "bidirectional: reverse is not supported, both directions are run; "
            "use unroll(..., reverse=True) for the backward direction alone"
        )
    traced = xs if options.get("consts") is None else None  # as in `unroll`
    key = key_for(cells, params, traced, key)
    keys = (None, None) if key is None else split_key(key)
    if key is None and _beside(cells, params, xs, options):
        return _in_one_loop(cells[0], params, xs, carry, **options)
    carries = (None, None) if carry is None else carry
    runs = [
        unroll(cell, p, xs, c, key=k, reverse=backward, **options)
        for backward, (cell, p, c, k) in enumerate(
            zip(cells, params, carries, keys, strict=True)
        )
    ]
    ys, *rest = zip(*runs, strict=True)
    return type(runs[0])(jnp.concatenate(ys, axis=-1), *rest)


def _beside(cells, params, xs, options: dict[str, Any]) -> bool:
    """Whether both directions run in one loop: half the steps, twice the work each.

    On CPU that is not faster.
    """
    forward, backward = (jax.tree.map(jax.typeof, p) for p in params)
    return (
        jax.default_backend() != "cpu"
        and cells[0] == cells[1]
        and forward == backward
        and options.get("engine", "auto") in ("auto", "vjp")
        and options.get("resets") is None
        and options.get("consts") is None
        and xs is not None
        and isinstance(xs.shape[0], int)  # not a symbolic dimension of an export
        and xs.shape[0] > 1
    )


def _in_one_loop(
    cell: Cell,
    params: tuple[Any, Any],
    xs: jax.Array,
    carry: tuple[Any, Any] | None,
    *,
    lengths: jax.Array | None = None,
    mask: jax.Array | None = None,
    **options: Any,
) -> Unrolled | UnrolledWithCarries:
    def both(forward, backward, axis=0):
        return jax.tree.map(lambda a, b: jnp.stack([a, b], axis), forward, backward)

    def there_and_back(steps):  # [T, ...] to [T, 2, ...]
        return both(steps, jnp.flip(steps, 0), axis=1)

    def back(steps):  # the second of them, in the order of the inputs
        return jax.tree.map(lambda x: jnp.flip(x[:, 1], 0), steps)

    time, batch_shape, _ = split_shape(cell, xs, None, lengths, mask, None)
    mask = valid_steps(time, batch_shape, lengths, mask)
    out = unroll(
        vmapped(cell, len(batch_shape)),
        both(*params),
        there_and_back(xs),
        None if carry is None else both(*carry),
        mask=None if mask is None else there_and_back(mask),
        **options,
    )
    ys = jnp.concatenate([out.ys[:, 0], back(out.ys)], axis=-1)
    last = tuple(jax.tree.map(lambda c, at=at: c[at], out.carry) for at in range(2))
    if isinstance(out, Unrolled):
        return Unrolled(ys, last)
    forward = jax.tree.map(lambda c: c[:, 0], out.carries)
    return UnrolledWithCarries(ys, last, (forward, back(out.carries)))
