"""Reads arrays from .npz, HDF5 and Zarr files, and from folders of .npy files."""

import contextlib
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.dataset import LARGEST, DataError, check_size
from lstm_jax.data.files.file_tree import holds
from lstm_jax.data.files.split_names import SPELLINGS, split_of

HDF5 = (".h5", ".hdf5", ".hdf")
ARRAYS = (".npz", ".npy", *HDF5, ".zarr")  # suffixes of files and folders of arrays
_ROLES = {
    "inputs": "x inputs input images image imgs data features".split(),
    "targets": "y targets target labels label classes class".split(),
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}


class Stored(NamedTuple):
    """An array in a file.

    Attributes:
      shape, dtype: shape and dtype of the array.
      read: a function that reads the array into memory.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], Any]

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.shape))}] {self.dtype}"


class Part(NamedTuple):
    """Names of the arrays of one split; split None: examples are split at random."""

    split: str | None
    inputs: str
    targets: str


def is_array_dataset(path: Path) -> bool:
    """Whether a path is a file of arrays, or a folder of .npy files only."""
    if path.suffix.lower() in ARRAYS:
        return True
    if not path.is_dir() or not holds(path, (".npy",)):
        return False
    return not any(f.is_dir() and not f.name.startswith(".") for f in path.iterdir())


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[dict[str, Stored]]:
    """Opens the arrays of a file or folder; yields them by name.

    Raises:
      DataError: the file cannot be read, or a package is missing.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in HDF5:
            with _package("h5py", path).File(path, "r") as file:
                found: dict[str, Any] = {}
                file.visititems(lambda name, item: found.update({name: item}))
                yield {k: _lazy(v) for k, v in found.items() if hasattr(v, "dtype")}
        elif suffix == ".zarr":
            yield {k: _lazy(v) for k, v in _zarr(path)}
        elif suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                yield {name: _now(file[name]) for name in file.files}
        else:
            files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
            loaded = {f.stem: np.load(f, mmap_mode="r") for f in files}
            yield {name: _now(array) for name, array in loaded.items()}
    except DataError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        lines = str(error).strip().splitlines()
        why = lines[0] if lines else type(error).__name__
        raise DataError(f"{path}: its arrays cannot be read ({why})") from error


def _lazy(item: Any) -> Stored:
    return Stored(tuple(item.shape), np.dtype(item.dtype), lambda: item[...])


def _now(array: np.ndarray) -> Stored:
    return Stored(array.shape, array.dtype, lambda: array)


def _zarr(path: Path) -> Iterator[tuple[str, Any]]:
    zarr = _package("zarr", path)
    root = zarr.open(str(path), mode="r")
    if hasattr(root, "shape"):
        yield path.stem, root
        return
    waiting = [("", root)]
    while waiting:
        prefix, group = waiting.pop(0)
        for name, array in sorted(group.arrays()):
            yield prefix + name, array
        waiting += [(f"{prefix}{name}/", inner) for name, inner in group.groups()]


def _package(name: str, path: Path) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise DataError(
            f"{path}: reading it needs {name} ({error}); pip install {name}"
        ) from error


def parse_arrays(text: str) -> dict[tuple[str | None, str], str]:
    """Parses "inputs:a,targets:b,test_inputs:c,test_targets:d".

    Returns:
      Names of arrays by (split or None, "inputs" or "targets").

    Raises:
      DataError: the text is malformed.
    """
    found = {}
    for pair in text.split(",") if text else ():
        role, colon, name = (part.strip() for part in pair.partition(":"))
        split, _, last = role.rpartition("_")
        key = (split_of(split) if split else None), last
        if not colon or not name or last not in _ROLES or (split and not key[0]):
            raise DataError(
                f"--data.arrays={text}: expected ROLE:NAME, such as "
                "inputs:images,targets:labels or test_inputs:x2,test_targets:y2"
            )
        found[key] = name
    return found


