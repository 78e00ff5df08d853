"""Work on several cores, where threads would wait for each other."""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

CHUNK = 32  # results that a process hands over at once


def in_processes(
    function: Callable[[int], Any], number: int, processes: int | None = None
) -> Iterator[Any]:
    """`function(0), …, function(number - 1)`, in this order.

    Processes are started as programs of their own, which read no script of the caller's
    again, and are ended with the iterator.

    Args:
      function: of an integer; it and its results can be pickled. A `functools.partial`
        of a function of a module, say.
      number: of results.
      processes: default as many as there are cores, and none but this one for few
        results.

    Yields:
      The results.

    Raises:
      RuntimeError: a process ended before its work was done; it has printed why.
    """
    if processes is None:
        allowed = getattr(os, "sched_getaffinity", None)
        cores = len(allowed(0)) if allowed else os.cpu_count() or 1
        processes = min(cores, number // (8 * CHUNK))
    if processes < 2 or not sys.executable:
        yield from map(function, range(number))
        return
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", f"from {__name__} import _work; _work()"]
    running = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the caller, who ends them
        )
        for _ in range(processes)
    ]
    try:
        for first, process in enumerate(running):
            with contextlib.suppress(BrokenPipeError), process.stdin as job:
                pickle.dump((function, number, first, processes), job)
        for chunk in range(-(-number // CHUNK)):
            yield from _received(running[chunk % processes])
    finally:
        for process in running:
            process.kill()
            process.stdout.close()
            process.wait()


def _received(process: subprocess.Popen) -> list[Any]:
    try:
        return pickle.load(process.stdout)
    except EOFError:
        code = process.wait()
        raise RuntimeError(f"a process that worked beside ended with {code}") from None


def _work() -> None:
    """One of several processes: every one of so many chunks is its own."""
    function, number, first, processes = pickle.load(sys.stdin.buffer)
    chunks = range(0, number, CHUNK)
    for begin in islice(chunks, first, None, processes):
        numbers = range(begin, min(begin + CHUNK, number))
        pickle.dump(list(map(function, numbers)), sys.stdout.buffer)
        sys.stdout.buffer.flush()
