"""A person's own pictures: a folder of classes, or a CSV table."""

import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.cache import cached
from lstm_jax.data.dataset import DataError, Dataset, Split, check_size, sides
from lstm_jax.data.files.images import find_images, probe, read_image
from lstm_jax.data.files.tables import (
    class_folders,
    fingerprint,
    first_few,
    table_rows,
    targets_of,
    with_groups,
)
from lstm_jax.data.splits import assign_splits, by_split

_FORMAT = 1  # of the arrays in the cache; raise it when decoding changes
FALLBACK_SIZE = 32


class _Picture(NamedTuple):
    path: Path
    label: str
    name: str
    group: str | None = None
    split: str | None = None  # None: to be dealt out


def load_pictures(
    path: Path,
    root: Path,
    *,
    size: int | None,
    validation: float,
    seed: int,
    group: str | None = None,
) -> Dataset:
    """Load a folder or CSV; unreadable files are skipped and told in the notes.

    Args:
      path: the folder or CSV, which exists.
      root: the cache folder.
      size: as in `load`; where sizes differ, None is 32.
      validation, seed, group: as in `load`.

    Raises:
      DataError: no pictures, one class only, too few of a class, a malformed table.
    """
    if path.is_dir():
        pictures = with_groups(path, _from_folder(path), group)
    else:
        pictures = _from_table(path, group)
    arrays, facts = cached(
        root,
        f"{path.name}-{size}" if size else path.name,
        [_FORMAT, size, [[str(p.path), *fingerprint(p.path)] for p in pictures]],
        lambda folder: decode_each(path, [p.path for p in pictures], size, folder),
    )
    pictures = [pictures[i] for i in facts["kept"]]
    images = arrays["images"][: len(pictures)]
    labels = [picture.label for picture in pictures]
    targets, classes = targets_of(path, labels, numbers=not path.is_dir())
    draw = dict(validation=validation, seed=seed, inputs=images)
    chosen, notes = assign_splits(path, pictures, "picture", targets, classes, **draw)
    splits = {name: Split(images[i], targets[i]) for name, i in chosen.items()}
    names = by_split([picture.name for picture in pictures], chosen)
    grouped = group is not None or not path.is_dir()
    groups = [picture.group for picture in pictures] if grouped else None
    groups = by_split(groups, chosen)
    notes = (*facts["notes"], *notes)
    return Dataset(path.name, splits, classes, notes, names, groups)


def _from_folder(path: Path) -> list[_Picture]:
    """List CLASS/picture, or SPLIT/CLASS/picture where the folders are named so."""
    pictures = [
        _Picture(image, folder.name, image.relative_to(path).as_posix(), split=split)
        for split, folder in class_folders(path)
        for image in find_images(folder)
    ]
    if not pictures:
        if find_images(path):
            raise DataError(
                f"{path}: the pictures lie in no class folder; put each into a folder "
                f"called after its class ({path.name}/CLASS/picture.png), or give a "
                "CSV with the columns path,label"
            )
        raise DataError(
            f"{path}: no pictures; wanted are {path.name}/CLASS/picture.png, at least "
            "two classes"
        )
    return pictures


def _from_table(path: Path, by: str | None) -> list[_Picture]:
    """List the rows of a table with the columns `path,label[,group][,split]`."""
    if path.suffix.lower() != ".csv":
        raise DataError(f"{path}: a file, but no CSV; give a folder or a .csv table")
    pictures = []
    for where, cells, file, split, group in table_rows(path, ["path", "label"], by):
        if not cells["label"]:
            raise DataError(f"{where} has an empty label")
        pictures.append(_Picture(file, cells["label"], cells["path"], group, split))
    return pictures


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
    """Decode what can be read into images.npy [N, H, W, C], front to back.

    Args:
      source: what an error names.
      paths: pictures.
      size: as in `load`.
      folder: to write into.
      beside: is given (H, W, C) and returns what reads the other half of an example:
        called with its number and (h, w) of its file, it returns a JSON value, or
        raises DataError, and the example is skipped.
      fallback: square side where pictures differ in size, pixels.
      largest: bytes that the pictures may take in all.

    Returns:
      kept: numbers of the examples that were read; notes; found: their JSON values.

    Raises:
      DataError: none can be read, or they take too much room.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        probed = list(pool.map(probe, paths))
        heads = [head for head in probed if head]
        sizes = {shape for shape, _ in heads}
        channels = 1 if heads and all(grey for _, grey in heads) else 3
        notes: list[str] = []
        known = next(iter(sizes)) if len(sizes) == 1 else None
        told = f"pictures of {len(sizes)} sizes"
        height, width = sides(known, size, fallback, told, notes)
        shape = (height, width, channels)
        if largest:
            what = f"pictures at {height}x{width}"
            total = len(paths) * height * width * channels
            check_size(source, total, what, largest, "give a smaller --data.size")
        images = np.lib.format.open_memmap(
            folder / "images.npy", "w+", np.uint8, (len(paths), *shape)
        )
        other = beside(shape) if beside else None
        kept, failed, found = [], [], []

        def read(number: int) -> tuple[np.ndarray, Any] | DataError:
            try:
                image = read_image(paths[number], shape)
                if not other:
                    return image, None
                if not probed[number]:
                    raise DataError(f"{paths[number]}: its size cannot be told")
                return image, other(number, probed[number][0])
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
            f"{source}: none of its {len(paths)} pictures can be read; "
            f"the first: {failed[0].removeprefix('skipped ')}"
        )
    notes += first_few(failed, "skipped {} more files that cannot be read")
    return {"kept": kept, "notes": notes, "found": found if beside else []}
