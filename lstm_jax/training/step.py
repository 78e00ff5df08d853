"""The compiled training and evaluation steps, on one device or many."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lstm_jax.training.devices import check_batch_size
from lstm_jax.training.warm_start import flatten_params

Params = Any
Batch = Mapping[str, Any]
# name -> (sum, count): the caller divides once
Metrics = dict[str, tuple[jax.Array, jax.Array]]
# (params, batch, keys [B]) -> ((loss_sum, count), metrics)
LossFn = Callable[[Params, Batch, jax.Array], tuple[tuple, Metrics]]


class TrainState(NamedTuple):
    """All state of a run: number of updates, weights, optimizer state, random key."""

    step: jax.Array  # int32 []
    params: Params
    opt_state: optax.OptState
    key: jax.Array  # typed key []; constant: each step folds in its number


class TrainStep(NamedTuple):
    """Compiled updates and data transfers; the same interface for jit and pmap.

    Attributes:
      run: `(state, batches, count) -> (state, metrics)`, `count` updates in one
        dispatch; leaves of `batches` and of the metrics are `[K, ...]`, of which the
        first `count` are used. Donates the state.
      put_state: copies a TrainState to the devices; the argument stays valid.
      get_state: returns a plain TrainState.
      put_batches: transfers `[K, B, ...]` to the devices asynchronously: do not write
        to the arrays afterwards. With several processes, B are the rows of this one.
    """

    run: Callable[[Any, Batch, int], tuple[Any, Metrics]]
    put_state: Callable[[TrainState], Any]
    get_state: Callable[[Any], TrainState]
    put_batches: Callable[[Batch], Batch]

    def __call__(self, state: Any, batch: Batch) -> tuple[Any, Metrics]:
        """One update with one batch, leaves `[B, ...]`."""
        one = {name: x[None] for name, x in batch.items()}
        state, metrics = self.run(state, self.put_batches(one), 1)
        return state, jax.tree.map(lambda x: x[0], metrics)


def init_state(
    params: Params, tx: optax.GradientTransformation, key: jax.Array, mesh: Mesh
) -> TrainState:
    """The initial state, on every device of the mesh; `params` are copied."""

    def init(params, key):
        # Copies, because a step donates its state and the caller keeps `params`.
        params = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.int32(0), params, tx.init(params), jnp.copy(key))

    everywhere = NamedSharding(mesh, P())
    return jax.jit(init, out_shardings=everywhere)(*_place((params, key), everywhere))


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    parallel: str = "jit",
    *,
    data: Batch | None = None,
    grad_accum_steps: int = 1,
) -> TrainStep:
    """Compiles a training update: loss, gradient, gradient norm, new weights.

      loss = sum of losses / count,   both over the global batch

    Example i of the global batch gets the key fold_in(fold_in(state.key, step), i),
    independent of the number of devices.

    Args:
      loss_fn: (params, batch, keys [B]) -> ((loss_sum, count), {name: (sum, count)}).
      tx: the optimizer.
      mesh: axis "data" over the devices.
      parallel: "jit" (the compiler partitions the batch), "shard_map" (each device
        runs the step on its part, with explicit psum) or "pmap" (the legacy form of
        the same; one process only); the results are the same.
      data: examples `[N, ...]` to keep on every device; a batch then holds "rows",
        int32 indices `[B]` of its examples.
      grad_accum_steps: the batch is computed in that many parts, one after another, to
        save memory.

    Returns:
      A TrainStep; its metrics are those of `loss_fn`, and "loss", "gradient_norm"
      (before clipping) and "update_ratio", the norm of each matrix's update divided by
      the norm of the matrix, as the pair of norms, `[L]` each, in the order of
      `matrix_names`.

    Raises:
      ValueError: `parallel` is unknown, or pmap in several processes; when it runs: a
        batch that does not split evenly over the devices.
    """
    if parallel not in ("jit", "shard_map", "pmap"):
        raise ValueError(
            f"parallel: got {parallel!r}, want 'jit', 'shard_map' or 'pmap'"
        )
    if parallel == "pmap" and jax.process_count() > 1:
        raise ValueError("parallel='pmap' runs in one process only; use 'jit'")
    if grad_accum_steps < 1:
        raise ValueError(f"grad_accum_steps: got {grad_accum_steps}, want 1 or more")
    update = Update(loss_fn, tx, grad_accum_steps)
    if parallel == "pmap":
        return _pmap_step(update, mesh, data)
    return _jit_step(update, mesh, data, shard_map=parallel == "shard_map")


class Update(NamedTuple):
    """Updates on one device's part of a batch, to be compiled."""

    loss_fn: LossFn
    tx: optax.GradientTransformation
    grad_accum_steps: int
    # Widths of batches from `data.pad_to_widest`; "bucket" indexes them.
    widths: tuple[int, ...] = ()

    def many(self, state, data, batches, count, device=0, all_devices=lambda x: x):
        """`count` updates, number i with `batches[i]`."""

        def batch_at(i):
            batch = {name: x[i] for name, x in batches.items()}
            if data is None:
                return batch
            rows = batch.pop("rows")
            return {name: x[rows] for name, x in data.items()} | batch

        @jax.jit  # traced once, for the shapes and for the loop
        def one(state, batch):
            update = partial(self.one, device=device, all_devices=all_devices)
            if not self.widths:
                return update(state, batch)
            bucket = batch.pop("bucket")
            branches = [partial(_at_width, update, width) for width in self.widths]
            return lax.switch(bucket, branches, state, batch)

        def body(i, carried):
            state, kept = carried
            state, metrics = one(state, batch_at(i))
            return state, jax.tree.map(lambda k, m: k.at[i].set(m), kept, metrics)

        # `count` is not constant: one program for every count, with identical results.
        shapes = jax.eval_shape(lambda: one(state, batch_at(0))[1])
        most = _size(batches)
        kept = jax.tree.map(lambda m: jnp.zeros((most, *m.shape), m.dtype), shapes)
        return lax.fori_loop(0, count, body, (state, kept))

    def of_device(self, *arguments):
        """`many` on one device's part of the batches, within an axis "data"."""
        device = lax.axis_index("data")
        return self.many(*arguments, device, lambda tree: lax.psum(tree, "data"))

    def one(self, state, batch, device, all_devices):
        """One update; `all_devices` sums a tree over all parts of the batch."""
        key = jax.random.fold_in(state.key, state.step)
        size = _size(batch)
        index = device * size + jnp.arange(size, dtype=jnp.int32)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
        sums = all_devices(self._sums(state.params, batch, keys))
        (total, (count, metrics)), grads = sums
        count = jnp.asarray(count, jnp.float32)
        scale = 1.0 / jnp.where(count == 0, 1.0, count)  # an empty batch: no change
        grads = jax.tree.map(lambda grad: grad * scale.astype(grad.dtype), grads)
        metrics = {
            **metrics,
            "loss": (total, count),
            "gradient_norm": (_norm(grads), jnp.float32(1)),
        }
        # optax mixes integer counts with floats, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics["update_ratio"] = _norms(updates), _norms(state.params)
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    def _sums(self, params, batch, keys):
        """`((loss, (count, metrics)), gradients)`, sums over the batch."""

        def loss_sum(params, batch, keys):
            (total, count), metrics = self.loss_fn(params, batch, keys)
            return total, (count, metrics)

        grad_fn = jax.value_and_grad(loss_sum, has_aux=True)
        if self.grad_accum_steps == 1:
            return grad_fn(params, batch, keys)

        def part(x):  # every n-th example, so that no example changes its device
            x = x.reshape(-1, self.grad_accum_steps, *x.shape[1:])
            return jnp.moveaxis(x, 1, 0)

        def add(sums, part):
            return jax.tree.map(jnp.add, sums, grad_fn(params, *part)), None

        parts = jax.tree.map(part, (batch, keys))
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(grad_fn, params, *first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return lax.scan(add, zeros, parts)[0]


def jit_updates(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    grad_accum_steps: int = 1,
    shard_map: bool = False,
) -> Callable:
    """The function that `make_train_step` compiles for "jit" or "shard_map".

    Args:
      loss_fn, tx, mesh, grad_accum_steps: as in `make_train_step`; the mesh may consist
        of devices that are not attached, as from `jax.experimental.topologies`.
      shard_map: whether to return the version for "shard_map".

    Returns:
      `(state, data or None, batches [K, B, ...], count) -> (state, metrics)`, jitted.
    """
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "data"))
    update = Update(loss_fn, tx, grad_accum_steps)
    run = update.many
    if shard_map:
        run = jax.shard_map(
            update.of_device,
            mesh=mesh,
            in_specs=(P(), P(), P(None, "data"), P()),
            out_specs=P(),
            check_vma=False,  # the result of psum is replicated
        )
    return jax.jit(
        run,
        donate_argnums=0,
        in_shardings=(everywhere, everywhere, split, None),
        out_shardings=(everywhere, everywhere),
    )


