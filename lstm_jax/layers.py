"""Layers of cells in one call, as in `torch.nn.LSTM`: `recurrent_layers`."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.bidirectional import bidirectional as run_both_ways
from lstm_jax.cell import Cell
from lstm_jax.cells.combinators import output_shape
from lstm_jax.keys import fold_in, split_key, typed_key
from lstm_jax.randomness import step_dropout
from lstm_jax.unroll import Unrolled, UnrolledWithCarries, unroll
from lstm_jax.validation import is_count


class Layers(NamedTuple):
    """Pure functions that initialize and apply layers.

    Attributes:
      init: `(key, feature_shape, dtype) -> params`, a tuple with one entry per layer,
        bottom first: params of its cell, or a pair, forward and backward.
      apply: `(params, xs, carry=None, *, key=None, **options) -> Unrolled`; see
        `recurrent_layers`.
    """

    init: Callable[..., tuple]
    apply: Callable[..., Unrolled | UnrolledWithCarries]


def recurrent_layers(
    cells: Cell | Sequence[Cell],
    num_layers: int | None = None,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    merge: Literal["concat", "sum"] = "concat",
) -> Layers:
    """Layers of a cell, each run over the whole output of the one below.

    The equivalent of `torch.nn.LSTM`, for any cell:

    >>> import jax, jax.numpy as jnp
    >>> from lstm_jax import lstm, recurrent_layers
    >>> layers = recurrent_layers(lstm(8), num_layers=2, bidirectional=True)
    >>> params = layers.init(jax.random.key(0), (3,))
    >>> xs = jnp.ones((5, 4, 3))  # T=5, B=4, F=3
    >>> run = jax.jit(layers.apply)
    >>> ys, carry = run(params, xs, lengths=jnp.array([5, 2, 0, 1]))
    >>> ys.shape, carry[1][0].c.shape  # the top layer's c, forward direction
    ((5, 4, 16), (4, 8))

    `layers.apply` takes

    - params: from `layers.init`.
    - xs: inputs, `[T, *B, F]`, or more feature axes for cells that read images.
    - carry: initial states, a tuple like the one that is returned; None, for all layers
      or one, is the cell's own initial carry.
    - key: for dropout and for cells with randomness, one key or one per example, as in
      `unroll`; None means evaluation.
    - any other option of `unroll` except `length` and `reverse`, for every layer:
      `lengths`, `mask`, `resets`, `first_step`, `remat`, `dtype`, …

    and returns `Unrolled(ys, carry)`, or `UnrolledWithCarries`: outputs of the top
    layer, and the final carry of each layer, or the pair of both directions.

    Args:
      cells: one cell for all layers, or one per layer, bottom first.
      num_layers: L, >= 1; by default the number of cells.
      bidirectional: each layer runs forward and, with separate params, backward.
      dropout: dropout rate between layers, in [0, 1), drawn per step and shared by both
        directions; applied only with a key.
      merge: of two directions: "concat", 2D features, forward first; or "sum", D.

    Returns:
      `Layers(init, apply)`.

    Raises:
      ValueError: an argument is out of range.
    """
    cells = _one_a_layer(cells, num_layers)
    if not 0 <= dropout < 1:
        raise ValueError(
            f"recurrent_layers: dropout={dropout!r}, but it lies in [0, 1)"
        )
    if merge not in ("concat", "sum"):
        raise ValueError(f"recurrent_layers: merge={merge!r}; pass 'concat' or 'sum'")
    ways = 2 if bidirectional else 1
    joined = ways if merge == "concat" else 1

    def init(key: jax.Array, feature_shape: tuple[int, ...], dtype=jnp.float32):
        params = []
        for cell, own in zip(cells, jax.random.split(key, len(cells)), strict=True):
            keys = jax.random.split(own, ways)
            pair = tuple(cell.init(k, feature_shape, dtype) for k in keys)
            params.append(pair if bidirectional else pair[0])
            *space, width = output_shape(cell, pair[0], feature_shape, dtype)
            feature_shape = (*space, joined * width)
        return tuple(params)

    def apply(params, xs, carry=None, *, key=None, **options):
        _check(cells, params, carry, options)
        carries = (None,) * len(cells) if carry is None else carry
        first_step = options.get("first_step", 0)
        own, runs = None, []
        for layer, cell in enumerate(cells):
            if key is not None:
                drop_key, own = split_key(fold_in(typed_key(key), layer))
                if layer:
                    xs = step_dropout(xs, dropout, drop_key, first_step)
            at = params[layer], xs, carries[layer]
            if bidirectional:
                run = run_both_ways((cell, cell), *at, key=own, **options)
            else:
                run = unroll(cell, *at, key=own, **options)
            xs = run.ys
            if bidirectional and merge == "sum":
                forward, backward = jnp.split(xs, 2, axis=-1)
                xs = forward + backward
            runs.append(run)
        _, *rest = zip(*runs, strict=True)
        return type(runs[0])(xs, *rest)

    return Layers(init, apply)


def _one_a_layer(
    cells: Cell | Sequence[Cell], num_layers: int | None
) -> tuple[Cell, ...]:
    if isinstance(cells, Cell):
        number = 1 if num_layers is None else num_layers
        if not is_count(number):
            raise ValueError(
                f"recurrent_layers: num_layers={num_layers!r}, but it is an "
                "integer >= 1"
            )
        return (cells,) * number
    cells = tuple(cells)
    if not cells or num_layers not in (None, len(cells)):
        raise ValueError(
            f"recurrent_layers: {len(cells)} cells and num_layers={num_layers!r}; pass "
            "one cell per layer, or one cell for all layers"
        )
    return cells


def _check(cells, params, carry, options) -> None:
    for name, value in (("params", params), ("carry", carry)):
        if value is not None and len(value) != len(cells):
            raise ValueError(
                f"recurrent_layers: {name} has {len(value)} entries, but there are "
                f"{len(cells)} layers; it is a tuple of one entry a layer"
            )
    for name in ("length", "reverse"):
        if name in options:
            raise ValueError(
                f"recurrent_layers: {name} is not supported here; use unroll, layer by "
                "layer, for runs without input or from the last step"
            )
