"""Many seeds of one training, in one program."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lstm_jax.training.step import (
    Batch,
    LossFn,
    Params,
    TrainState,
    TrainStep,
    Update,
)


def init_seeds(
    params: Sequence[Params], tx: optax.GradientTransformation, keys: jax.Array
) -> TrainState:
    """The states before the first step as one, leaves `[S, ...]`.

    Args:
      params: one tree a seed.
      tx: the optimizer.
      keys: `[S]`, one a seed.
    """
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *params)
    return TrainState(
        np.zeros(len(params), np.int32), stacked, jax.vmap(tx.init)(stacked), keys
    )


def make_seeds_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    data: Batch | None = None,
    accumulate: int = 1,
    together: bool | None = None,
    widths: Sequence[int] = (),
) -> TrainStep:
    """Compiles updates of S seeds side by side, each as `make_train_step` has it.

    The seeds are dealt out to the devices, and each device works through the whole
    batches of its own; nothing is exchanged.

    Args:
      loss_fn, tx, data, accumulate: as for `make_train_step`.
      mesh: axis "data" over the devices, whose number divides S.
      together: whether a device computes its seeds as one batch (`vmap`), or one after
        the other, all updates of a dispatch each. By default one after the other on
        CPU, whose caches hold the weights of one seed, not of all.
      widths: ascending, of batches of text lines that `data.pad_to_widest` made: each
        update computes at the width of its own batch, which is "bucket" int32
        `[S, K]` of the widths. Seeds then run one after the other on every platform,
        since at any step their batches differ in width.

    Returns:
      A TrainStep: leaves of states, of batches and of metrics have a leading axis of
      seeds, `[S, ...]`, `[S, K, B, ...]` and `[S, K]`.

    Raises:
      ValueError: seeds as one batch, of unequal widths.
    """
    if widths:
        if together:
            raise ValueError(
                f"together: seeds whose batches have widths {tuple(widths)} cannot be "
                "one batch; leave it out"
            )
        together = False
    apart, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    update = Update(loss_fn, tx, accumulate, tuple(widths)).many
    many = _of_seeds(update, mesh, (True, False, True, False), together, donate=(0,))
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=apart)
    data = None if data is None else jax.device_put(data, everywhere)

    def run(states, batches, count):
        return many(states, data, batches, np.int32(count))

    def put_state(states):
        return copy(jax.device_put(states, apart))

    def put_batches(batches):
        return jax.device_put(batches, apart)

    return TrainStep(run, put_state, lambda states: states, put_batches)


def make_seeds_eval(
    eval_fn: Callable, mesh: Mesh, *, together: bool | None = None
) -> Callable:
    """Compiles an evaluation of S seeds on one batch.

    Args:
      eval_fn: as for `make_eval_step`.
      mesh, together: as for `make_seeds_step`.

    Returns:
      (params `[S, ...]`, batch `[B, ...]`) -> `eval_fn`'s results, each `[S, ...]`.
    """
    return _of_seeds(eval_fn, mesh, (True, False), together)


def _of_seeds(
    function: Callable,
    mesh: Mesh,
    own: tuple[bool, ...],
    together: bool | None,
    donate: tuple[int, ...] = (),
) -> Callable:
    """Compiles a function of one seed for S of them, dealt out to the devices.

    `own` tells of each argument whether it has an axis of seeds, as all results have.
    """
    if together is None:
        together = mesh.devices.flat[0].platform != "cpu"

    def of_device(*arguments):
        if together:
            axes = tuple(0 if mine else None for mine in own)
            return jax.vmap(function, in_axes=axes)(*arguments)

        def of_one(mine):
            mine = iter(mine)
            pairs = zip(arguments, own, strict=True)
            return function(*(next(mine) if is_own else x for x, is_own in pairs))

        pairs = zip(arguments, own, strict=True)
        return lax.map(of_one, [x for x, is_own in pairs if is_own])

    return jax.jit(
        jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=tuple(P("data") if mine else P() for mine in own),
            out_specs=P("data"),
            check_vma=False,  # nothing is exchanged
        ),
        donate_argnums=donate,
    )
