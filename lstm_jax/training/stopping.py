"""Graceful stopping on SIGTERM (preemption) or SIGINT (Ctrl-C)."""

import itertools
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stopped(RuntimeError):
    """The run was stopped by a signal, after saving a checkpoint.

    Attributes:
      signal: "SIGTERM" or "SIGINT".
    """

    def __init__(self, message: str, signal: str):
        super().__init__(message)
        self.signal = signal


class StopSignals:
    """Context manager that records SIGTERM and SIGINT (Ctrl-C); call it to check.

    With several processes JAX's runtime receives SIGTERM, in any of them, and all
    processes stop at the same call: each must therefore call equally often. A second
    SIGINT interrupts at once. Outside the main thread no signals are recorded.

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
        """Whether a signal was received."""
        if self.signal is None and jax.process_count() > 1:
            call = next(self._calls)
            if multihost_utils.reached_preemption_sync_point(call):
                self.signal = "SIGTERM"
        return self.signal is not None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == "SIGINT":
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
