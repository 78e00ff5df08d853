"""Devices: accelerator selection, the mesh, batch-size checks, several processes."""

import contextlib
import hashlib
import os
import pathlib
import platform
import sys
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

# The CPU backend stays available for jax.debug.print and callbacks.
PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}
_COUNT_FLAG = "host_platform_device_count"  # an XLA flag
INSTALL = {"gpu": 'pip install "jax[cuda13]"', "tpu": 'pip install "jax[tpu]"'}


class AcceleratorError(RuntimeError):
    """The requested accelerator cannot be used; the message is complete."""


def accelerator_message(name: str, error: Exception, available: str) -> str:
    """Explains why an accelerator failed, what is available, and a remedy.

    Args:
      name: "auto", "cpu", "gpu" or "tpu".
      error: the exception that JAX raised.
      available: description of the devices that JAX has.

    Returns:
      The message, a few lines.
    """
    text = str(error).strip()
    low = text.lower()

    def says(*parts: str) -> bool:
        return any(part in low for part in parts)

    install = INSTALL.get(name)
    if says("already in use", "resource busy", "lockfile", "busy or unavailable"):
        cause = "another process holds it."
        todo = (
            "Stop that process. In a notebook the kernel itself holds the device: "
            "call train(...) in the kernel instead of starting a second process."
        )
        install = None
    elif says("unknown backend"):
        cause = "JAX was already initialized without it in this process."
        todo = (
            "Restart Python (or the notebook kernel) and choose the accelerator "
            "before any other use of JAX; JAX_PLATFORMS must not exclude it."
        )
        if name == "gpu":
            cause = f"no NVIDIA GPU is visible to JAX, or {cause}"
    elif says("jellyfish", "no_device", "no cuda-capable", "no visible", "no devices"):
        cause = f"its driver is installed, but this machine has no {name.upper()}."
        todo = "Choose a machine or runtime that has one."
    elif name == "gpu" and isinstance(error, AssertionError) and not text:
        cause = "no NVIDIA GPU is visible to JAX, or JAX has no CUDA plugin."
        todo = "Choose a machine or runtime that has one and install the plugin."
    elif says("failed to open libtpu", "known backends", "no module named"):
        cause = "JAX is installed without support for it."
        todo = "Install it, then restart Python (or the notebook kernel)."
    else:
        cause = (text.splitlines() or [type(error).__name__])[0]
        todo = "Check the driver and the installation."
    lines = [f"accelerator={name} cannot be used: {cause}"]
    lines.append(f"Available to JAX: {available}.")
    lines.append(todo)
    if install:
        lines.append(f"Install: {install}")
    if name not in ("auto", "cpu"):
        lines.append("Or use any available device: --accelerator=auto")
    elif name == "auto":
        lines.append("Or run without it: --accelerator=cpu")
    return "\n".join(lines)


def select_accelerator(name: str = "auto") -> list[jax.Device]:
    """Initializes JAX on one kind of device; call it before any other use of JAX.

    Args:
      name: "auto" (JAX's default), "cpu", "gpu" (NVIDIA) or "tpu".

    Returns:
      All devices of that kind.

    Raises:
      ValueError: `name` is not one of the four.
      AcceleratorError: the device is absent, not installed, or in use by another
        process.
    """
    if name != "auto" and name not in PLATFORMS:
        known = ", ".join(["auto", *PLATFORMS])
        raise ValueError(f"accelerator: got {name!r}, want one of {known}")
    before = jax.config.jax_platforms
    try:
        if name == "auto":
            return jax.devices()
        jax.config.update("jax_platforms", PLATFORMS[name])
        return jax.devices(name)
    except Exception as error:  # AssertionError, RuntimeError, plugin errors
        jax.config.update("jax_platforms", before)
        raise AcceleratorError(
            accelerator_message(name, error, _available())
        ) from error


def _available() -> str:
    """Description of the devices that JAX has."""
    before = jax.config.jax_platforms
    for platforms in (before, "cpu"):
        try:
            jax.config.update("jax_platforms", platforms)
            devices = jax.devices()
            return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
        except Exception:  # the default backend may be the broken accelerator
            continue
        finally:
            jax.config.update("jax_platforms", before)
    return "no device"


def split_cpu() -> None:
    """Makes each CPU core a JAX device; call it before any other use of JAX.

    XLA's CPU backend runs a small matrix product on one core, and independent loops one
    after another; with one device per core all cores are used. No effect if JAX is
    already initialized, or if XLA_FLAGS sets the number of devices.
    """
    if _COUNT_FLAG in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)


