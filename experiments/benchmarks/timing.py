"""Timing of layers: interleaved in one process, and the peak of the machine."""

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.run.record import environment
from lstm_jax import training

_PAUSE = 0.01  # s, in which spinning threads go to sleep
_SAMPLE = 0.02  # s; faster candidates are called several times per sample
_PEERS = ("torch", "dm-haiku", "keras", "equinox")


class Timed(NamedTuple):
    """A compiled candidate; `run` returns when its result is ready."""

    run: Callable[[], Any]
    compile_s: float | None = None
    temporary_bytes: int | None = None


class Measured(NamedTuple):
    """Seconds per call in each round; reasons of candidates that did not run."""

    seconds: dict[str, np.ndarray]
    timed: dict[str, Timed]
    refused: dict[str, str]


def compiled(
    apply: Callable, params: Any, xs, width: int, kind: str, cores: bool = False
) -> Timed:
    """Compiles a layer of any JAX library.

    Args:
      apply: `(params, xs) -> ys`, or the final state if `kind` is "state".
      params: a pytree of float arrays.
      xs: inputs `[..., F]`.
      width: features of `ys`; its other axes are those of `xs`.
      kind: "forward": the outputs; "gradient": the gradient of the sum of squared
        outputs by `params`; "state": the same for the final state.
      cores: split the second axis of `xs`, the batch, over CPU cores as devices.

    Raises:
      ValueError: the outputs have another shape.
    """
    ys, wanted = jax.eval_shape(apply, params, xs), (*xs.shape[:-1], width)
    if kind != "state" and ys.shape != wanted:
        raise ValueError(f"benchmark: outputs are {ys.shape}, but wanted {wanted}")

    def loss(params, xs):
        return sum(jnp.square(y).sum() for y in jax.tree.leaves(apply(params, xs)))

    run = apply if kind == "forward" else jax.grad(loss)
    if cores:
        mesh = training.data_mesh(jax.devices())
        share = P(None, "data")
        params = jax.device_put(params, NamedSharding(mesh, P()))
        xs = jax.device_put(xs, NamedSharding(mesh, share))
        of_core = run

        def of_all(params, xs):
            own = of_core(params, xs)
            return own if kind == "forward" else jax.lax.psum(own, "data")

        run = jax.shard_map(
            of_all,
            mesh=mesh,
            in_specs=(P(), share),
            out_specs=share if kind == "forward" else P(),
            check_vma=False,  # what psum returns is the same everywhere
        )
    start = time.perf_counter()
    whole = jax.jit(run)
    program = whole.lower(params, xs).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()  # None if the backend does not support it
    size = None if memory is None else int(memory.temp_size_in_bytes)
    return Timed(lambda: jax.block_until_ready(program(params, xs)), seconds, size)


def measure(
    candidates: dict[str, Callable[[], Timed]], rounds: int, rng: np.random.Generator
) -> Measured:
    """Times candidates in interleaved rounds, in a new random order each round.

    Before each sample there are a pause and an untimed call, because thread pools of
    other libraries may still be spinning and caches hold other data. A sample is one
    call, or several (at most ten) within 20 ms.

    On a busy machine, spinning threads (those of PyTorch) may wait for half a second;
    then the median differs from the minimum.

    Candidates are left out, with a reason, if they raise `NotImplementedError`, are not
    installed, fail, or need more memory than is free.
    """
    timed, refused, calls = {}, {}, {}
    for name, make in candidates.items():
        try:
            timed[name] = made = make()
            if (reason := _too_big(made.temporary_bytes)) is not None:
                raise NotImplementedError(reason)
            made.run()
            start = time.perf_counter()
            made.run()
            calls[name] = int(_SAMPLE / (time.perf_counter() - start))
        except ModuleNotFoundError as error:
            refused[name] = f"{error.name} is not installed"
        except (ImportError, RuntimeError) as error:
            refused[name] = " ".join(str(error).split())[:300] or repr(error)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in rng.permutation(list(calls)):
            run, count = timed[name].run, min(max(calls[name], 1), 10)
            time.sleep(_PAUSE)
            run()
            start = time.perf_counter()
            for _ in range(count):
                run()
            seconds[name].append((time.perf_counter() - start) / count)
    return Measured({k: np.array(v) for k, v in seconds.items()}, timed, refused)


def _too_big(size: int | None) -> str | None:
    """The reason if a candidate needs more memory than is free; else None."""
    free = None
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    elif jax.default_backend() == "cpu":
        available = _of_proc("meminfo", "MemAvailable")  # "123 kB"
        free = available and 1024 * int(available.split()[0])
    if not size or free is None or size < 0.8 * free:
        return None
    return f"needs {size / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free"


def _of_proc(file: str, name: str) -> str | None:
    """The first entry of a name in a file of /proc; None if there is none."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc", file).read_text().splitlines()
        line = next(line for line in lines if line.startswith(name))
        return line.partition(":")[2].strip()
    return None


def peak(dtype: str, size: int = 2048) -> float:
    """FLOP/s of a square matrix product of `size`, the best of five."""
    a = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
    a = a.astype(dtype)
    # On an accelerator a dispatch takes as long as a product, so several are chained.
    count = 1 if jax.default_backend() == "cpu" else 16

    @jax.jit
    def product(a):
        y = a
        for _ in range(count):
            y = y @ a
        return y

    jax.block_until_ready(product(a))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 * count / min(seconds)


def about() -> dict[str, Any]:
    """The environment of a measurement: versions, CPU, cores, allocator, flags."""
    found = {"date": datetime.date.today().isoformat(), **environment()}
    for name in _PEERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    model = _of_proc("cpuinfo", "model name")
    found["cpu"] = model or platform.processor() or platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)
    found["cores"] = len(affinity(0)) if affinity else os.cpu_count()
    kinds = ("MALLOC_", "OMP_", "GOMP_", "KMP_")  # allocator, and PyTorch's threads
    settings = {k: v for k, v in os.environ.items() if k.startswith(kinds)}
    for name in ("GLIBC_TUNABLES", "XLA_FLAGS"):
        if os.environ.get(name):
            settings[name] = os.environ[name]
    if os.environ.get("LD_PRELOAD"):  # may replace the allocator
        names = os.environ["LD_PRELOAD"].replace(":", " ").split()
        settings["LD_PRELOAD"] = " ".join(Path(name).name for name in names)
    return found | {"settings": settings}
