"""The compiled train and eval steps, on one device or many."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lstm_jax.training.devices import check_batch_size

Params = Any
Batch = Mapping[str, Any]
# name -> (sum, count): the caller divides once
Metrics = dict[str, tuple[jax.Array, jax.Array]]
# (params, batch, keys [B]) -> ((loss_sum, count), metrics)
LossFn = Callable[[Params, Batch, jax.Array], tuple[tuple, Metrics]]


class TrainState(NamedTuple):
    """All that a run needs to go on: updates done, weights, optimizer, randomness."""

    step: jax.Array  # int32 []
    params: Params
    opt_state: optax.OptState
    key: jax.Array  # typed key []; stays the same, each step folds its number in


class TrainStep(NamedTuple):
    """One train step and the moves of data that it wants; jit and pmap look alike."""

    run: Callable[[Any, Batch], tuple[Any, Metrics]]  # consumes (donates) the state
    put_state: Callable[[TrainState], Any]  # onto the devices; the argument stays valid
    get_state: Callable[[Any], TrainState]  # back to a plain TrainState
    # Onto the devices, without waiting: its arrays must not be written afterwards.
    put_batch: Callable[[Batch], Batch]

    def __call__(self, state: Any, batch: Batch) -> tuple[Any, Metrics]:
        return self.run(state, batch)


def init_state(
    params: Params, tx: optax.GradientTransformation, key: jax.Array, mesh: Mesh
) -> TrainState:
    """The state before the first step, on every device; `params` are copied."""
    replicated = NamedSharding(mesh, P())

    @jax.jit
    def init(params, key):
        # Copies, because a step donates its state and the caller keeps `params`.
        params = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.int32(0), params, tx.init(params), jnp.copy(key))

    return init(*jax.device_put((params, key), replicated))


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    parallel: str = "jit",
) -> TrainStep:
    """Compiles one update: loss, gradient, its norm, new weights.

      loss = sum of losses / count,   both over the whole batch of all devices

    Example i of the whole batch gets the key fold_in(fold_in(state.key, step), i),
    whatever the number of devices.

    Args:
      loss_fn: (params, batch, keys [B]) -> ((loss_sum, count), {name: (sum, count)}).
      tx: the optimizer.
      mesh: axis "data" over the devices.
      parallel: "jit" (the compiler splits the batch) or "pmap" (each device runs the
        step on its share, sums are exchanged by hand); the numbers are the same.

    Returns:
      A TrainStep; its metrics are those of `loss_fn`, and "loss" and "gradient_norm"
      (before clipping).

    Raises:
      ValueError: `parallel` is neither; or, when it runs, a batch that does not split
        evenly over the devices.
    """
    if parallel == "jit":
        return _jit_step(loss_fn, tx, mesh)
    if parallel == "pmap":
        return _pmap_step(loss_fn, tx, mesh)
    raise ValueError(f"parallel: got {parallel!r}, want 'jit' or 'pmap'")


def _update(loss_fn, tx, state, batch, first, all_devices):
    """One update; `batch` starts at example `first`, `all_devices` sums a tree."""
    key = jax.random.fold_in(state.key, state.step)
    index = first + jnp.arange(_batch_size(batch), dtype=jnp.int32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)

    def loss_sum(params):
        (total, count), metrics = loss_fn(params, batch, keys)
        return total, (count, metrics)

    grad_fn = jax.value_and_grad(loss_sum, has_aux=True)
    (total, (count, metrics)), grads = grad_fn(state.params)
    total, count, metrics, grads = all_devices((total, count, metrics, grads))
    count = jnp.asarray(count, jnp.float32)
    scale = 1.0 / jnp.where(count == 0, 1.0, count)  # an empty batch changes nothing
    grads = jax.tree.map(lambda grad: grad * scale.astype(grad.dtype), grads)
    metrics = {
        **metrics,
        "loss": (total, count),
        "gradient_norm": (_norm(grads), jnp.float32(1)),
    }
    # optax mixes its integer counts with floats, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state, state.key), metrics


def _norm(tree):
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def _jit_step(loss_fn, tx, mesh):
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

    def update(state, batch):
        return _update(loss_fn, tx, state, batch, 0, lambda tree: tree)

    run = jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(replicated, split),
        out_shardings=(replicated, replicated),
    )
    copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))

    def put_state(state):
        return copy(jax.device_put(state, replicated))

    def put_batch(batch):
        check_batch_size(_batch_size(batch), mesh.size)
        return jax.device_put(batch, split)

    return TrainStep(run, put_state, lambda state: state, put_batch)


def _pmap_step(loss_fn, tx, mesh):
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    devices = list(mesh.devices.flat)

    def update(state, batch):
        first = jax.lax.axis_index("data") * _batch_size(batch)
        return _update(
            loss_fn, tx, state, batch, first, lambda tree: jax.lax.psum(tree, "data")
        )

    run = jax.pmap(
        update, axis_name="data", devices=devices, donate_argnums=0, out_axes=(0, None)
    )
    # Spread by pmap, same axis: another layout would compile `run` a second time.
    spread = jax.pmap(
        lambda _, state: state, axis_name="data", in_axes=(0, None), devices=devices
    )
    first_copy = jax.jit(
        lambda state: jax.tree.map(lambda leaf: leaf[0], state),
        out_shardings=replicated,
    )

    def put_state(state):
        return spread(jnp.arange(mesh.size), jax.device_put(state, replicated))

    def put_batch(batch):
        size = _batch_size(batch)
        check_batch_size(size, mesh.size)
        share = (mesh.size, size // mesh.size)
        batch = {name: x.reshape(*share, *x.shape[1:]) for name, x in batch.items()}
        return jax.device_put(batch, split)

    return TrainStep(run, put_state, first_copy, put_batch)


def make_eval_step(
    eval_fn: Callable[[Params, Batch], tuple[Metrics, jax.Array]], mesh: Mesh
) -> Callable[[Params, Batch], tuple[Metrics, jax.Array]]:
    """Compiles an evaluation of one batch, split over the devices.

    Args:
      eval_fn: (params, batch) -> ({name: (sum, count)}, predictions [B, K]).
      mesh: axis "data" over the devices.

    Returns:
      (params, batch) -> the same, whole on every device; NumPy arguments are welcome.
    """
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    run = jax.jit(eval_fn, in_shardings=(replicated, split), out_shardings=replicated)

    def evaluate(params, batch):
        check_batch_size(_batch_size(batch), mesh.size)
        return run(jax.device_put(params, replicated), jax.device_put(batch, split))

    return evaluate


def _batch_size(batch: Batch) -> int:
    return jax.tree.leaves(batch)[0].shape[0]
