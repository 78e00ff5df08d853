"""A person's mistake, and how an error is told on the command line."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# The exit code of a run that was told to stop and can be resumed (EX_TEMPFAIL).
STOPPED = 75


class UsageError(ValueError):
    """A person's mistake, with a message that says what to do."""


def explain(error: BaseException) -> str:
    """One line for a mistake that our own code found, and where memory does not do.

    Any other error gets its traceback.
    """
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):  # JAX's
        cause = str(error).splitlines()[0].partition(": ")[2]
        return (
            f"error: out of memory ({cause}): give a smaller --batch-size, more "
            "--grad-accum-steps, or a smaller network"
        )
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(__file__).parents[1]
    found_by_us = frames and any(
        Path(frames[-1].filename).is_relative_to(root / package)
        for package in ("lstm_jax", "experiments")
    )
    if found_by_us or isinstance(error, OSError):
        return f"error: {error}"
    return "".join(traceback.format_exception(error)).rstrip()


def exit_code(command: Callable[[], int | None], interrupted: str) -> int:
    """Calls a command that trains, and says how it ended.

    Args:
      command: what it does.
      interrupted: a line for Ctrl-C where there is nothing to save.

    Returns:
      What `command` returns, or 0; 2 after one clear message; 75 if SIGTERM, 130 if
      Ctrl-C stopped it.
    """
    try:
        return command() or 0
    except KeyboardInterrupt:
        print(interrupted)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        from lstm_jax import training

        if isinstance(error, training.Stopped):
            print(error)
            return STOPPED if error.signal == "SIGTERM" else 130
        print(training.lost_process(error) or explain(error), file=sys.stderr)
        training.abort_process(2)
        return 2
