"""A person's mistake, and how an error is told on the command line."""

import traceback
from pathlib import Path


class UsageError(ValueError):
    """A person's mistake, with a message that says what to do."""


def explain(error: BaseException) -> str:
    """One line for a mistake that our own code found; a traceback for any other."""
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(__file__).parents[1]
    found_by_us = frames and any(
        Path(frames[-1].filename).is_relative_to(root / package)
        for package in ("lstm_jax", "experiments")
    )
    if found_by_us or isinstance(error, OSError):
        return f"error: {error}"
    return "".join(traceback.format_exception(error)).rstrip()
