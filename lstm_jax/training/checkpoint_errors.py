"""What goes wrong with checkpoints, in one line each."""

import contextlib
import errno
import pathlib
from collections.abc import Iterator


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message is complete."""


class CorruptCheckpoint(CheckpointError):
    """The files of a checkpoint are damaged or missing."""


@contextlib.contextmanager
def reading(directory: pathlib.Path, step: int) -> Iterator[None]:
    """Turns a failed read of a checkpoint into one clear line."""
    try:
        yield
    except CheckpointError:  # it does not fit
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise CorruptCheckpoint(
            f"checkpoint {step} in {directory} is corrupt ({_first_line(error)})"
        ) from error


def write_error(directory: pathlib.Path, error: Exception) -> CheckpointError | None:
    """What to raise for a failed write; None if it is no fault of the disk."""
    full = _disk_full(error)
    if not full and not isinstance(error, OSError):
        return None
    cause = _first_line(error)
    if full:
        cause = "the disk is full: free some space or choose another directory"
    return CheckpointError(
        f"cannot write a checkpoint to {directory}: {cause}; "
        "the checkpoints before it are kept"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "no space left" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