def device_memory(device: jax.Device) -> int | None:
    """Bytes that a device can hold, of a CPU those of the machine; None if unknown."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:  # of a container
        limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text()
        return min(found, int(limit))
    except (OSError, ValueError):
        return found


def are_cores(devices: Sequence[jax.Device]) -> bool:
    """Whether the devices are cores of one CPU, as made by `split_cpu`."""
    several = len(devices) > 1 and devices[0].platform == "cpu"
    flagged = _COUNT_FLAG in os.environ.get("XLA_FLAGS", "")
    return several and not flagged and jax.process_count() == 1


def enough_cores(
    devices: Sequence[jax.Device], pieces: int, least: int = 1
) -> Sequence[jax.Device]:
    """The cores among which `pieces` of work are distributed evenly.

    Args:
      devices: of a run; returned unchanged if they are not CPU cores.
      pieces: units of work, such as examples of a batch.
      least: minimum number of units per core.
    """
    if not are_cores(devices):
        return devices
    fit = range(1, min(len(devices), pieces // least) + 1)
    return devices[: max((n for n in fit if pieces % n == 0), default=1)]


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A one-dimensional mesh with the axis "data" over `devices`."""
    # In the order of processes: each process reads contiguous rows.
    devices = sorted(devices, key=lambda device: device.process_index)
    # Explicit axes, the default of newer JAX versions, break a plain scan over zeros.
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def check_batch_size(
    batch_size: int, n_devices: int, grad_accum_steps: int = 1
) -> None:
    """Checks that a batch splits evenly over devices and accumulation steps.

    Args:
      batch_size: global batch size.
      n_devices: devices of all processes.
      grad_accum_steps: gradient accumulation steps.

    Raises:
      ValueError: it does not; the message names the nearest valid sizes.
    """
    shares = n_devices * grad_accum_steps
    if batch_size > 0 and batch_size % shares == 0:
        return
    below = max(batch_size, 0) // shares * shares
    sizes = [str(size) for size in (below, below + shares) if size > 0]
    parts = f" in {grad_accum_steps} accumulation steps" if grad_accum_steps > 1 else ""
    raise ValueError(
        f"batch size {batch_size} does not split evenly over {n_devices} devices"
        f"{parts}: use {' or '.join(sizes)}"
    )


def start_processes(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 60,
) -> None:
    """Initializes JAX's distributed runtime with the other processes of a run.

    Call it before any other use of JAX, in every process. On TPU pods, Slurm, Open MPI
    and Kubernetes JAX finds the arguments itself. Later, if a process dies or does not
    respond for `timeout` seconds, the others end with an error.

    Args:
      coordinator: "host:port" of process 0.
      processes: number of processes.
      process_id: index of this one, from 0.
      timeout: in seconds.

    Raises:
      AcceleratorError: the other processes could not be reached in time.
    """
    given = dict(
        coordinator_address=coordinator,
        num_processes=processes,
        process_id=process_id,
    )
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=5 * timeout,
            heartbeat_timeout_seconds=timeout,
        )
    except Exception as error:  # RuntimeError, ValueError, XlaRuntimeError
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if None in given.values():
            todo = (
                "JAX did not detect the other processes: give --coordinator="
                "HOST:PORT (of process 0), --processes=N and --process-id=I"
            )
        else:
            todo = (
                f"start all {processes} processes with the same --coordinator, which "
                "every one of them must reach, and ids from 0"
            )
        raise AcceleratorError(
            f"the processes of this run did not connect: {cause}\n{todo}"
        ) from error


def barrier(what: str) -> None:
    """Blocks until all processes of the run reach the barrier `what`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def lost_process(error: Exception) -> str | None:
    """The message if `error` was caused by another process that died; else None."""
    lost = isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1
    if not lost:
        return None
    return (
        f"error: another process of this run died ({str(error).splitlines()[0]}). "
        "Restart all processes, on the devices that are available: the run resumes "
        "from its last checkpoint"
    )


def abort_process(code: int) -> None:
    """Ends this process of several with an exit code, without waiting for the others.

    Does nothing if there is only one process.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def enable_compilation_cache(folder: str | os.PathLike) -> None:
    """Enables JAX's persistent compilation cache, unless it is already configured.

    Each kind of processor has its own subfolder.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        kind = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    except OSError:
        kind = platform.processor()
    kind = hashlib.sha256(f"{platform.machine()} {kind}".encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder, kind)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
