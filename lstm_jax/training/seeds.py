"""Many seeds of one training, in one program."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
) -> TrainStep:
    """Compiles updates of S seeds side by side, each as `make_train_step` has it.

    The seeds are dealt out to the devices, and each device works through the whole
    batches of its own; nothing is exchanged.

    Args:
      loss_fn, tx, data, accumulate: as for `make_train_step`.
      mesh: axis "data" over the devices, whose number divides S.

    Returns:
      A TrainStep: leaves of states, of batches and of metrics have a leading axis of
      seeds, `[S, ...]`, `[S, K, B, ...]` and `[S, K]`.
    """
    apart, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    many = jax.jit(
        jax.vmap(Update(loss_fn, tx, accumulate).many, in_axes=(0, None, 0, None)),
        donate_argnums=0,
        in_shardings=(apart, everywhere, apart, None),
        out_shardings=(apart, apart),
    )
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=apart)
    data = None if data is None else jax.device_put(data, everywhere)

    def run(states, batches, count):
        return many(states, data, batches, np.int32(count))

    def put_state(states):
        return copy(jax.device_put(states, apart))

    def put_batches(batches):
        return jax.device_put(batches, apart)

    return TrainStep(run, put_state, lambda states: states, put_batches)


def make_seeds_eval(eval_fn: Callable, mesh: Mesh) -> Callable:
    """Compiles an evaluation of S seeds on one batch.

    Args:
      eval_fn: as for `make_eval_step`.
      mesh: axis "data" over the devices, whose number divides S.

    Returns:
      (params `[S, ...]`, batch `[B, ...]`) -> `eval_fn`'s results, each `[S, ...]`.
    """
    apart, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    return jax.jit(
        jax.vmap(eval_fn, in_axes=(0, None)),
        in_shardings=(apart, everywhere),
        out_shardings=apart,
    )
