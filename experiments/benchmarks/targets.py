"""Target devices for compilation, and where their compilers are installed."""

import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from string import Template

from experiments.errors import UsageError

# Topologies of which one device is used; "v5e:2x4" means all devices of that slice.
TPUS = {"v4": "2x2x1", "v5e": "2x2", "v5p": "2x2x1", "v6e": "2x2"}


@dataclasses.dataclass(frozen=True)
class _Gpu:
    name: str
    memory: int
    """Bytes."""
    bandwidth: int
    """Bytes per second."""


GPUS = {
    "h100": _Gpu("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_320_000_000),
    "h200": _Gpu("NVIDIA H200 141GB HBM3e", 151_397_597_184, 4_800_000_000_000),
}

# XLA's GpuTargetConfig in text form: the chip of both GPUs, as in XLA's own
# descriptions, and the versions of the libraries that a program may call.
_CONFIG = Template("""
platform_name: "CUDA"
device_description_str: "$name"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 8 patch: 0 }
gpu_device_info {
  name: "$name"
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0a"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
  device_memory_size: $memory
  memory_bandwidth: $bandwidth
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  core_count: 132
  fpus_per_core: 128
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  device_address_bits: 64
  pcie_bandwidth: 34359738368
  ecc_enabled: true
  device_interconnect_info { active_links: 18 }
}
""")


def platform(target: str) -> str:
    """The platform of a target, "tpu" or "cuda".

    Raises:
      UsageError: an unknown target.
    """
    generation, _, slice_shape = target.partition(":")
    if generation in TPUS:
        return "tpu"
    if generation in GPUS and not slice_shape:
        return "cuda"
    raise UsageError(
        f"--targets {target}: choose from {', '.join((*TPUS, *GPUS))}, or a slice "
        "such as v5e:2x4"
    )


@functools.cache  # another call would return different device objects
def devices(target: str) -> list:
    """The devices to compile for; call it in a process with `environment(target)`.

    Raises:
      RuntimeError: the compiler is missing, or does not support the slice.
    """
    from jax.experimental import topologies

    kind = platform(target)
    generation, _, slice_shape = target.partition(":")
    try:
        if kind == "cuda":
            described = topologies.get_topology_desc(
                platform="cuda",
                topology="1x1x1",
                target_config=_CONFIG.substitute(dataclasses.asdict(GPUS[target])),
            )
        else:
            described = topologies.get_topology_desc(
                platform="tpu",
                topology_name=f"{generation}:{slice_shape or TPUS[generation]}",
            )
    except Exception as error:
        raise RuntimeError(
            f"no compiler for {target} ({str(error).splitlines()[0][:200]})"
        ) from error
    return described.devices if slice_shape else described.devices[:1]


def compiler(kind: str) -> Path | None:
    """The folder of a platform's compiler; None if it is not installed.

    It is searched in `own_folder`, then on `sys.path`.
    """
    wanted = {"tpu": "libtpu/libtpu.so", "cuda": "jax_plugins/*/xla_cuda_plugin.so"}
    for folder in (own_folder(kind), *map(Path, sys.path)):
        if any(folder.glob(wanted[kind])):
            return folder
    return None


def own_folder(kind: str) -> Path:
    """A folder outside `sys.path`, so that JAX does not look for the device."""
    return Path(sys.prefix) / {"tpu": "libtpu", "cuda": "cuda-pjrt"}[kind]


def how_to_install(kind: str) -> str:
    """An error message with the command that installs a platform's compiler."""
    cuda = f"jax-cuda12-pjrt=={metadata.version('jaxlib')}"
    package = {"tpu": "libtpu", "cuda": cuda}[kind]
    return (
        f"no compiler for {kind}: pip install --no-deps --target={own_folder(kind)} "
        f"{package} (in a separate folder, so that JAX does not look for the device)"
    )


def environment(target: str) -> dict[str, str]:
    """The environment of a process that compiles for `target`."""
    kind = platform(target)
    root = Path(__file__).parents[2]
    paths = [str(compiler(kind)), str(root), os.environ.get("PYTHONPATH", "")]
    wanted = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    if kind == "tpu":
        # Without these, libtpu would look for a TPU of this machine and lock it.
        wanted |= {
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_LIBRARY_PATH": str(compiler(kind) / "libtpu" / "libtpu.so"),
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
        }
    return wanted


def present(targets: tuple[str, ...]) -> Iterator[str]:
    """Yields the targets whose compiler is installed; prints a line for the others."""
    told = set()
    for target in targets:
        kind = platform(target)
        if compiler(kind):
            yield target
        elif kind not in told:
            told.add(kind)
            print(how_to_install(kind))
