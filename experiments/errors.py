"""Errors that a user can cause, and how the command line reports errors."""

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from experiments.terminal import printable

# Exit code of a run that was stopped and can be resumed (EX_TEMPFAIL).
STOPPED = 75


class UsageError(ValueError):
    """An error that the user can fix; the message says where and how."""


def check_once(words: Iterable[str]) -> None:
    """Raises UsageError if a flag is given twice."""
    for word, count in Counter(words).items():
        if count > 1:
            raise UsageError(f"{word} is given {count} times; give it once")


def explain(error: BaseException) -> str:
    """The message for standard error.

    One line for errors raised by this project, for OSError and for lack of memory;
    else the traceback.
    """
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):  # JAX's
        cause = str(error).splitlines()[0].partition(": ")[2]
        return (
            f"error: out of memory ({cause}): give a smaller --batch-size, more "
            "--grad-accum-steps, or a smaller network"
        )
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(__file__).parents[1]
    ours = frames and any(
        Path(frames[-1].filename).is_relative_to(root / package)
        for package in ("lstm_jax", "experiments")
    )
    if ours or isinstance(error, OSError):
        return printable(f"error: {error}")
    return "".join(traceback.format_exception(error)).rstrip()


def exit_code(command: Callable[[], int | None], interrupted: str) -> int:
    """Calls a command that trains, prints its errors, and returns its exit code.

    Args:
      command: to call.
      interrupted: message for Ctrl-C before there is anything to save.

    Returns:
      The result of `command`, or 0; 2 after an error message; 75 if SIGTERM and 130 if
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
