"""Predictions of a trained run: its predictor, and its network as pure functions."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UsageError
from experiments.experiment import Experiment
from experiments.prediction import live
from experiments.prediction.predictor import BATCH, Predictor, sampling_of
from experiments.run.load_run import load_run, tuned_of
from lstm_jax.models import stream


def predictor(run: str | Path) -> Predictor:
    """The `Predictor` of a run folder or of an exported .safetensors file.

    Raises:
      UsageError: there is no run.
    """
    experiment, params = load_run(run)
    compiled = jax.jit(lambda batch: experiment.predictions(params, batch))

    def apply(batch):
        count = len(inputs := batch["inputs"])
        if experiment.spec.is_image and "lengths" not in batch:
            # The last batch is padded, so that only one program is compiled.
            rest = np.zeros((BATCH - count, *inputs.shape[1:]), inputs.dtype)
            batch = {"inputs": np.concatenate([inputs, rest])}
        return np.asarray(compiled(batch))[:count]

    sampling = sampling_of(experiment.config)
    parts = experiment.kind, experiment.spec, apply, sampling, experiment, params
    return Predictor(*parts, tuned_of(run))


def watch(run: str | Path, source: str, every: int = 25) -> dict[str, Any]:
    """Predicts frame by frame with a run; see `live.watch`.

    Raises:
      UsageError: the run is not on clips, or its network needs the whole clip.
    """
    experiment, params = load_run(run)
    kind, spec = experiment.kind, experiment.spec
    if len(spec.image_shape) != 4:
        raise UsageError(f"{run} was not trained on clips, which --live needs")
    start, step, (shape, _) = stepwise(experiment, params)

    def words(frame, before, now):
        return kind.stream_line(spec, frame, before, now)

    step = jax.jit(step, donate_argnums=0)
    return live.watch(source, shape, start(), step, words, every)


def whole(experiment: Experiment, params: Any, *, frames: int | None = None):
    """The whole network as a function, from uint8 inputs to predictions.

    Args:
      experiment: of the run.
      params: of its network.
      frames: number of frames of a clip; None: dynamic, if clips have lengths.

    Returns:
      `(function, inputs)`: the function of images, or of clips and lengths, and
      `(shape, dtype)` of each input, with "B" and "T" for dynamic axes.
    """
    # The scan engine supports a dynamic time axis; the layouts that other engines
    # constrain depend on the version of JAX.
    config, spec = experiment.config, experiment.spec
    plain = {"engine": "scan", "tbptt_steps": None}
    known = {name: plain[name] for name in plain if hasattr(config.model, name)}
    model = dataclasses.replace(config.model, **known)
    run = Experiment(dataclasses.replace(config, model=model), spec)
    steps, *shape = spec.image_shape
    dtype = jnp.float32 if spec.features else jnp.uint8

    def apply(inputs, lengths=None):
        batch = {"inputs": inputs} | ({} if lengths is None else {"lengths": lengths})
        return run.predictions(params, batch)

    if spec.is_image:
        return apply, [(("B", *spec.image_shape), dtype)]
    if experiment.model_kind.reads_lengths:
        return apply, [(("B", frames or "T", *shape), dtype), (("B",), jnp.int32)]
    unseen = experiment.kind.unseen_steps(config)

    def apply_seen(inputs):
        rest = jnp.zeros((inputs.shape[0], unseen, *inputs.shape[2:]), inputs.dtype)
        return apply(jnp.concatenate([inputs, rest], 1))

    return apply_seen, [(("B", steps - unseen, *shape), dtype)]


def stepwise(experiment: Experiment, params: Any):
    """The network as a function of one frame at a time.

    Returns:
      `start() -> state`, a tuple of arrays; `step(state, frame) -> (state, output)`;
      `(shape, dtype)` of a frame: uint8 `[H, W, C]` or float32 `[F]`.

    Raises:
      ValueError: the network needs the whole clip.
    """
    spec = experiment.spec
    shape = tuple(spec.image_shape[1:])
    parts = stream(experiment.network.module, params, shape)
    structure = jax.tree.structure(jax.eval_shape(parts.start))

    def start():
        return tuple(jax.tree.leaves(parts.start()))

    def step(state, frame):
        state = jax.tree.unflatten(structure, state)
        state, output = parts.step(state, spec.normalize(frame))
        output = experiment.kind.stream_output(experiment.task, output)
        return tuple(jax.tree.leaves(state)), output

    return start, step, (shape, jnp.float32 if spec.features else jnp.uint8)
