"""Cells and layers of them as Linen modules, which own params; `unroll` runs them."""

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
    """`run(params, xs [T, B, F], **options)` over `[B, T, F]`.

    `mask`, `resets`, outputs and the carries of all steps are batch-major likewise.
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
    def __call__(self, xs: jax.Array, **options: Any) -> Unrolled | UnrolledWithCarries:
        params = self.param("cell", self.cell.init, xs.shape[2:], self.param_dtype)
        own = dict(engine=self.engine, dtype=self.dtype, reverse=self.reverse)
        options = own | options
        run = partial(unroll, self.cell)
        return run_batch_major(run, params, xs, **_with_key(self, options))


def _with_key(module: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
    """Options with a key of the stream "dropout" where there is no other."""
    if options.get("key") is None and module.has_rng("dropout"):
        options["key"] = module.make_rng("dropout")
    return options
