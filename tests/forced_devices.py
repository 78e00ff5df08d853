"""The environment of a process with several CPU devices."""

import os


def forced_devices(count: int) -> dict[str, str]:
    """XLA_FLAGS for that many devices, beside the flags of this process."""
    own = f"--xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {own}"}
