"""Cells made of cells. The carry of a combination is the tuple of carries."""

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, step


def stack(*cells: Cell) -> Cell:
    """Layers as one cell: each reads the output of the one below, in one step.

    For streaming, where a whole stack must advance frame by frame. Over a sequence
    known in advance, unrolling layer by layer gives the same numbers and lets each
    layer project all of its inputs at once.

    Args:
      *cells: bottom layer first, at least one.

    Returns:
      A `Cell` whose params and carry are tuples, one entry a layer, and whose
      output is that of the top layer.

    Raises:
      ValueError: if no cell is given, or their inputs differ in rank.
    """
    if not cells:
        raise ValueError("stack: no cells; pass at least one, bottom layer first")
    bottom, *upper = cells
    ranks = [cell.feature_ndim for cell in cells]
    if len(set(ranks)) > 1:
        raise ValueError(
            f"stack: cells read features of ranks {ranks}; all must be equal"
        )

    def _key(key: jax.Array | None, layer: int) -> jax.Array | None:
        return None if key is None else jax.random.fold_in(key, layer)

    def init(key, feature_shape, dtype=jnp.float32):
        params = []
        for cell, k in zip(cells, jax.random.split(key, len(cells)), strict=True):
            params.append(cell.init(k, feature_shape, dtype))
            feature_shape = _output_shape(cell, params[-1], feature_shape, dtype)
        return tuple(params)

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32):
        carries = []
        for cell, p in zip(cells, params, strict=True):
            carries.append(cell.carry(p, batch_shape, feature_shape, dtype))
            feature_shape = _output_shape(cell, p, feature_shape, dtype)
        return tuple(carries)

    def project(params, xs, *, key=None):
        return bottom.project(params[0], xs, key=_key(key, 0))

    def recur(params, carry):
        return tuple(
            c.recur(p, s) for c, p, s in zip(cells, params, carry, strict=True)
        )

    def gates(params, carry, u, a):
        new, y = bottom.gates(params[0], carry[0], u, a[0])
        carries = [new]
        for layer, cell in enumerate(upper, start=1):
            u = cell.project(params[layer], y)
            new, y = cell.gates(params[layer], carry[layer], u, a[layer])
            carries.append(new)
        return tuple(carries), y

    return Cell(init, carry, project, recur, gates, feature_ndim=ranks[0])


def _output_shape(cell: Cell, params, feature_shape, dtype) -> tuple[int, ...]:
    """Feature shape of one output, by tracing a step without a batch."""

    def one_step(params):
        x = jnp.zeros(feature_shape, dtype)
        state = cell.carry(params, (), feature_shape, dtype)
        return step(cell, params, state, cell.project(params, x))[1]

    return jax.eval_shape(one_step, params).shape
