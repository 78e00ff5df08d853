"""The start of a training: processes, devices, data, and initial weights."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.errors import UsageError
from experiments.experiment import Experiment, arrays
from experiments.options import Config
from experiments.run.init_from import known_labels, weights_from
from experiments.run.status import Status
from lstm_jax import data, training
from lstm_jax.inspect.summary import parameters, tree_bytes


def start(
    config: Config,
    directory: Path,
    seeds: int | None = None,
    *,
    status: Status = Status(""),
):
    """Starts JAX on the devices of a run; call it before any other use of JAX.

    Args:
      config: of the run.
      directory: of the run; nothing is written.
      seeds: number of seeds to train in parallel, each on one device; None: split
        batches over the devices.
      status: shows what is read.

    Returns:
      `(experiment, mesh)`.
    """
    if config.distributed:
        training.start_processes(
            config.coordinator, config.processes, config.process_id
        )
    else:
        training.split_cpu()
    labels = known_labels(config, directory)
    experiment = Experiment(config, labels=labels, progress=status.count)
    mesh = training.data_mesh(_devices(experiment, seeds))
    if config.compilation_cache:
        training.enable_compilation_cache(data.default_root() / "compiled")
    check_memory(experiment, mesh, seeds)
    return experiment, mesh


def check_memory(experiment: Experiment, mesh: Mesh, seeds: int | None = None) -> None:
    """Refuses a network that the devices cannot hold, before anything is allocated.

    Parameters, optimizer state and gradients are counted exactly. The size of the
    activations is an estimate, and half of it must fit.

    Args:
      experiment: of the run.
      mesh: of its devices.
      seeds: as of `start`.

    Raises:
      UsageError: with the sum.
    """
    with warnings.catch_warnings():  # JAX's, of sizes that no index can count
        warnings.simplefilter("ignore")
        shapes = experiment.state_shapes()
    weights, state = tree_bytes(shapes.params), tree_bytes(shapes)
    device, states = mesh.local_devices[0], -(-(seeds or 1) // mesh.size)
    memory = training.device_memory(device)
    if memory is None:
        return
    if device.platform == "cpu":  # its devices share one memory
        memory //= len(mesh.local_devices)
    kind = "this machine" if device.platform == "cpu" else device.device_kind
    needed = states * (state + weights)
    words = (
        f"the network has {parameters(shapes.params):,} parameters: with optimizer "
        f"state and gradients they take {_gib(needed)}"
    )
    has = f"but {kind} has {_gib(memory)}"
    if len(mesh.local_devices) > 1:
        has += " per device"
    if needed > memory:
        raise UsageError(
            f"{words}, {has}. Give a smaller network, such as fewer --model.features"
        )
    config = experiment.config
    examples = config.batch_size // config.grad_accum_steps
    examples = examples if seeds else -(-examples // mesh.size)
    if (
        needed + states * _most_activations(experiment, shapes.params, examples)
        < memory
    ):
        return  # the estimate takes up to a second
    saved = states * activation_bytes(experiment, shapes.params, examples)
    if needed + saved / 2 > memory:
        raise UsageError(
            f"{words}, and the activations of {examples:,} examples about "
            f"{_gib(saved)}, {has}. Give a smaller --batch-size, more "
            "--grad-accum-steps, or a smaller network"
        )


def activation_bytes(experiment: Experiment, params: Any, examples: int) -> int:
    """Bytes that the forward pass saves for the backward pass: the residuals of vjp.

    XLA computes some of them again, and needs memory for other arrays: measured, it
    took 0.8 to 1.9 times as much.

    Args:
      experiment: of the run.
      params: shapes of the parameters.
      examples: in a batch.
    """
    mask = jax.ShapeDtypeStruct((examples,), "float32")
    batch = dict(mask=mask, progress=mask) | {
        name: jax.ShapeDtypeStruct((examples, *array.shape[1:]), array.dtype)
        for name, array in arrays(experiment.split).items()
    }

    def saved(params, batch):
        keys = jax.random.split(jax.random.key(0), examples)
        loss = partial(experiment.loss, batch=batch, keys=keys)
        return jax.vjp(lambda params: loss(params)[0][0], params)[1]

    saved = tree_bytes(jax.eval_shape(saved, params, batch))
    return max(saved - tree_bytes(params), 0)


def _most_activations(experiment: Experiment, params: Any, examples: int) -> int:
    """Bytes far above the activations: 8 arrays of each layer at every pixel."""
    channels = sum((1, *leaf.shape)[-1] for leaf in jax.tree.leaves(params))
    return 8 * 4 * examples * experiment.split.inputs[0].size * channels


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"


def _devices(experiment: Experiment, seeds: int | None) -> list[jax.Device]:
    config = experiment.config
    devices = training.select_accelerator(config.accelerator)
    if seeds is not None:
        return training.enough_cores(devices, seeds)
    # With few examples per core, synchronisation takes longer than the computation,
    # unless images are convolved.
    least = 1 if experiment.model_kind.convolves(config) else 32
    examples = config.batch_size // config.grad_accum_steps
    devices = training.enough_cores(devices, examples, least=least)
    training.check_batch_size(config.batch_size, len(devices), config.grad_accum_steps)
    return devices


def first_weights(experiment: Experiment, seed: int, begins: bool = True):
    """Initial weights, and the key of the training steps.

    Args:
      experiment: of the run.
      seed: of both.
      begins: whether the run has no checkpoint yet, so that `--init-from` applies.

    Returns:
      `(params, key, lines about loaded weights)`.
    """
    key_params, key_run = jax.random.split(jax.random.key(seed))
    params: Any = experiment.init(key_params, pretrained=begins)
    source = experiment.config.init_from if begins else None
    params, lines = weights_from(source, experiment.spec, params)
    return params, key_run, lines


def opening(experiment: Experiment, mesh: Mesh, params: Any) -> list[str]:
    """Lines about the data, the network and the devices.

    Args:
      experiment: of the run.
      mesh: of its devices.
      params: of its network.
    """
    dataset, shortest = experiment.dataset, experiment.steps // 2
    lines = [*dataset.notes, *experiment.duplicates.lines()]
    if experiment.config.optimizer.schedule.warmup_steps > shortest:
        lines.append(f"short run: warm-up is limited to {shortest} steps")
    kind = "images" if experiment.spec.is_image else "clips"
    kind = "lines" if experiment.kind.bucketed else kind
    sizes = {name: len(split.inputs) for name, split in dataset.splits.items()}
    lines.append(
        f"{dataset.name}: {sizes['train']:,} training, {sizes['validation']:,} "
        f"validation and {sizes['test']:,} test {kind} of "
        f"{'x'.join(map(str, dataset.image_shape))}; {parameters(params):,} "
        f"parameters on {mesh.size} {mesh.devices[0].platform} device(s)"
    )
    return lines
