"""A person's own pictures: a folder of classes, or a CSV table."""

import concurrent.futures
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_jax.data.cache import cached
from lstm_jax.data.dataset import SPLITS, DataError, Dataset, Split, deal
from lstm_jax.data.images import find_images, probe, read_image, read_table

_FORMAT = 1  # of the arrays in the cache; raise it when decoding changes
_FALLBACK_SIZE = 32
_NAMED = 5  # unreadable files told by name
_SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation"}


class _Picture(NamedTuple):
    path: Path
    label: str
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
    targets, classes = _targets(path, [p.label for p in pictures])
    chosen, notes = _choose(path, pictures, targets, classes, validation, seed)
    splits = {name: Split(images[i], targets[i]) for name, i in chosen.items()}
    return Dataset(path.name, splits, classes, (*facts["notes"], *notes))


def _from_folder(path: Path) -> list[_Picture]:
    """List CLASS/picture, or SPLIT/CLASS/picture where the folders are named so."""
    names = {f.name.lower(): f for f in _folders(path)}
    if "train" in names and len(names) > 1 and names.keys() <= _SPLIT_NAMES.keys():
        if {"val", "validation"} <= names.keys():
            raise DataError(f"{path}: holds both val and validation; keep one")
        pictures = [
            _Picture(image, folder.name, split=_SPLIT_NAMES[name])
            for name, split_folder in sorted(names.items())
            for folder in _folders(split_folder)
            for image in find_images(folder)
        ]
    else:
        pictures = [
            _Picture(image, folder.name)
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
        split = None
        if "split" in row:
            split = _SPLIT_NAMES.get(row["split"].lower())
            if split is None:
                raise DataError(
                    f"{path}: entry {number} has the split {row['split']!r}; wanted is "
                    "train, validation (or val) or test"
                )
        image = path.parent / Path(row["path"]).expanduser()
        # Without a group, one picture listed twice is a group of its own.
        pictures.append(
            _Picture(image, row["label"], row.get("group") or str(image), split)
        )
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


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _targets(source: Path, labels: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets and class names: regression where labels are numbers, not all whole."""
    numbers = [_number(label) for label in labels]
    if source.is_dir() or None in numbers:
        numbers = None
    elif not all(map(math.isfinite, numbers)):
        wrong = labels[[math.isfinite(n) for n in numbers].index(False)]
        raise DataError(f"{source}: the label {wrong!r} is not a finite number")
    if numbers and not all(n.is_integer() for n in numbers):
        return np.asarray(numbers, np.float32)[:, None], ()
    # Whole numbers in their own order, so that class "10" follows "9".
    whole = all(label.isdecimal() for label in labels)
    classes = sorted(set(labels), key=lambda n: (int(n), n) if whole else n)
    index = {name: i for i, name in enumerate(classes)}
    return np.asarray([index[label] for label in labels], np.int32), tuple(classes)


def _choose(
    source: Path,
    pictures: list[_Picture],
    targets: np.ndarray,
    classes: tuple[str, ...],
    validation: float,
    seed: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Indices of each split, and notes; refuses what cannot be learned from."""
    if len(classes) == 1:
        raise DataError(
            f"{source}: one class only, {classes[0]!r}; classes to tell apart are two "
            "or more"
        )
    given = [picture.split or "train" for picture in pictures]
    assigned = {
        name: np.flatnonzero([g == name for g in given])
        for name in SPLITS
        if name == "train" or name in given
    }
    needed = 1 + len(set(SPLITS) - set(assigned))
    strata = targets if classes else np.zeros(len(targets), np.int32)
    counts = np.bincount(strata[assigned["train"]], minlength=max(len(classes), 1))
    for name, count in zip(classes or ("",), counts, strict=True):
        if count < needed:
            what = f"class {name!r}" if classes else "the table"
            raise DataError(
                f"{source}: {what} has too few pictures for training, {count} readable;"
                f" {needed} or more are needed"
                + (" (one for each split)" if needed > 1 else "")
            )
    groups = [picture.group for picture in pictures]
    apart = None in groups or len(set(groups)) == len(groups)
    chosen = deal(
        targets,
        assigned,
        validation=validation,
        seed=seed,
        groups=None if apart else groups,
    )
    for name, rows in chosen.items():
        if not len(rows):
            raise DataError(
                f"{source}: its {len(set(groups))} groups cannot be dealt out, {name} "
                "stays empty; give more and smaller groups, or a split column"
            )
    left = np.bincount(strata[chosen["train"]], minlength=len(classes))
    lacking = np.flatnonzero(left == 0)
    if len(lacking):
        raise DataError(
            f"{source}: no picture of class {classes[lacking[0]]!r} is left to train "
            "on, since its groups went to other splits; give more groups of it, or a "
            "split column"
        )
    notes = []
    if "test" not in assigned:
        shares = ", ".join(f"{n} {len(rows)}" for n, rows in chosen.items())
        notes.append(f"no test split was given: dealt out by seed {seed} ({shares})")
    return chosen, notes
