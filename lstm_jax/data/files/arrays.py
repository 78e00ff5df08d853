"""Loads a data set from files of arrays."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lstm_jax.data.counts import large_classes
from lstm_jax.data.dataset import DataError, Dataset, Split
from lstm_jax.data.files.array_files import (
    find_parts,
    open_arrays,
    read_part,
    to_pixels,
)
from lstm_jax.data.files.decoding import to_array
from lstm_jax.data.files.read_options import ReadOptions
from lstm_jax.data.files.tables import targets_of
from lstm_jax.data.splits import assign_splits


class _Item(NamedTuple):
    label: str
    split: str | None
    group: None = None


def load_arrays(path: Path, root: Path, options: ReadOptions) -> Dataset:
    """Loads images, clips or features and their targets from arrays.

    Inputs are as in `Split`; grey images may lack the channel axis, and images may be
    floating point in one of the common ranges. Targets [N] or
    [N, 1] are classes if they are integers or strings, otherwise numbers to predict;
    targets [N, K] of 0 and 1 are one-hot classes if each row has a single 1, otherwise
    several labels per example.

    Args:
      path: an .npz, HDF5 or Zarr file, or a folder of .npy files.
      root: the cache folder; not used.
      options: without a size, images are not resized.

    Raises:
      DataError: arrays are missing or ambiguous, or have an unsupported shape.
    """
    size = options.size
    notes, xs, ys, items = [], [], [], []
    with open_arrays(path) as stored:
        for part in find_parts(path, stored, options.arrays):
            x, y = read_part(path, stored, part)
            xs.append(x)
            ys.append(y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
            items += [part.split] * len(x)
            notes.append(
                f"{part.split or 'all'}: inputs {part.inputs} {stored[part.inputs]}, "
                f"targets {part.targets} {stored[part.targets]}"
            )
    for parts, what in ((xs, "inputs"), (ys, "targets")):
        if len(shapes := {part.shape[1:] for part in parts}) > 1:
            raise DataError(f"{path}: {what} of its splits differ in shape: {shapes}")
    if len(kinds := {str(x.dtype) for x in xs}) > 1:
        raise DataError(f"{path}: inputs of its splits are {' and '.join(kinds)}")
    inputs, written = np.concatenate(xs), np.concatenate(ys)
    if inputs.dtype != np.uint8 and inputs.ndim > 3:
        inputs, note = to_pixels(path, inputs)
        notes.append(note)
    elif inputs.ndim == 3 and inputs.shape[1] == inputs.shape[2]:
        t, f = inputs.shape[1:]
        notes.append(
            f"floating-point [N, {t}, {f}] is read as sequences of {t} steps with {f} "
            f"features; for images, add an axis: [N, {t}, {f}, 1]"
        )
    targets, classes, labels = _targets(path, written)
    entries = [_Item(*pair) for pair in zip(labels, items, strict=True)]
    kept, small = large_classes(path, entries, "example", options.min_per_class)
    if len(kept) < len(entries):
        entries, inputs, written = (
            [entries[k] for k in kept],
            inputs[kept],
            written[kept],
        )
        targets, classes, _ = _targets(path, written)
    if size and inputs.dtype == np.uint8 and inputs.ndim == 4:
        inputs = _resized(inputs, size)
    exclusive = targets.dtype == np.int32
    chosen, more = assign_splits(
        path,
        entries,
        "example",
        targets,
        classes if exclusive else (),
        validation=options.validation,
        seed=options.seed,
        inputs=inputs,
    )
    splits = {name: Split(inputs[i], targets[i]) for name, i in chosen.items()}
    return Dataset(path.name, splits, classes, (*notes, *small, *more))


def _targets(
    path: Path, written: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """(targets, class names, the class label of each example or "" without classes)."""
    if written.ndim == 1:
        if written.dtype.kind not in "iubfSUO":
            raise DataError(f"{path}: targets of {written.dtype}; expected numbers")
        labels = [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
            for v in written.tolist()
        ]
        targets, classes = targets_of(path, labels)
        if classes and written.dtype.kind == "f":  # whole numbers such as 1.0, 2.0
            labels = [str(int(v)) for v in written.tolist()]
            targets, classes = targets_of(path, labels)
        return targets, classes, labels if classes else [""] * len(labels)
    if written.ndim != 2 or not np.isin(written, (0, 1)).all():
        raise DataError(
            f"{path}: targets of shape {list(written.shape)}; expected [N], or [N, K] "
            "of 0 and 1"
        )
    names = tuple(map(str, range(written.shape[1])))
    if (written.sum(1) == 1).all():
        labels = [names[k] for k in written.argmax(1)]
        targets, classes = targets_of(path, labels)
        return targets, classes, labels
    return written.astype(np.float32), names, [""] * len(written)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    shape = (size, size, images.shape[-1])
    return np.stack(
        [to_array(Image.fromarray(image.squeeze()), shape) for image in images]
    )
