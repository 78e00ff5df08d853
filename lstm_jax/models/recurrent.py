"""A cell as a Flax layer: Linen and NNX own the params, `unroll` does the work."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cell import Cell
from lstm_jax.unroll import EveryCarry, Unrolled, unroll


def _unroll_batch_major(cell, params, xs, **options) -> Unrolled | EveryCarry:
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
    `resets [B, T]`, `key`, `remat`, …
    """

    cell: Cell
    reverse: bool = False
    engine: str = "auto"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, xs: jax.Array, **options: Any) -> Unrolled:
        params = self.param("cell", self.cell.init, xs.shape[2:], self.param_dtype)
        return _unroll_batch_major(
            self.cell,
            params,
            xs,
            reverse=self.reverse,
            engine=self.engine,
            dtype=self.dtype,
            **options,
        )


class NNXRecurrent(nnx.Module):
    """A cell over time, as an NNX module: `[B, T, F] -> Unrolled([B, T, D], carry)`.

    Args:
      cell: the cell.
      feature_shape: of one input, `(F,)` for vectors.
      reverse, engine, dtype, param_dtype: as in `Recurrent`.
      rngs: draws the params, from its stream `params`.
    """

    def __init__(
        self,
        cell: Cell,
        feature_shape: tuple[int, ...],
        *,
        reverse: bool = False,
        engine: str = "auto",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.cell, self.reverse, self.engine, self.dtype = cell, reverse, engine, dtype
        params = cell.init(rngs.params(), feature_shape, param_dtype)
        leaves, self.treedef = jax.tree_util.tree_flatten_with_path(params)
        self.names = tuple(
            jax.tree_util.keystr(path, simple=True, separator="_") for path, _ in leaves
        )
        for name, (_, leaf) in zip(self.names, leaves, strict=True):
            setattr(self, f"param_{name}", nnx.Param(leaf))

    @property
    def params(self) -> Any:
        """The params as the plain pytree that `cell.init` makes."""
        leaves = [getattr(self, f"param_{name}")[...] for name in self.names]
        return jax.tree.unflatten(self.treedef, leaves)

    def __call__(self, xs: jax.Array, **options: Any) -> Unrolled:
        return _unroll_batch_major(
            self.cell,
            self.params,
            xs,
            reverse=self.reverse,
            engine=self.engine,
            dtype=self.dtype,
            **options,
        )
