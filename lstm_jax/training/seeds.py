"""Trains several seeds of one configuration in one program."""

from collections.abc import Sequence
from functools import partial

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
    """Initial states of S seeds, stacked: leaves `[S, ...]`.

    Args:
      params: one tree per seed.
      tx: the optimizer.
      keys: `[S]`, one per seed.
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
    grad_accum_steps: int = 1,
    vmapped: bool | None = None,
    widths: Sequence[int] = (),
) -> TrainStep:
    """Compiles updates of S seeds at once, each as in `make_train_step`.

    The seeds are distributed over the devices; each device processes the whole batches
    of its seeds, without communication.

    Args:
      loss_fn, tx, data, grad_accum_steps: as for `make_train_step`.
      mesh: axis "data" over the devices, whose number divides S.
      together: whether a device computes its seeds as one batch (`vmap`), or one after
        another, all updates of a dispatch each. None: one after another on CPU, whose
        caches hold the weights of one seed, but not of all.
      widths: ascending, for batches of text lines from `data.pad_to_widest`: each
        update computes at the width given by "bucket", int32 `[K, S]`, indices into
        `widths`. Seeds then run one after another on every platform, because their
        batches differ in width.

    Returns:
      A TrainStep; states, batches and metrics have an axis of seeds, `[S, ...]`,
      `[K, S, B, ...]` and `[K, S]`.

    Raises:
      ValueError: `together` with `widths`.
    """
    if widths:
        if vmapped:
            raise ValueError(
                f"together: seeds whose batches have widths {tuple(widths)} cannot be "
                "one batch; omit it"
            )
        vmapped = False
    apart, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    update = Update(loss_fn, tx, grad_accum_steps, tuple(widths)).many
    if vmapped is None:
        vmapped = mesh.devices.flat[0].platform != "cpu"

    def of_device(states, data, batches, count):
        if vmapped:
            many = jax.vmap(update, in_axes=(0, None, 0, None))
            return many(states, data, batches, count)
        return lax.map(
            lambda own: update(own[0], data, own[1], count), (states, batches)
        )

    side_by_side = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(P("data"), P(), P("data"), P()),
        out_specs=P("data"),
        check_vma=False,  # no communication
    )

    @partial(jax.jit, donate_argnums=0)
    def many(*arguments):
        states, metrics = side_by_side(*arguments)
        return states, jax.tree.map(lambda x: x.swapaxes(0, 1), metrics)

    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=apart)
    data = None if data is None else jax.device_put(data, everywhere)

    def run(states, batches, count):
        return many(states, data, batches, np.int32(count))

    def put_state(states):
        return copy(jax.device_put(states, apart))

    def put_batches(batches):
        swapped = {name: np.swapaxes(x, 0, 1) for name, x in batches.items()}
        return jax.device_put(swapped, apart)

    return TrainStep(run, put_state, lambda states: states, put_batches)
