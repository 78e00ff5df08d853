"""Programs to compile for target devices: layers and training steps."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments import optimization
from experiments.config import preset
from experiments.experiment import Experiment
from experiments.spec import DataSpec
from lstm_jax import lstm, training, unroll

# Data of a preset's training step: number of images resident on each device, None if
# streamed, and the shape of an image.
READS = {
    "fashion-rows": dict(examples=54_000, image=(28, 28, 1)),
    "moving-fashion": dict(examples=None, image=(20, 64, 64, 1)),
}


class Program(NamedTuple):
    """A function, the shapes of its arguments, and those of its recurrent weights."""

    run: Any
    arguments: tuple
    weights: tuple[tuple[int, ...], ...] = ()
    state: int = 0
    """Bytes of the training state that it replaces."""


def layer(
    *, engine: str, shape: tuple[int, int, int, int], kind: str, dtype: str
) -> Program:
    """An LSTM layer.

    Args:
      engine: of `unroll`, or "flax" for Flax's nn.RNN with an LSTMCell.
      shape: B, T, F, D.
      kind: "forward", or "gradient" with respect to the params.
      dtype: of the computation; params are float32.
    """
    batch, steps, inputs, width = shape
    xs = jax.ShapeDtypeStruct((steps, batch, inputs), dtype)
    if engine == "flax":
        model = nn.RNN(nn.LSTMCell(width, dtype=dtype), time_major=True)
        params = jax.eval_shape(model.init, jax.random.key(0), xs)
        apply, weights = model.apply, ((width, width), (width, 4 * width))
    else:
        cell = lstm(width)
        params = jax.eval_shape(lambda: cell.init(jax.random.key(0), (inputs,)))
        weights = ((width, 4 * width),)

        def apply(params, xs):
            return unroll(cell, params, xs, engine=engine, dtype=jnp.dtype(dtype)).ys

    def loss(params, xs):
        return jnp.square(apply(params, xs).astype(jnp.float32)).sum()

    run = {"forward": apply, "gradient": jax.grad(loss)}[kind]
    return Program(run, (params, xs), weights)


def step(
    mesh: Mesh,
    *,
    name: str,
    changes: dict[str, Any],
    examples: int | None,
    image: tuple[int, ...],
) -> Program:
    """The training step of a preset.

    Args:
      mesh: the devices.
      name: of the preset.
      changes: to its configuration; `batch_size` is the global batch size.
      examples: N, training examples resident on each device; None: streamed batches.
      image: shape of an example, (H, W, C), or (T, H, W, C) of a clip.
    """
    config = dataclasses.replace(preset(name), **changes)
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "data"))
    spec = DataSpec(
        dataset="images",
        classes=[str(i) for i in range(10)],
        image_shape=list(image),
        outputs=10,
        pixel_offset=[72.9] * image[-1],
        pixel_scale=[0.011] * image[-1],
    )
    experiment = Experiment(config, spec)
    tx = optimization.optimizer(config, optimization.schedule(config, 1000))
    run = training.jit_updates(
        experiment.loss, tx, mesh, grad_accum_steps=config.grad_accum_steps
    )

    def images(*lead):
        return {
            "inputs": jax.ShapeDtypeStruct((*lead, *image), np.uint8),
            "targets": jax.ShapeDtypeStruct(lead, np.int32),
        }

    shape = (config.steps_per_execution, config.batch_size)
    batches = {
        "mask": jax.ShapeDtypeStruct(shape, np.float32),
        "progress": jax.ShapeDtypeStruct(shape, np.float32),
    }
    if examples is None:
        data, batches = None, batches | images(*shape)
    else:
        data = images(examples)
        batches["rows"] = jax.ShapeDtypeStruct(shape, np.int32)
    state = placed(experiment.state_shapes(), everywhere)
    arguments = (
        state,
        placed(data, everywhere),
        placed(batches, split),
        jax.ShapeDtypeStruct((), np.int32),
    )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return Program(run, arguments, state=size)


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes of `tree` with a sharding."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Makes engines choose the implementation for another platform."""
    backend = {"cuda": "gpu"}.get(platform, platform)
    with mock.patch.object(jax, "default_backend", lambda: backend):
        yield
