"""Keras 3's `.weights.h5` files as arrays by path, with the package h5py.

HDF5 files may refer to other files, and claim arrays larger than the file: external
links, external storage and excessive sizes are refused before anything is read.
"""

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.interop.safetensors import write_bytes

_MOST = 10_000  # maximum number of arrays and groups in a file
_PASSED = {"optimizer", "seed_generator"}  # skipped: not part of the network


def read_keras(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by path, such as `layers/lstm/cell/vars/0`, without the optimizer's.

    Raises:
      ValueError: h5py is not installed, or the file is missing, damaged or
        inconsistent; one line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    h5py = _h5py(path)
    size, found = path.stat().st_size, {}
    try:
        with h5py.File(path, "r") as file:
            todo, seen, total = [("", file)], 0, 0
            while todo:
                prefix, group = todo.pop()
                for name in group:
                    seen += 1
                    if seen > _MOST:
                        raise _bad(path, "its groups have no end")
                    where = f"{prefix}{name}"
                    if name in _PASSED:
                        continue
                    link = group.get(name, getlink=True)
                    if not isinstance(link, h5py.HardLink):
                        raise _bad(path, f"{where} is a link to elsewhere")
                    entry = group[name]
                    if isinstance(entry, h5py.Group):
                        todo.append((f"{where}/", entry))
                        continue
                    total += _claimed(path, where, entry, size)
                    if total > size:
                        raise _bad(
                            path, f"its arrays claim {total:,} bytes, it has {size:,}"
                        )
                    found[where] = np.asarray(entry[()])
    except (OSError, RuntimeError, KeyError, TypeError, UnicodeError) as error:
        reason = " ".join(str(error).split())
        raise _bad(path, reason) from error
    return dict(sorted(found.items()))


def write_keras(path: str | Path, arrays: Mapping[str, Any]) -> Path:
    """Writes a file for `model.load_weights`, atomically.

    Raises:
      ValueError: h5py is not installed.
    """
    path, whole = Path(path).expanduser(), BytesIO()
    with _h5py(path).File(whole, "w") as file:
        for name, array in arrays.items():
            file[name] = np.asarray(array)
    write_bytes(path, whole.getvalue())
    return path


def _h5py(path: Path):
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            f"{path}: files of Keras's weights need the package h5py ({error}); "
            "pip install h5py"
        ) from error
    return h5py


def _bad(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: not a readable .weights.h5 file ({reason})")


def _claimed(path: Path, where: str, entry: Any, size: int) -> int:
    if not hasattr(entry, "shape") or entry.shape is None:
        raise _bad(path, f"{where} is not an array")
    if entry.dtype.kind not in "fiub":
        raise _bad(path, f"{where} has dtype {entry.dtype}")
    if entry.external or entry.is_virtual:
        raise _bad(path, f"{where} lies in another file")
    claimed = math.prod(entry.shape) * entry.dtype.itemsize
    # Compressed arrays may be larger than what is stored; Keras does not compress.
    if claimed > size or entry.id.get_storage_size() < claimed:
        raise _bad(path, f"{where} claims {claimed:,} bytes that are not there")
    return claimed
