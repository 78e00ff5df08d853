"""Decoded arrays on disk: made once, written beside and renamed, loaded at once."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data.dataset import DataError

_IN_MEMORY = 1 << 30  # bytes; a larger array is mapped from the disk


def default_root() -> Path:
    """$LSTM_JAX_DATA, or ~/.cache/lstm_jax."""
    asked = os.environ.get("LSTM_JAX_DATA") or "~/.cache/lstm_jax"
    return Path(asked).expanduser().absolute()


@contextlib.contextmanager
def cache_root(data_dir: str | os.PathLike | None) -> Iterator[tuple[Path, list[str]]]:
    """The folder to cache in: `data_dir`, $LSTM_JAX_DATA, or ~/.cache/lstm_jax.

    Yields:
      (folder, notes). Where the default cannot be written, a temporary folder that is
      gone afterwards, and a note.

    Raises:
      DataError: a folder that was asked for cannot be written.
    """
    asked = data_dir or os.environ.get("LSTM_JAX_DATA")
    folder = Path(data_dir or default_root()).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or str(error)
        if asked:
            raise DataError(
                f"{folder}: cannot be written ({reason}); "
                "give another folder as --data.dir=DIR"
            ) from error
        with tempfile.TemporaryDirectory() as temporary:
            note = f"{folder} cannot be written ({reason}): nothing is kept for later"
            yield Path(temporary), [note]
        return
    yield folder, []


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends well.

    Raises:
      DataError: the disk is full. Whatever goes wrong, nothing half-written stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    old = beside.with_name(beside.name + ".old")
    stale = _identity(target)
    try:
        beside.mkdir()
        yield beside
        # If another process was quicker, its folder holds the same and stays: it may
        # be read already.
        if _identity(target) not in (stale, None):
            return
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        try:
            beside.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left to write {target}; make room, or give another folder "
                "as --data.dir=DIR"
            ) from error
        raise
    finally:
        _remove(beside)
        _remove(old)


def _remove(folder: Path) -> None:
    """Deletes a folder, in which a thread may still be finishing a file."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def new_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of zeros, mapped to be filled; its space is reserved first.

    The file would be sparse otherwise, and a disk that is full when its pages are
    written ends the process with SIGBUS.

    Raises:
      DataError: the disk has no room for it.
    """
    needed, folder = math.prod(shape) * np.dtype(dtype).itemsize, path.parent
    free = shutil.disk_usage(folder).free
    try:
        if needed > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"no space left in {folder.parent}: the arrays take "
            f"{needed / 2**30:,.2f} GiB more, {free / 2**30:,.2f} GiB are free; make "
            "room, give a smaller --data.size (or fewer --data.frames), or another "
            "folder as --data.dir=DIR"
        ) from error
    return array


def _identity(folder: Path) -> int | None:
    """Which folder it is, even under another name; None for none."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def cached(
    root: Path, slot: str, key: Any, build: Callable[[Path], dict]
) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and facts of a data set, from the cache or else built into it.

    Args:
      root: the cache folder.
      slot: readable name; a slot holds one entry, that of its latest key.
      key: JSON value of everything that the content depends on.
      build: writes NAME.npy files into the folder it is given, returns JSON facts.

    Returns:
      ({NAME: array}, facts). Arrays over 1 GiB are mapped, read-only.
    """
    slot = re.sub(r"[^\w.-]+", "_", slot)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    entry = root / "arrays" / f"{slot}={digest}"
    for _ in range(3):  # another process may clear away what is not its own
        try:
            return _read(entry)
        except (OSError, ValueError, EOFError, KeyError):  # absent or damaged: make it
            pass
        with written_beside(entry) as folder:
            facts = build(folder)
            (folder / "facts.json").write_text(json.dumps(facts))
        for other in entry.parent.glob(f"{slot}=*"):
            if other != entry:
                shutil.rmtree(other, ignore_errors=True)
    return _read(entry)


def _read(entry: Path) -> tuple[dict[str, np.ndarray], dict]:
    facts = json.loads((entry / "facts.json").read_text())
    arrays = {}
    for path in entry.glob("*.npy"):
        mode = "r" if path.stat().st_size > _IN_MEMORY else None
        arrays[path.stem] = np.load(path, mmap_mode=mode)
    return arrays, facts
