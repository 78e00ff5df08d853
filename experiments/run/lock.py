"""The lock on a run's folder, so that only one process at a time writes to it."""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.errors import UsageError

NAME = ".lock"


@contextlib.contextmanager
def locked(directory: Path | None) -> Iterator[None]:
    """Holds the lock of a folder, which is created if it does not exist.

    The lock is the operating system's `flock`, which is released when the process
    ends, even by a crash. On a file system without locks, the lock file names its
    process; the lock is free if that process has ended or the machine was rebooted.

    Args:
      directory: the folder; None for processes that write nothing: no lock is taken.

    Raises:
      UsageError: another process holds the lock; the message names it.
    """
    if directory is None:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    file = _acquire(path)
    try:
        os.truncate(file, 0)
        os.pwrite(file, json.dumps(_this_process()).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


def _acquire(path: Path) -> int:
    """Opens the lock file and takes the lock; returns the file descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            holder, ours = _holder(file), _flock(file)
            if ours is None:
                ours = not _alive(holder)
            if not ours:
                raise UsageError(_message(path.parent, holder))
            if _same(file, path):  # else the last holder has just deleted the file
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _flock(file: int) -> bool | None:
    """Tries to take the lock.

    Returns:
      Whether this process holds it; None if the system or disk has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": f"{datetime.now():%Y-%m-%d %H:%M}",
        "boot": _boot(),
        "ticks": _ticks(os.getpid()),
    }


def _holder(file: int) -> dict[str, Any]:
    """The process that the lock file names; {} if it names none."""
    try:
        values = json.loads(os.pread(file, 1 << 16, 0))
        return values if values["host"] and int(values["pid"]) > 0 else {}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process may still run; True for one on another host."""
    if not holder:
        return False
    if holder["host"] != platform.node():
        return True
    if holder.get("boot") != _boot():
        return False
    if _boot():
        return _ticks(holder["pid"]) == holder.get("ticks")
    try:
        os.kill(holder["pid"], 0)
    except OSError:
        return False
    return True


def _boot() -> str | None:
    """The identifier of the current boot of a Linux machine; None elsewhere."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _ticks(pid: int) -> int | None:
    """The start time of a process in Linux clock ticks; None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _message(directory: Path, holder: dict[str, Any]) -> str:
    who = "another process"
    if holder:
        since = holder.get("since")
        who = f"process {holder['pid']} on {holder['host']} since {since}"
    return (
        f"{directory} is in use by {who}: wait for it to end, or give another "
        f"--run-dir (if no such process runs, delete {directory / NAME})"
    )
