"""Many seeds of one training, in one program."""

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
    grad_accum_steps: int = 1,
    vmapped: bool | None = None,
    widths: Sequence[int] = (),
) -> TrainStep:
    """Compiles updates of S seeds side by side, each as `make_train_step` has it.

    The seeds are dealt out to the devices, and each device works through the whole
    batches of its own; nothing is exchanged.

    Args:
      loss_fn, tx, data, grad_accum_steps: as for `make_train_step`.
      mesh: axis "data" over the devices, whose number divides S.
      vmapped: whether a device computes its seeds as one batch (`vmap`), or one after
        the other, all updates of a dispatch each. By default one after the other on
        CPU, whose caches hold the weights of one seed, not of all.
      widths: ascending, of batches of text lines that `data.pad_to_widest` made: each
        update computes at the width of its own batch, which is "bucket" int32
        `[K, S]` of the widths. Seeds then run one after the other on every platform,
        since at any step their batches differ in width.

    Returns:
      A TrainStep: leaves of states, of batches and of metrics have an axis of seeds,
      `[S, ...]`, `[K, S, B, ...]` and `[K, S]`.

    Raises:
      ValueError: seeds as one batch, of unequal widths.
    """
    if widths:
        if vmapped:
            raise ValueError(
                f"vmapped: seeds whose batches have widths {tuple(widths)} cannot be "
                "one batch; leave it out"
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
        check_vma=False,  # nothing is exchanged
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