def _jit_step(update, mesh, data, shard_map):
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "data"))
    parts = dict(grad_accum_steps=update.grad_accum_steps, shard_map=shard_map)
    compiled = jit_updates(update.loss_fn, update.tx, mesh, **parts)
    copy = jax.jit(
        lambda state: jax.tree.map(jnp.copy, state), out_shardings=everywhere
    )
    data = None if data is None else jax.device_put(data, everywhere)

    def run(state, batches, count):
        return compiled(state, data, batches, np.int32(count))

    def put_state(state):
        return copy(_place(state, everywhere))

    def put_batches(batches):
        _check_split(batches, 1, mesh, update.grad_accum_steps)
        return _put(batches, split)

    return TrainStep(run, put_state, lambda state: state, put_batches)


def _pmap_step(update, mesh, data):
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    devices = list(mesh.devices.flat)

    compiled = jax.pmap(
        update.of_device,
        axis_name="data",
        in_axes=(0, 0, 0, None),
        out_axes=(0, None),
        devices=devices,
        donate_argnums=0,
    )
    # Sharded by pmap itself: another layout would compile a second time.
    spread_out = jax.pmap(
        lambda _, tree: tree, axis_name="data", in_axes=(0, None), devices=devices
    )
    first_copy = jax.jit(
        lambda state: jax.tree.map(lambda leaf: leaf[0], state),
        out_shardings=everywhere,
    )

    def spread(tree):
        return spread_out(jnp.arange(mesh.size), jax.device_put(tree, everywhere))

    data = None if data is None else spread(data)

    def run(state, batches, count):
        return compiled(state, data, batches, np.int32(count))

    def put_batches(batches):
        _check_split(batches, 1, mesh, update.grad_accum_steps)

        def share(x):  # [K, B, ...] -> [devices, K, B / devices, ...]
            x = x.reshape(len(x), mesh.size, -1, *x.shape[2:])
            return x.swapaxes(0, 1)

        return jax.device_put({k: share(x) for k, x in batches.items()}, split)

    return TrainStep(run, spread, first_copy, put_batches)


