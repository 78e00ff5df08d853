"""Your own images: a folder with one folder per class, or a CSV table."""

import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.cache import cached, new_array
from lstm_jax.data.dataset import DataError, Dataset, Split, check_size, common_size
from lstm_jax.data.files.depth import common_depth
from lstm_jax.data.files.images import find_images, pages_note, probe, read_image
from lstm_jax.data.files.tables import (
    class_folders,
    fingerprint,
    first_few,
    table_rows,
    targets_of,
)
from lstm_jax.data.splits import assign_splits, by_split

_FORMAT = 2  # version of the cached arrays; increase it when decoding changes
FALLBACK_SIZE = 32


class _Image(NamedTuple):
    path: Path
    label: str
    name: str
    group: str | None = None
    split: str | None = None  # None: assigned at random


def load_images(
    path: Path, root: Path, *, size: int | None, validation: float, seed: int
) -> Dataset:
    """Load a folder or CSV; unreadable files are skipped and reported in `notes`.

    Args:
      path: the folder or CSV, which exists.
      root: the cache folder.
      size: as in `load`; None: the common size, or 32 if sizes differ.
      validation, seed: as in `load`.

    Raises:
      DataError: no images, only one class, too few images of a class, or a malformed
        table.
    """
    entries = _from_folder(path) if path.is_dir() else _from_table(path)
    arrays, facts = cached(
        root,
        f"{path.name}-{size}" if size else path.name,
        [_FORMAT, size, [[str(p.path), *fingerprint(p.path)] for p in entries]],
        lambda folder: decode_each(path, [p.path for p in entries], size, folder),
    )
    entries = [entries[i] for i in facts["kept"]]
    images = arrays["images"][: len(entries)]
    labels = [entry.label for entry in entries]
    targets, classes = targets_of(path, labels, numbers=not path.is_dir())
    chosen, notes = assign_splits(
        path, entries, "image", targets, classes, validation=validation, seed=seed
    )
    splits = {name: Split(images[i], targets[i]) for name, i in chosen.items()}
    names = by_split([entry.name for entry in entries], chosen)
    groups = None if path.is_dir() else [entry.group for entry in entries]
    groups = by_split(groups, chosen)
    notes = (*facts["notes"], *notes)
    depth = facts["depth"]
    return Dataset(path.name, splits, classes, notes, names, groups, depth=depth)


def _from_folder(path: Path) -> list[_Image]:
    """Lists CLASS/image, or SPLIT/CLASS/image if the folders are named so."""
    entries = [
        _Image(image, folder.name, image.relative_to(path).as_posix(), split=split)
        for split, folder in class_folders(path)
        for image in find_images(folder)
    ]
    if not entries:
        if find_images(path):
            raise DataError(
                f"{path}: the images are not in class folders; put each into a folder "
                f"named after its class ({path.name}/CLASS/image.png), or give a "
                "CSV with the columns path,label"
            )
        raise DataError(
            f"{path}: no images; expected {path.name}/CLASS/image.png, at least "
            "two classes"
        )
    return entries


def _from_table(path: Path) -> list[_Image]:
    """Lists the rows of a table with the columns `path,label[,group][,split]`."""
    if path.suffix.lower() != ".csv":
        raise DataError(f"{path}: not a CSV file; give a folder or a .csv table")
    entries = []
    for where, cells, file, split, group in table_rows(path, ["path", "label"]):
        if not cells["label"]:
            raise DataError(f"{where} has an empty label")
        entries.append(_Image(file, cells["label"], cells["path"], group, split))
    return entries


def decode_each(
    source: Path,
    paths: list[Path],
    size: int | None,
    folder: Path,
    beside: Callable[[tuple], Callable] | None = None,
    *,
    fallback: int = FALLBACK_SIZE,
    largest: int | None = None,
) -> dict:
    """Decode the readable images into images.npy [N, H, W, C], without gaps.

    Args:
      source: the data set's path, for errors.
      paths: the image files.
      size: as in `load`.
      folder: where images.npy is written.
      beside: a function of (H, W, C) and the `Head` of each image (None if unreadable)
        that returns a reader of additional data per example: reader(index) returns a
        JSON value, or raises DataError to skip the example.
      fallback: side of the square if images differ in size, pixels.
      largest: limit on the total size of the decoded images, bytes.

    Returns:
      dict: "kept", indices of the examples that were read; "notes"; "found", their
      JSON values; "depth", as in `Dataset`.

    Raises:
      DataError: no image can be read, or they exceed `largest`.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        probed = list(pool.map(probe, paths))
        heads = [head for head in probed if head]
        sizes = {head.size for head in heads}
        channels = 1 if heads and all(head.grey for head in heads) else 3
        notes: list[str] = []
        depth = common_depth([head.depth for head in heads], notes)
        known = next(iter(sizes)) if len(sizes) == 1 else None
        what = f"images of {len(sizes)} sizes"
        height, width = common_size(known, size, fallback, what, notes)
        shape = (height, width, channels)
        if largest:
            what = f"images at {height}x{width}"
            total = len(paths) * height * width * channels
            check_size(source, total, what, largest, "give a smaller --data.size")
        images = new_array(folder / "images.npy", np.uint8, (len(paths), *shape))
        other = beside(shape, probed) if beside else None
        kept, failed, found = [], [], []

        def read(number: int) -> tuple[np.ndarray, Any] | DataError:
            try:
                image = read_image(paths[number], shape, depth)
                if not other:
                    return image, None
                if not probed[number]:
                    raise DataError(f"{paths[number]}: its size cannot be determined")
                return image, other(number)
            except DataError as error:
                return error

        for number, result in enumerate(pool.map(read, range(len(paths)))):
            if isinstance(result, DataError):
                failed.append(f"skipped {result}")
            else:
                images[len(kept)], value = result
                kept.append(number)
                found.append(value)
        images.flush()
    if not kept:
        raise DataError(
            f"{source}: none of its {len(paths)} images can be read; "
            f"the first: {failed[0].removeprefix('skipped ')}"
        )
    pages = {paths[k]: probed[k].pages for k in kept if probed[k]}
    notes += pages_note(pages)
    notes += first_few(failed, "skipped {} more files that cannot be read")
    found = found if beside else []
    return {"kept": kept, "notes": notes, "found": found, "depth": depth}
