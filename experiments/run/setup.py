"""The start of a training: processes, devices, data, and initial weights."""

import warnings
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.errors import UsageError
from experiments.experiment import Experiment
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
    check_memory(experiment, mesh, -(-(seeds or 1) // mesh.size))
    return experiment, mesh


def check_memory(experiment: Experiment, mesh: Mesh, states: int = 1) -> None:
    """Refuses a network that the devices cannot hold, before anything is allocated.

    What is counted is certain: parameters, optimizer state and gradients. Activations
    come on top, and are told by the device when they do not fit.

    Args:
      experiment: of the run.
      mesh: of its devices.
      states: training states that a device holds.

    Raises:
      UsageError: with the sum.
    """
    with warnings.catch_warnings():  # JAX's, of sizes that no index can count
        warnings.simplefilter("ignore")
        shapes = experiment.state_shapes()
    weights, state = tree_bytes(shapes.params), tree_bytes(shapes)
    device, needed = mesh.local_devices[0], states * (state + weights)
    if device.platform == "cpu":  # its devices share one memory
        needed *= len(mesh.local_devices)
    memory = training.device_memory(device)
    if memory is None or needed <= memory:
        return
    kind = "this machine" if device.platform == "cpu" else device.device_kind
    raise UsageError(
        f"the network has {parameters(shapes.params):,} parameters: with optimizer "
        f"state and gradients they take {needed / 2**30:,.1f} GiB, but {kind} has "
        f"{memory / 2**30:,.1f} GiB. Give a smaller network, such as fewer "
        "--model.features"
    )


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