def find_parts(path: Path, arrays: dict[str, Stored], given: str | None) -> list[Part]:
    """Finds the arrays with the inputs and targets of each split.

    Names such as x_train, train_labels, test/images and y are recognised.

    Raises:
      DataError: names are missing or ambiguous; the message lists all arrays.
    """
    named = parse_arrays(given or "")
    listed = ", ".join(f"{name} {array}" for name, array in arrays.items()) or "nothing"
    for name in named.values():
        if name not in arrays:
            raise DataError(
                f"{path}: --data.arrays names {name!r}, but it holds {listed}"
            )
    hint = "name them, such as --data.arrays=inputs:NAME,targets:NAME"
    found = dict(named)
    for name in arrays if not named else ():
        key = _key(name)
        if key and key in found:
            raise DataError(
                f"{path}: {found[key]} and {name} may both be the {key[1]}; it holds "
                f"{listed}; {hint}"
            )
        if key:
            found[key] = name
    splits = dict.fromkeys(split for split, _ in found)
    parts = []
    for split in splits:
        pair = [found.get((split, role)) for role in _ROLES]
        if None in pair:
            lacking = "inputs" if pair[0] is None else "targets"
            where = f" for {split}" if split else ""
            raise DataError(
                f"{path}: no array is the {lacking}{where}; it holds {listed}; {hint}"
            )
        parts.append(Part(split, *pair))
    if not {None, "train"} & splits.keys() or {None, "train"} <= splits.keys():
        raise DataError(
            f"{path}: which arrays are for training? It holds {listed}; {hint}"
        )
    return parts


def _key(name: str) -> tuple[str | None, str] | None:
    """(split, role) from the name of an array; None if it is not recognised."""
    words = [w for w in re.findall(r"[a-z]+", name.lower()) if w != "arr"]
    splits = [SPELLINGS[w] for w in words if w in SPELLINGS]
    roles = [_ROLE_OF[w] for w in words if w in _ROLE_OF]
    if len(splits) > 1 or len(roles) != 1 or len(splits) + len(roles) < len(words):
        return None
    return (splits[0] if splits else None), roles[0]


def read_part(
    path: Path, arrays: dict[str, Stored], part: Part
) -> tuple[np.ndarray, np.ndarray]:
    """Reads and checks the inputs and targets of a part.

    Returns:
      (inputs, targets): inputs [N, H, W, C] or [N, T, H, W, C], uint8 or float32, or
      float32 [N, T, F]; targets [N, ...] unchanged.

    Raises:
      DataError: a shape or dtype is not supported; the message states them.
    """
    x, y = arrays[part.inputs], arrays[part.targets]
    where = f"{path}: {part.inputs} {x}"
    if not x.shape or not y.shape or x.shape[0] != y.shape[0]:
        raise DataError(
            f"{where} and {part.targets} {y} have different numbers of examples"
        )
    if not 3 <= len(x.shape) <= 5 or 0 in x.shape:
        raise DataError(
            f"{where}: expected images [N, H, W] or [N, H, W, C], clips "
            "[N, T, H, W, C], or features [N, T, F]"
        )
    size = int(np.prod(x.shape)) * x.dtype.itemsize
    check_size(path, size, "arrays", LARGEST, "keep fewer or smaller examples")
    inputs = np.asarray(x.read())
    if inputs.dtype.kind == "f":
        inputs = inputs.astype(np.float32)
        if not np.isfinite(inputs).all():
            raise DataError(f"{where}: holds NaN or infinite numbers")
        if inputs.ndim == 3:  # features
            return inputs, np.asarray(y.read())
    elif inputs.dtype.kind not in "iub":
        raise DataError(f"{where}: expected numbers")
    else:
        if inputs.dtype == bool:
            inputs = inputs * np.uint8(255)
        low, high = int(inputs.min()), int(inputs.max())
        if low < 0 or high > 255:
            raise DataError(
                f"{where}: its values are {low} to {high}; expected pixels from 0 to "
                "255, or floating-point features"
            )
        inputs = inputs.astype(np.uint8)
        if inputs.ndim == 3:
            inputs = inputs[..., None]
    if inputs.shape[-1] not in (1, 3):
        first = inputs.shape[-3] in (1, 3)
        what = "channels seem to be first; transpose them to the end"
        raise DataError(
            f"{where}: {what if first else 'expected 1 or 3 channels at the end'}"
        )
    return inputs, np.asarray(y.read())


def to_pixels(path: Path, images: np.ndarray) -> tuple[np.ndarray, str]:
    """Floating-point images as uint8 pixels, and a note on their range.

    Raises:
      DataError: the range is none of the common ones.
    """
    low, high = float(images.min()), float(images.max())
    ranges = ((0, 1), (-1, 1), (0, 255))
    found = [(a, b) for a, b in ranges if a <= low and high <= b]
    if not found or low == high:
        raise DataError(
            f"{path}: its floating-point images are from {low:g} to {high:g}; scale "
            "them to 0 to 1, -1 to 1 or 0 to 255, of which 8 bits are kept"
        )
    black, white = found[0]
    pixels = np.rint((images - black) * (255 / (white - black))).astype(np.uint8)
    return pixels, (
        f"floating-point images from {low:g} to {high:g}: {black} is read as black and "
        f"{white} as white, with 8 bits"
    )
