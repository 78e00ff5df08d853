"""Compiles the training step for TPUs that are not here, by the real compiler."""

import contextlib
import dataclasses
import os
import re
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments import build, network, updates
from experiments.config import Config, UsageError, preset
from lstm_jax import training

# Quiet: libtpu would look for the machine's own TPU.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


# What the step of a preset reads: pictures kept on every chip, None if they are
# streamed, and the shape of one.
READS = {
    "fashion-rows": dict(examples=54_000, image=(28, 28, 1)),
    "moving-fashion": dict(examples=None, image=(20, 64, 64, 1)),
}


def compile_for(
    topology: str, config: Config, *, examples: int | None, image: tuple[int, ...]
) -> dict[str, Any]:
    """Compiles the training step of `config` for a TPU slice.

    Args:
      topology: such as "v5e:2x2".
      config: of a run; its batch is that of all chips.
      examples: N, training examples kept on every chip; None: batches are streamed.
      image: the shape of each, (H, W, C), or (T, H, W, C) of a clip.

    Returns:
      "chips", "seconds" of compilation, "all_reduces" in the program, and in bytes on
      one chip: "state", "aliased" (of the state, updated in place), "arguments" (the
      state, the pictures or batches), "temporary", "program".

    Raises:
      RuntimeError: libtpu is not installed, or knows no such topology.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(ImportError):  # where libtpu is no part of this jax
        import libtpu

        os.environ.setdefault("TPU_LIBRARY_PATH", libtpu.get_library_path())
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:
        raise RuntimeError(
            f"no compiler for {topology} ({str(error).splitlines()[0][:200]}); "
            "it comes with `pip install libtpu`"
        ) from error
    mesh = training.data_mesh(described.devices)
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "data"))
    about = build.Facts(
        dataset="pictures",
        classes=[str(i) for i in range(10)],
        image_shape=list(image),
        outputs=10,
        pixel_offset=[72.9] * image[-1],
        pixel_scale=[0.011] * image[-1],
    )
    task = build.task(config, about)
    tx = updates.optimizer(config, updates.schedule(config, 1000))
    run = training.jit_updates(
        updates.loss_fn(config, about, task), tx, mesh, accumulate=config.accumulate
    )

    def abstract(tree, sharding):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    def init():
        params = network.init_params(config, about, jax.random.key(0))
        return training.TrainState(
            jnp.int32(0), params, tx.init(params), jax.random.key(0)
        )

    shape = (config.steps_per_dispatch, config.batch_size)

    def pictures(*lead):
        return {
            "inputs": jax.ShapeDtypeStruct((*lead, *image), np.uint8),
            "targets": jax.ShapeDtypeStruct(lead, np.int32),
        }

    batches = {
        "mask": jax.ShapeDtypeStruct(shape, np.float32),
        "progress": jax.ShapeDtypeStruct(shape, np.float32),
    }
    if examples is None:
        data, batches = None, batches | pictures(*shape)
    else:
        data = pictures(examples)
        batches["rows"] = jax.ShapeDtypeStruct(shape, np.int32)
    with _traced_for_tpu():
        since = time.perf_counter()
        state = abstract(jax.eval_shape(init), everywhere)
        compiled = run.lower(
            state,
            abstract(data, everywhere),
            abstract(batches, split),
            jax.ShapeDtypeStruct((), np.int32),
        ).compile()
        seconds = time.perf_counter() - since
    memory = compiled.memory_analysis()
    return {
        "chips": mesh.size,
        "seconds": seconds,
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", compiled.as_text())),
        "state": sum(
            leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
        ),
        "aliased": memory.alias_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }


def table(name: str, topologies: tuple[str, ...], batch_per_chip: int) -> None:
    """Prints what the step of a preset needs on each slice."""
    if name not in READS:
        raise UsageError(f"--preset={name}: choose {' or '.join(READS)}")
    resident = READS[name]["examples"]
    where = "streamed" if resident is None else f"{resident:,} resident"
    print(
        f"{name}, {batch_per_chip} examples a chip, {where}; MB a chip\n"
        "                        compile s  all-reduces  in place of state"
        "   arguments  temporary"
    )
    for topology in topologies:
        for precision in ("float32", "bfloat16"):
            chips = int(np.prod([int(n) for n in topology.split(":")[1].split("x")]))
            config = dataclasses.replace(
                preset(name),
                precision=precision,
                batch_size=batch_per_chip * chips,
            )
            found = compile_for(topology, config, **READS[name])
            print(
                f"{topology:<10}{precision:<14}{found['seconds']:>9.1f}"
                f"{found['all_reduces']:>13}"
                f"{found['aliased'] / 1e6:>10.2f} of {found['state'] / 1e6:.2f}"
                f"{found['arguments'] / 1e6:>11.1f}{found['temporary'] / 1e6:>11.1f}"
            )


@contextlib.contextmanager
def _traced_for_tpu():
    # Engines look at the default backend for the form that is fastest on it.
    with mock.patch.object(jax, "default_backend", lambda: "tpu"):
        yield