def make_eval_step(
    eval_fn: Callable[[Params, Batch], tuple[Metrics, jax.Array]], mesh: Mesh
) -> Callable[[Params, Batch], tuple[Metrics, jax.Array]]:
    """Compiles the evaluation of one batch, split over the devices.

    Args:
      eval_fn: (params, batch) -> ({name: (sum, count)}, predictions [B, K]).
      mesh: axis "data" over the devices.

    Returns:
      (params, batch) -> the results of `eval_fn`, replicated on every device; accepts
      NumPy arrays. With several processes, a batch holds the rows of this one.
    """
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    run = jax.jit(eval_fn, in_shardings=(everywhere, split), out_shardings=everywhere)

    def evaluate(params, batch):
        _check_split(batch, 0, mesh)
        return run(_place(params, everywhere), _put(batch, split))

    return evaluate


def matrix_names(params: Params, axes: int = 0) -> list[str]:
    """Paths of the leaves of rank 2 and more, such as "layer_0/w_h".

    These have an update ratio; that of biases, which start at 0, would be meaningless.

    Args:
      params: of a network.
      axes: number of leading axes to ignore, such as one of seeds.
    """
    return [
        name for name, x in flatten_params(params).items() if jnp.ndim(x) >= 2 + axes
    ]


def _at_width(update, width: int, state, batch):
    """An update on a batch whose images `[B, H, W, C]` are cropped to W = width."""
    return update(state, batch | {"inputs": batch["inputs"][:, :, :width]})


def _norms(tree):
    matrices = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim >= 2]
    norms = [jnp.linalg.norm(leaf.astype(jnp.float32).ravel()) for leaf in matrices]
    return jnp.stack(norms) if norms else jnp.zeros(0, jnp.float32)


def _norm(tree):
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def _size(tree, axis: int = 0) -> int:
    return jax.tree.leaves(tree)[0].shape[axis]


def _check_split(tree, axis: int, mesh: Mesh, grad_accum_steps: int = 1) -> None:
    size = _size(tree, axis) * jax.process_count()
    check_batch_size(size, mesh.size, grad_accum_steps)


def _place(tree: Any, everywhere: NamedSharding) -> Any:
    """Replicates a tree on all devices; typed keys need their own treatment."""
    one = jax.process_count() == 1
    return jax.device_put(tree, everywhere) if one else tree


def _put(tree: Any, split: NamedSharding) -> Any:
    """Transfers a batch to the devices; each process passes its own rows."""
    if jax.process_count() == 1:
        return jax.device_put(tree, split)
    make = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x: make(split, np.asarray(x)), tree)
