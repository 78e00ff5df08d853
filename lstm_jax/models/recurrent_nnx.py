"""Cells and layers of them as NNX modules, which own params; `unroll` runs them."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cell import Cell
from lstm_jax.layers import recurrent_layers
from lstm_jax.models.recurrent import run_batch_major
from lstm_jax.randomness import depends_on_key
from lstm_jax.unroll import Unrolled, UnrolledWithCarries, unroll


class _OverTime(nnx.Module):
    """Params, and a stream of keys where there is something to draw.

    `self.run(params, xs, **options)` is what runs, time-major.
    """

    def _own(self, init, feature_shape, param_dtype, rngs: nnx.Rngs) -> None:
        params = init(rngs.params(), feature_shape, param_dtype)
        leaves, self.treedef = jax.tree_util.tree_flatten_with_path(params)
        self.names = tuple(
            jax.tree_util.keystr(path, simple=True, separator="_") for path, _ in leaves
        )
        for name, (_, leaf) in zip(self.names, leaves, strict=True):
            setattr(self, f"param_{name}", nnx.Param(leaf))
        self.deterministic = False  # module.eval() and .train() set it

        def run(key, params, xs):
            return tuple(self.run(params, xs, key=key))

        xs = jax.ShapeDtypeStruct((1, 1, *feature_shape), param_dtype)
        try:
            draws = depends_on_key(run, params, xs)
        except TypeError:  # it wants consts, whose shapes only a call tells
            draws = True
        if draws:
            self.stream = rngs.dropout.fork()

    @property
    def params(self) -> Any:
        """The params as the plain pytree that `init` makes."""
        leaves = [getattr(self, f"param_{name}")[...] for name in self.names]
        return jax.tree.unflatten(self.treedef, leaves)

    def __call__(self, xs: jax.Array, **options: Any) -> Unrolled | UnrolledWithCarries:
        draws = hasattr(self, "stream") and not self.deterministic
        if draws and options.get("key") is None:
            options["key"] = self.stream()
        options = dict(engine=self.engine, dtype=self.dtype) | options
        return run_batch_major(self.run, self.params, xs, **options)


class NNXRecurrent(_OverTime):
    """A cell over time, as an NNX module: `[B, T, F] -> Unrolled([B, T, D], carry)`.

    Args:
      cell: the cell.
      feature_shape: of one input, `(F,)` for vectors.
      reverse, engine, dtype, param_dtype: as in `Recurrent`.
      rngs: draws the params, from its stream `params`. A cell with randomness keeps a
        copy of its stream `dropout` and draws from it in every call, unless the module
        is `deterministic`, as after `module.eval()`, or `key` is given.

    Call with any option of `unroll`, as `Recurrent`.
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
        self._own(cell.init, feature_shape, param_dtype, rngs)

    @property
    def run(self):
        return partial(unroll, self.cell, reverse=self.reverse)


class NNXRecurrentLayers(_OverTime):
    """`recurrent_layers` as an NNX module: `[B, T, F] -> Unrolled([B, T, D], carry)`.

    Args:
      cells, num_layers, bidirectional, dropout, merge: as in `recurrent_layers`.
      feature_shape: of one input, `(F,)` for vectors.
      engine, dtype, param_dtype: as in `Recurrent`.
      rngs: as in `NNXRecurrent`.

    Call with any option of `unroll`, as `RecurrentLayers`.
    """

    def __init__(
        self,
        cells: Cell | Sequence[Cell],
        feature_shape: tuple[int, ...],
        num_layers: int | None = None,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        merge: Literal["concat", "sum"] = "concat",
        engine: str = "auto",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.layers = recurrent_layers(
            cells, num_layers, bidirectional=bidirectional, dropout=dropout, merge=merge
        )
        self.engine, self.dtype = engine, dtype
        self._own(self.layers.init, feature_shape, param_dtype, rngs)

    @property
    def run(self):
        return self.layers.apply
