"""What a trained network answers, as pure functions; a run predicts and streams."""

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
from experiments.run.load_run import load_run
from lstm_jax.models import stream


def predictor(run: str | Path) -> Predictor:
    """Of a run's folder, or of a file of its weights.

    Raises:
      UsageError: there is no run.
    """
    experiment, params = load_run(run)
    compiled = jax.jit(lambda batch: experiment.predictions(params, batch))

    def answer(batch):
        count = len(inputs := batch["inputs"])
        if experiment.spec.pictures and "lengths" not in batch:
            # One program for all: the last batch is padded.
            rest = np.zeros((BATCH - count, *inputs.shape[1:]), inputs.dtype)
            batch = {"inputs": np.concatenate([inputs, rest])}
        return np.asarray(compiled(batch))[:count]

    sampling = sampling_of(experiment.config)
    parts = experiment.kind, experiment.spec, answer, sampling, experiment, params
    return Predictor(*parts)


def watch(run: str | Path, source: str, every: int = 25) -> dict[str, Any]:
    """Answers frames by one compiled step of a run, as `live.watch` does.

    Raises:
      UsageError: the run reads no clips, or has to see the whole of one.
    """
    experiment, params = load_run(run)
    kind, spec = experiment.kind, experiment.spec
    if len(spec.image_shape) != 4:
        raise UsageError(f"{run} was not trained on clips; --live wants frames")
    start, step, (shape, _) = stepwise(experiment, params)

    def words(frame, before, now):
        return kind.stream_line(spec, frame, before, now)

    step = jax.jit(step, donate_argnums=0)
    return live.watch(source, shape, start(), step, words, every)


def whole(experiment: Experiment, params: Any, *, frames: int | None = None):
    """`(function, inputs)`: from uint8 pictures to what `predict` answers with.

    Args:
      experiment, params: of a run.
      frames: of a clip; None leaves them open, in a run whose clips have lengths.

    Returns:
      The function, of pictures, or of clips and lengths, and the shape and dtype of
      each of its inputs, where "B" and "T" are open.
    """
    # The definition: time may be open, and nothing in it is bound to one version of
    # JAX, as the layouts that another engine pins are.
    config, spec = experiment.config, experiment.spec
    plain = {"engine": "scan", "tbptt_steps": None}
    known = {name: plain[name] for name in plain if hasattr(config.model, name)}
    model = dataclasses.replace(config.model, **known)
    run = Experiment(dataclasses.replace(config, model=model), spec)
    steps, *shape = spec.image_shape
    dtype = jnp.float32 if spec.features else jnp.uint8

    def answer(inputs, lengths=None):
        batch = {"inputs": inputs} | ({} if lengths is None else {"lengths": lengths})
        return run.predictions(params, batch)

    if spec.pictures:
        return answer, [(("B", *spec.image_shape), dtype)]
    if experiment.model_kind.reads_lengths:
        return answer, [(("B", frames or "T", *shape), dtype), (("B",), jnp.int32)]
    unseen = experiment.kind.unseen_steps(config)

    def answer_seen(inputs):
        rest = jnp.zeros((inputs.shape[0], unseen, *inputs.shape[2:]), inputs.dtype)
        return answer(jnp.concatenate([inputs, rest], 1))

    return answer_seen, [(("B", steps - unseen, *shape), dtype)]


def stepwise(experiment: Experiment, params: Any):
    """`(start, step, frame)`: the same for one frame at a time.

    Returns:
      `start() -> state`, a tuple of arrays; `step(state, frame) -> (state, output)`;
      shape and dtype of a frame, uint8 `[H, W, C]`, or float32 `[F]`.

    Raises:
      ValueError: the network has to see a whole clip.
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
        output = experiment.kind.stream_answer(experiment.task, output)
        return tuple(jax.tree.leaves(state)), output

    return start, step, (shape, jnp.float32 if spec.features else jnp.uint8)
