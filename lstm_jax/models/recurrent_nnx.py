"""NNX modules that own the params of cells and layers; `unroll` runs them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cell import Cell
from lstm_jax.models.recurrent import run_batch_major
from lstm_jax.randomness import is_stochastic
from lstm_jax.unroll import Unrolled, UnrolledWithCarries, unroll


class NNXRecurrent(nnx.Module):
    """Unrolls a cell as an NNX module: `[B, T, F] -> Unrolled([B, T, D], carry)`.

    Args:
      cell: the cell.
      feature_shape: of one input, `(F,)` for vectors.
      reverse, engine, dtype, param_dtype: as in `Recurrent`.
      rngs: initializes the params from its stream `params`. A cell with randomness
        keeps a copy of the stream `dropout` and uses it in every call, unless the
        module is `deterministic`, as after `module.eval()`, or `key` is given.

    Calls accept the options of `unroll`, as in `Recurrent`.
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
        self.deterministic = False  # set by module.eval() and .train()
        try:
            draws = is_stochastic(cell, params, feature_shape, param_dtype)
        except TypeError:  # it requires consts, whose shapes are known at a call only
            draws = True
        if draws:
            self.stream = rngs.dropout.fork()

    @property
    def params(self) -> Any:
        """The params as a plain pytree, as from the cell's `init`."""
        leaves = [getattr(self, f"param_{name}")[...] for name in self.names]
        return jax.tree.unflatten(self.treedef, leaves)

    def __call__(self, xs: jax.Array, **options: Any) -> Unrolled | UnrolledWithCarries:
        draws = hasattr(self, "stream") and not self.deterministic
        if draws and options.get("key") is None:
            options["key"] = self.stream()
        own = dict(engine=self.engine, dtype=self.dtype, reverse=self.reverse)
        run = partial(unroll, self.cell)
        return run_batch_major(run, self.params, xs, **own | options)
