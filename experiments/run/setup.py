"""How every training begins: processes, devices, data, and the first weights."""

from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.experiment import Experiment
from experiments.options import Config
from experiments.run.init_from import known_labels, weights_from
from lstm_jax import data, training
from lstm_jax.inspect.summary import parameters


def start(config: Config, directory: Path, seeds: int | None = None):
    """Starts JAX on what a run asks for; call it before any other use of JAX.

    Args:
      config: of the run.
      directory: of the run; nothing is written there.
      seeds: how many train side by side, each on one device; None shares out batches.

    Returns:
      `(experiment, mesh)`.
    """
    if config.distributed:
        training.start_processes(
            config.coordinator, config.processes, config.process_id
        )
    else:
        training.split_cpu()
    experiment = Experiment(config, labels=known_labels(config, directory))
    mesh = training.data_mesh(_devices(experiment, seeds))
    if config.compilation_cache:
        training.enable_compilation_cache(data.default_root() / "compiled")
    return experiment, mesh


def _devices(experiment: Experiment, seeds: int | None) -> list[jax.Device]:
    config = experiment.config
    devices = training.select_accelerator(config.accelerator)
    if seeds is not None:
        return training.enough_cores(devices, seeds)
    # A core with few examples waits for the others longer than it works, unless images
    # are convolved.
    least = 1 if experiment.model_kind.convolves(config) else 32
    examples = config.batch_size // config.grad_accum_steps
    devices = training.enough_cores(devices, examples, least=least)
    training.check_batch_size(config.batch_size, len(devices), config.grad_accum_steps)
    return devices


def first_weights(experiment: Experiment, seed: int, begins: bool = True):
    """The weights before the first step, and the randomness of the steps.

    Args:
      experiment: of the run.
      seed: of both.
      begins: whether the run has no checkpoint yet, so that weights are taken from
        where `--init-from` says.

    Returns:
      `(params, key, lines that say what was taken)`.
    """
    key_params, key_run = jax.random.split(jax.random.key(seed))
    params: Any = experiment.init(key_params, pretrained=begins)
    source = experiment.config.init_from if begins else None
    params, lines = weights_from(source, experiment.spec, params)
    return params, key_run, lines


def opening(experiment: Experiment, mesh: Mesh, params: Any) -> list[str]:
    """Lines on what is trained, and where.

    Args:
      experiment: of the run.
      mesh: of its devices.
      params: of its network.
    """
    dataset, shortest = experiment.dataset, experiment.steps // 2
    lines = [*dataset.notes, *experiment.duplicates.lines()]
    if experiment.config.optimizer.schedule.warmup_steps > shortest:
        lines.append(f"a short run: its warm-up is cut to {shortest} steps")
    kind = "pictures" if experiment.spec.pictures else "clips"
    kind = "lines" if experiment.kind.bucketed else kind
    sizes = {name: len(split.inputs) for name, split in dataset.splits.items()}
    lines.append(
        f"{dataset.name}: {sizes['train']:,} training, {sizes['validation']:,} "
        f"validation and {sizes['test']:,} test {kind} of "
        f"{'x'.join(map(str, dataset.image_shape))}; {parameters(params):,} "
        f"parameters on {mesh.size} {mesh.devices[0].platform} device(s)"
    )
    return lines
