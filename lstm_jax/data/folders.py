"""A person's own pictures: a folder of classes, or a CSV table."""

import concurrent.futures
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_jax.data.cache import cached
from lstm_jax.data.dataset import (
    SPLIT_NAMES,
    DataError,
    Dataset,
    Split,
    choose,
    split_of,
    targets_of,
)
from lstm_jax.data.images import find_images, probe, read_image, read_table

_FORMAT = 1  # of the arrays in the cache; raise it when decoding changes
_FALLBACK_SIZE = 32
_NAMED = 5  # unreadable files told by name


class _Picture(NamedTuple):
    path: Path
    label: str
    name: str
    group: str | None = None
    split: str | None = None  # None: to be dealt out


def load_pictures(
    path: Path, root: Path, *, size: int | None, validation: float, seed: int
) -> Dataset:
    """Load a folder or CSV; unreadable files are skipped and told in the notes.

    Args:
      path: the folder or CSV, which exists.
      root: the cache folder.
      size: square side to resize to, pixels; None keeps the size all have, else 32.
      validation: share held out for validation where no split is given.
      seed: of the draw.

    Raises:
      DataError: no pictures, one class only, too few of a class, a malformed table.
    """
    pictures = _from_folder(path) if path.is_dir() else _from_table(path)
    arrays, facts = cached(
        root,
        f"{path.name}-{size}" if size else path.name,
        [_FORMAT, size, [[str(p.path), *_stamp(p.path)] for p in pictures]],
        lambda folder: _decode_all(path, [p.path for p in pictures], size, folder),
    )
    pictures = [pictures[i] for i in facts["kept"]]
    images = arrays["images"][: len(pictures)]
    labels = [picture.label for picture in pictures]
    targets, classes = targets_of(path, labels, numbers=not path.is_dir())
    chosen, notes = choose(
        path,
        targets,
        classes,
        [picture.split for picture in pictures],
        [picture.group for picture in pictures],
        validation=validation,
        seed=seed,
        what=("picture", "pictures"),
    )
    splits = {name: Split(images[i], targets[i]) for name, i in chosen.items()}
    names = {name: tuple(pictures[k].name for k in i) for name, i in chosen.items()}
    groups = None
    if not path.is_dir():
        groups = {n: tuple(pictures[k].group for k in i) for n, i in chosen.items()}
    notes = (*facts["notes"], *notes)
    return Dataset(path.name, splits, classes, notes, names, groups)


def _from_folder(path: Path) -> list[_Picture]:
    """List CLASS/picture, or SPLIT/CLASS/picture where the folders are named so."""
    names = {f.name.lower(): f for f in _folders(path)}
    if "train" in names and len(names) > 1 and names.keys() <= SPLIT_NAMES.keys():
        if {"val", "validation"} <= names.keys():
            raise DataError(f"{path}: holds both val and validation; keep one")
        pictures = [
            _Picture(image, folder.name, _from(path, image), split=SPLIT_NAMES[name])
            for name, split_folder in sorted(names.items())
            for folder in _folders(split_folder)
            for image in find_images(folder)
        ]
    else:
        pictures = [
            _Picture(image, folder.name, _from(path, image))
            for folder in _folders(path)
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


def _from(path: Path, image: Path) -> str:
    return image.relative_to(path).as_posix()


def _folders(path: Path) -> list[Path]:
    hidden = (".", "__")
    inside = sorted(path.iterdir())
    return [f for f in inside if f.is_dir() and not f.name.startswith(hidden)]


def _from_table(path: Path) -> list[_Picture]:
    """List the rows of a table with the columns path,label[,group][,split]."""
    if path.suffix.lower() != ".csv":
        raise DataError(f"{path}: a file, but no CSV; give a folder or a .csv table")
    pictures = []
    for number, row in enumerate(read_table(path, ["path", "label"]), start=1):
        if not row["path"] or not row["label"]:
            raise DataError(f"{path}: entry {number} has an empty path or label")
        split = split_of(path, row, number)
        image = path.parent / Path(row["path"]).expanduser()
        # Without a group, one picture listed twice is a group of its own.
        group = row.get("group") or str(image)
        pictures.append(_Picture(image, row["label"], row["path"], group, split))
    seen: dict[str, str | None] = {}
    for picture in pictures:
        if seen.setdefault(picture.group, picture.split) != picture.split:
            raise DataError(
                f"{path}: group {picture.group!r} is in {seen[picture.group]} and in "
                f"{picture.split}; a group belongs to one split"
            )
    return pictures


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return [-1, -1]
    return [stat.st_size, stat.st_mtime_ns]


def _decode_all(
    source: Path, paths: list[Path], size: int | None, folder: Path
) -> dict:
    """Decode what can be read into images.npy [N, H, W, C], front to back."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        heads = [head for head in pool.map(probe, paths) if head]
        sizes = {shape for shape, _ in heads}
        channels = 1 if heads and all(grey for _, grey in heads) else 3
        notes = []
        if size:
            height = width = size
        elif len(sizes) == 1:
            height, width = sizes.pop()
        else:
            height = width = _FALLBACK_SIZE
            if sizes:
                notes.append(
                    f"pictures of {len(sizes)} sizes: all resized to {height}x{width} "
                    "(--data.size=N for another)"
                )
        shape = (height, width, channels)
        images = np.lib.format.open_memmap(
            folder / "images.npy", "w+", np.uint8, (len(paths), *shape)
        )
        kept, failed = [], []

        def read(path: Path) -> np.ndarray | DataError:
            try:
                return read_image(path, shape)
            except DataError as error:
                return error

        for number, image in enumerate(pool.map(read, paths)):
            if isinstance(image, DataError):
                failed.append(f"skipped {image}")
            else:
                images[len(kept)] = image
                kept.append(number)
        images.flush()
    if not kept:
        raise DataError(
            f"{source}: none of its {len(paths)} pictures can be read; "
            f"the first: {failed[0].removeprefix('skipped ')}"
        )
    notes += failed[:_NAMED]
    if len(failed) > _NAMED:
        notes.append(f"skipped {len(failed) - _NAMED} more files that cannot be read")
    return {"kept": kept, "notes": notes}
