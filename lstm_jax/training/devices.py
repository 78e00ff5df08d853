"""Which devices a run uses: the accelerator, the mesh, and batch sizes that fit it."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

# The CPU stays available beside an accelerator: jax.debug.print and callbacks use it.
PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}
INSTALL = {"gpu": 'pip install "jax[cuda13]"', "tpu": 'pip install "jax[tpu]"'}


class AcceleratorError(RuntimeError):
    """The accelerator asked for cannot be used; the message is complete."""


def accelerator_message(name: str, error: Exception, available: str) -> str:
    """Says why accelerator `name` failed with `error`, what there is and what to do.

    Args:
      name: "auto", "cpu", "gpu" or "tpu".
      error: what JAX raised.
      available: the devices that JAX does have, as text.

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
        cause = "JAX was already started without it in this process."
        todo = (
            "Restart Python (or the notebook kernel) and choose the accelerator "
            "before any other use of JAX; JAX_PLATFORMS must not exclude it."
        )
        if name == "gpu":
            cause = f"no NVIDIA GPU is visible to JAX, or {cause}"
    elif says("jellyfish", "no_device", "no cuda-capable", "no visible", "no devices"):
        cause = f"its driver is installed, but this machine shows no {name.upper()}."
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
    lines.append(f"JAX has here: {available}.")
    lines.append(todo)
    if install:
        lines.append(f"Install: {install}")
    if name not in ("auto", "cpu"):
        lines.append("Or take what there is: --accelerator=auto")
    elif name == "auto":
        lines.append("Or run without it: --accelerator=cpu")
    return "\n".join(lines)


def select_accelerator(name: str = "auto") -> list[jax.Device]:
    """Starts JAX on one kind of device; call it before any other use of JAX.

    Args:
      name: "auto" (what JAX picks), "cpu", "gpu" (NVIDIA) or "tpu".

    Returns:
      All devices of that kind.

    Raises:
      ValueError: `name` is none of the four.
      AcceleratorError: the device is absent, not installed, or held by another process.
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
    """The devices that JAX has, as text."""
    before = jax.config.jax_platforms
    for platforms in (before, "cpu"):
        try:
            jax.config.update("jax_platforms", platforms)
            devices = jax.devices()
            return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
        except Exception:  # the default itself may be the broken accelerator
            continue
        finally:
            jax.config.update("jax_platforms", before)
    return "no device at all"


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A one-dimensional mesh with axis "data" over `devices`."""
    # Explicit axes, the default of newer JAX, break a plain scan over zeros.
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, n_devices: int) -> None:
    """Refuses a batch that does not split evenly over the devices.

    Raises:
      ValueError: with the nearest sizes that do.
    """
    if batch_size > 0 and batch_size % n_devices == 0:
        return
    below = max(batch_size, 0) // n_devices * n_devices
    sizes = [str(size) for size in (below, below + n_devices) if size > 0]
    raise ValueError(
        f"batch size {batch_size} does not split evenly over {n_devices} devices: "
        f"use {' or '.join(sizes)}"
    )
