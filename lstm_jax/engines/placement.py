"""Where the arrays of a run live on a mesh: the same place from the first step on.

A loop's carry keeps its type, and with it the mesh axes that it varies over or is
sharded over. So they are settled before the loop, and no step waits for a collective
that one before the loop, or one after it for a gradient, could stand for.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec


class Placement(NamedTuple):
    """Where a run lives; made by `placement`.

    Attributes:
      varying: manual mesh axes, of `jax.shard_map`, that any of its arrays varies over.
      mesh: the mesh with Explicit axes that any of its arrays is sharded over, or None.
      batch: for each batch axis its entry in a `PartitionSpec`; None where only the
        state tells which axes are of the batch.
    """

    varying: frozenset
    mesh: Any
    batch: tuple

    def whole(self, tree: Any) -> Any:
        """`tree`, such as params, on every device that the run is on.

        Params sharded over a mesh axis are gathered here, once; their gradients are
        sharded again as they were.
        """
        return self._place(tree, lambda ndim: ())

    def varied(self, tree: Any) -> Any:
        """`tree`, such as loop constants, sharded as it is."""
        return self._place(tree, None)

    def steps(self, tree: Any) -> Any:
        """Leaves `[T, *B, ...]`, split along the batch."""
        return self._place(tree, lambda ndim: (None, *self.batch))

    def state(self, tree: Any) -> Any:
        """Leaves `[*B, ...]`, split along the batch."""
        return self._place(
            tree, None if self.batch is None else lambda ndim: self.batch
        )

    def _place(self, tree: Any, spec) -> Any:
        def place(x):
            if self.mesh is not None and spec is not None:
                wanted = PartitionSpec(*_padded(spec(x.ndim), x.ndim))
                if jax.typeof(x).sharding.spec != wanted:
                    x = _reshard(x, NamedSharding(self.mesh, wanted))
            missing = self.varying - _varying(x)
            return _vary(x, tuple(sorted(missing))) if missing else x

        return jax.tree.map(place, tree)


def placement(batch_ndim: int | None, steps: Any, state: Any, others: Any) -> Placement:
    """Where a run of these arrays lives.

    Args:
      batch_ndim: axes of the batch.
      steps: leaves `[T, *B, ...]`: inputs, masks.
      state: leaves `[*B, ...]`: a carry.
      others: all else that the run reads: params, keys.
    """
    steps, state, others = map(jax.tree.leaves, (steps, state, others))
    every = [*steps, *state, *others]
    varying = frozenset().union(*map(_varying, every))
    sharded = [x for x in every if any(jax.typeof(x).sharding.spec)]
    if not sharded:
        return Placement(varying, None, ())
    if batch_ndim is None:
        return Placement(varying, jax.typeof(sharded[0]).sharding.mesh, None)
    specs = [_spec(x)[1 : 1 + batch_ndim] for x in steps]
    specs += [_spec(x)[:batch_ndim] for x in state]
    by_axis = zip(*specs, strict=True) if specs else ()
    batch = tuple(next((s for s in axis if s is not None), None) for axis in by_axis)
    return Placement(varying, jax.typeof(sharded[0]).sharding.mesh, batch)


def _spec(x) -> tuple:
    return _padded(jax.typeof(x).sharding.spec, x.ndim)


def _padded(spec, ndim: int) -> tuple:
    return (*spec, *(None,) * (ndim - len(spec)))


def _varying(x) -> frozenset:
    """Manual mesh axes that `x` varies over."""
    aval = jax.typeof(x)
    if hasattr(aval, "vma"):  # until jax 0.9
        return frozenset(aval.vma)
    return frozenset(aval.manual_axis_type.varying)


def _vary(x, axes: tuple):
    if hasattr(lax, "pcast"):
        return lax.pcast(x, axes, to="varying")
    return lax.pvary(x, axes)  # until jax 0.8


_reshard = getattr(jax, "reshard", None) or jax.sharding.reshard
