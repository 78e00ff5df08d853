"""What a run does before its first step; imports nothing heavy, to print at once."""

import sys
import time
from pathlib import Path

from experiments.terminal import is_terminal, printable

_EVERY = 0.2  # seconds between two refreshes of a count


class Status:
    """A line on standard output that says what a run prepares.

    In a terminal the line is rewritten, and erased at the end; elsewhere only its first
    text is printed. Use `with Status(...) as status:`.

    Args:
      text: the first text; "" shows nothing, as in all but one process of a run.
      stream: None: standard output.
    """

    def __init__(self, text: str, stream=None):
        self._stream = sys.stdout if stream is None else stream
        self._text, self._last = text, 0.0
        self._rewrites = bool(text) and is_terminal(self._stream)

    def __enter__(self):
        if self._rewrites:
            self.show(self._text)
        elif self._text:
            self._write(printable(self._text) + "\n")
        return self

    def __exit__(self, *_):
        if self._rewrites:
            self._write("\r\x1b[2K")

    def show(self, text: str) -> None:
        """Replaces the text."""
        self._text = text
        if self._rewrites:
            self._write(f"\r\x1b[2K{printable(text)} ...")

    def count(self, done: int, total: int) -> None:
        """Adds the number of files that were read, at most every 0.2 seconds."""
        now = time.monotonic()
        if self._rewrites and (now - self._last >= _EVERY or done == total):
            self._last = now
            more = "; comparing them" if done == total else ""
            text = f"{self._text}: {done:,} of {total:,} files{more}"
            self._write(f"\r\x1b[2K{printable(text)}")

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


def reading(config) -> Status:
    """The `Status` of a run that begins to read its data."""
    source = str(config.data.source)
    name = Path(source).expanduser().name or source
    return Status("" if config.distributed else f"reading {name}")
