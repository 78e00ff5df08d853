"""Linen modules that own the params of cells and layers; `unroll` runs them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.unroll import Unrolled, UnrolledWithCarries, unroll


def run_batch_major(
    run: Callable[..., Unrolled | UnrolledWithCarries],
    params: Any,
    xs: jax.Array,
    **options,
) -> Unrolled | UnrolledWithCarries:
    """`run(params, xs [T, B, F], **options)` with batch-major `xs [B, T, F]`.

    `mask`, `resets`, outputs and per-step carries are batch-major, too.
    """

    def swapped(tree):
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)

    for name in ("mask", "resets"):
        options[name] = swapped(options.get(name))
    out = run(params, swapped(xs), **options)
    if isinstance(out, UnrolledWithCarries):
        out = out._replace(carries=swapped(out.carries))
    return out._replace(ys=swapped(out.ys))


class Recurrent(nn.Module):
    """Unrolls a cell as a Linen module: `[B, T, F] -> Unrolled([B, T, D], carry)`.

    Attributes:
      cell: the cell.
      reverse: runs from the last step to the first; outputs stay aligned with inputs.
      engine: as in `unroll`.
      dtype: of the computation; None: that of the params.
      param_dtype: of the params at initialization.

    Calls accept all other options of `unroll`: `carry`, `lengths [B]`, `mask [B, T]`,
    `resets [B, T]`, `remat`, … Cells with randomness use `key`, or the stream
    `rngs={"dropout": key}`; without either they run in evaluation mode.
    """

    cell: Cell
    reverse: bool = False
    engine: str = "auto"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, xs: jax.Array, **options: Any) -> Unrolled | UnrolledWithCarries:
        params = self.param("cell", self.cell.init, xs.shape[2:], self.param_dtype)
        own = dict(engine=self.engine, dtype=self.dtype, reverse=self.reverse)
        options = own | options
        run = partial(unroll, self.cell)
        return run_batch_major(run, params, xs, **_with_key(self, options))


def _with_key(module: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
    """Options with a key from the stream "dropout" unless one is given."""
    if options.get("key") is None and module.has_rng("dropout"):
        options["key"] = module.make_rng("dropout")
    return options
