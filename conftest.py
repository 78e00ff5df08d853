"""What every test shares: CPU, programs compiled quickly, and kept between runs."""

import os
from pathlib import Path

# Before jax is imported, and inherited by the processes that tests start.
# A program of a test runs once or little: what XLA gains by optimising costs more.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import gc

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """Float64 for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def optimization(request, monkeypatch):
    """XLA's optimisation, for tests marked `optimized`, and for processes they start."""
    if request.node.get_closest_marker("optimized") is None:
        yield
        return
    before = jax.config.jax_disable_most_optimizations
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def release_programs():
    """Compiled programs of one module of tests are not kept in memory for the next."""
    yield
    jax.clear_caches()
    gc.collect()
