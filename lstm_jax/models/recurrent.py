"""A cell as a Linen layer: Linen owns the params, `unroll` does the work."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.unroll import EveryCarry, Unrolled, unroll


def unroll_batch_major(cell, params, xs, **options) -> Unrolled | EveryCarry:
    """`unroll` over `[B, T, F]`; `mask`, `resets` and all carries likewise."""

    def swapped(tree):
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)

    for name in ("mask", "resets"):
        options[name] = swapped(options.get(name))
    out = unroll(cell, params, swapped(xs), **options)
    if isinstance(out, EveryCarry):
        out = out._replace(carries=swapped(out.carries))
    return out._replace(ys=swapped(out.ys))


class Recurrent(nn.Module):
    """A cell over time, as a Linen module: `[B, T, F] -> Unrolled([B, T, D], carry)`.

    Attributes:
      cell: the cell.
      reverse: from the last step to the first, outputs aligned with inputs.
      engine: as in `unroll`.
      dtype: to compute in; None means that of the params.
      param_dtype: of the params at initialisation.

    Call with any other option of `unroll`: `carry`, `lengths [B]`, `mask [B, T]`,
    `resets [B, T]`, `remat`, … Cells with randomness draw from `key`, or from the
    stream of `rngs={"dropout": key}`; without either they are in evaluation.
    """

    cell: Cell
    reverse: bool = False
    engine: str = "auto"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, xs: jax.Array, **options: Any) -> Unrolled:
        params = self.param("cell", self.cell.init, xs.shape[2:], self.param_dtype)
        if options.get("key") is None and self.has_rng("dropout"):
            options["key"] = self.make_rng("dropout")
        return unroll_batch_major(
            self.cell,
            params,
            xs,
            reverse=self.reverse,
            engine=self.engine,
            dtype=self.dtype,
            **options,
        )
