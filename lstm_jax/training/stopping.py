"""Being told to stop: by the machine that is taken away, or by a person."""

import itertools
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stopped(RuntimeError):
    """The run was told to stop, and has saved what it had.

    Attributes:
      signal: "SIGTERM" or "SIGINT".
    """

    def __init__(self, message: str, signal: str):
        super().__init__(message)
        self.signal = signal


class StopSignals:
    """While it is entered, SIGTERM and SIGINT (Ctrl-C) wait to be asked for.

    With many processes it is JAX's runtime that hears SIGTERM, in any of them, and all
    are told to stop at the same call: each must therefore call as often as the others.
    A second SIGINT interrupts at once. Out of the main thread it hears nothing.

    >>> with StopSignals() as stop:
    ...     stop()
    False
    """

    def __init__(self):
        self.signal: str | None = None
        self._calls = itertools.count()
        self._before = {}

    def __enter__(self) -> "StopSignals":
        one = jax.process_count() == 1
        if one and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __call__(self) -> bool:
        """Whether to stop now."""
        if self.signal is None and jax.process_count() > 1:
            call = next(self._calls)
            if multihost_utils.reached_preemption_sync_point(call):
                self.signal = "SIGTERM"
        return self.signal is not None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == "SIGINT":
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
