"""What all tests share: the CPU, a cache of compiled programs, and two limits.

Memory: a worker drops its compiled programs when it grows beyond `MEMORY`. Time: an
unmarked test that takes more than `SECONDS`, and does so again when it runs alone,
fails the run.
"""

import ctypes
import gc
import os
import resource
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from time import monotonic, process_time  # tests replace those of the module

# Set before jax is imported, and inherited by the processes that tests start. A test
# runs a program once or twice: optimising it costs more than it gains.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# How many lines of Python a lowered operation names as its origin: no test reads them.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Halves what is left of the time to compile; jax 0.12 has no such flag.
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 12):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    ).strip()

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tracing makes many objects and little garbage: collect it less often, since
# `pytest_runtest_logfinish` watches the memory.
gc.set_threshold(100_000, 50, 50)

FASTER = "--xla_cpu_use_fusion_emitters=false"  # as above
MEMORY = 2**30  # resident bytes of a worker
SECONDS = 5.0  # of CPU, on a machine as fast as REFERENCE says
SHARED = 3  # times as much may be spent on what tests share, in the first one's setup
WAITING = 12  # times as much may pass on the clock, where others use the machine
SECOND = "--second-run"  # the option of the run that a slow test gets alone
REFERENCE = 0.022  # CPU seconds of `_speed`'s loop on the machine of the limit


@pytest.fixture
def x64():
    """Float64 for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def optimization(request, monkeypatch):
    """Optimised programs, for a test marked `optimized` and the processes it starts."""
    if request.node.get_closest_marker("optimized") is None:
        yield
        return
    before = jax.config.read("jax_disable_most_optimizations")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
    # Not for the compilers of TPUs, which know no flag of the CPU's.
    flags = os.environ.get("XLA_FLAGS", "").replace(FASTER, "").strip()
    monkeypatch.setenv("XLA_FLAGS", flags)
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


# Memory


def _resident() -> int:
    """Resident bytes of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def pytest_collection_finish():
    gc.freeze()  # what is imported is no garbage: it is not looked through again


def pytest_runtest_logfinish():
    if _resident() > MEMORY:
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":  # glibc keeps what was freed unless told
            getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)


# Time


def _now() -> tuple[float, float]:
    """Seconds of CPU of this process and its children, and of the clock."""
    used = os.times()
    return sum(used[:4]), monotonic()


def _speed() -> float:
    """How many times slower than the reference this machine is, at least 1."""

    def loop():
        begin = process_time()
        sum(n * n for n in range(600_000))
        return process_time() - begin

    return max(1.0, min(loop() for _ in range(5)) / REFERENCE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.config.phase_began = _now()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Notes what each phase of a test took; the report travels to the controller."""
    report = yield
    now = _now()
    report.took = [b - a for a, b in zip(item.config.phase_began, now, strict=True)]
    report.limited = not {"slow", "notebooks", "process"} & {
        mark.name for mark in item.iter_markers()
    }
    item.config.phase_began = now
    return report


class _Limits:
    """Judges what all workers report, in the process that started them.

    What else the machine does during a run makes a test slower than it is: one that
    took too long runs a second time, alone and with nothing compiled before.
    """

    def __init__(self):
        self.speed = _speed()
        self.slowest = []  # (CPU seconds, seconds, phase, test)
        self.peaks = []  # resident kilobytes

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.peaks.append(getattr(node, "workeroutput", {}).get("peak", 0))

    def pytest_runtest_logreport(self, report):
        if not getattr(report, "limited", False):  # a worker that crashed notes nothing
            return
        cpu, clock = report.took
        limit = SECONDS * self.speed * (1 if report.when == "call" else SHARED)
        if cpu > limit or clock > limit * WAITING:
            self.slowest.append((cpu, clock, report.when, report.nodeid))

    def pytest_terminal_summary(self, terminalreporter):
        if self.peaks:
            peak = max(self.peaks) / 2**20
            terminalreporter.line(f"peak memory of a worker: {peak:.2f} GiB")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session):
        result = yield
        if not self.slowest or session.exitstatus:
            return result
        write = session.config.get_terminal_writer().line
        limit = f"{SECONDS:g} s of CPU"
        if self.speed > 1:
            limit += f" ({SECONDS * self.speed:.1f} s on a machine as slow as this)"
        write(f"\nAn unmarked test may take {limit}. Took longer:")
        for cpu, clock, phase, test in sorted(self.slowest, reverse=True):
            write(f"{cpu:6.1f} s ({clock:.1f} s) {phase} of {test}")
        tests = dict.fromkeys(test for *_, test in self.slowest)
        if session.config.getoption(SECOND):
            write("Make it smaller, or mark it `slow`.")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif not all([_again(test) for test in tests]):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result


def _again(test: str) -> bool:
    """Whether a test keeps to the limit in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        return not subprocess.call(
            [sys.executable, "-m", "pytest", "-q", SECOND, test],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        )


def pytest_addoption(parser):
    parser.addoption(
        SECOND, action="store_true", help="the time of each test is judged at once"
    )


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Limits())


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        session.config.workeroutput["peak"] = peak
