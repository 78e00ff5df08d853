"""What a folder or a table lists: files, with their labels, splits and groups."""

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_jax.data.dataset import SPLIT_NAMES, DataError
from lstm_jax.data.files.images import read_table

_NAMED = 5  # lines of one kind of trouble that are told one by one


def first_few(lines: list[str], more: str) -> list[str]:
    """Lines told one by one, then as `more` with the number of the rest."""
    rest = len(lines) - _NAMED
    return [*lines[:_NAMED], more.format(rest)] if rest > 0 else lines


def fingerprint(path: Path) -> list[int]:
    """[bytes, time of change] of a file, -1 where it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return [-1, -1]
    return [stat.st_size, stat.st_mtime_ns]


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, hidden files left out."""
    hidden = (".", "__")
    return sorted(f for f in folder.iterdir() if not f.name.startswith(hidden))


def class_folders(path: Path) -> list[tuple[str | None, Path]]:
    """(split, folder) of CLASS, or of SPLIT/CLASS where the folders are named so.

    Raises:
      DataError: two folders are of one split.
    """
    folders = [f for f in visible(path) if f.is_dir()]
    names = {f.name.lower() for f in folders}
    if "train" in names and len(names) > 1 and names <= SPLIT_NAMES.keys():
        if {"val", "validation"} <= names:
            raise DataError(f"{path}: holds both val and validation; keep one")
        return [
            (SPLIT_NAMES[folder.name.lower()], inside)
            for folder in folders
            for inside in visible(folder)
            if inside.is_dir()
        ]
    return [(None, folder) for folder in folders]


class Row(NamedTuple):
    """A row of a table of files.

    Attributes:
      where: what an error begins with, the table and the number of the row.
      cells: by column.
      file: what the column `path` means.
      split: None: to be dealt out.
      group: without a column of that name, one file listed twice is its own group.
    """

    where: str
    cells: dict[str, str]
    file: Path
    split: str | None
    group: str


def table_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Rows of a CSV with the columns `path[,group][,split]` and others.

    Args:
      path: the table.
      wanted: columns that it must have, "path" among them.

    Raises:
      DataError: the table is malformed, or a group is in two splits.
    """
    splits: dict[str, str | None] = {}
    for number, cells in enumerate(read_table(path, wanted), start=1):
        where = f"{path}: entry {number}"
        if not cells["path"]:
            raise DataError(f"{where} has an empty path")
        split = None
        if "split" in cells and not (split := SPLIT_NAMES.get(cells["split"].lower())):
            raise DataError(
                f"{where} has the split {cells['split']!r}; wanted is train, "
                "validation (or val) or test"
            )
        file = placed(path, cells["path"])
        group = cells.get("group") or str(file)
        if splits.setdefault(group, split) != split:
            raise DataError(
                f"{path}: group {group!r} is in {splits[group]} and in {split}; a "
                "group belongs to one split"
            )
        yield Row(where, cells, file, split, group)


@functools.lru_cache(maxsize=1024)  # a table by step names a clip in many rows
def placed(table: Path, written: str) -> Path:
    """The file that a table means, relative to the table itself."""
    return table.parent / Path(written).expanduser()


def targets_of(
    source: Path, labels: Sequence[str], *, numbers: bool = True
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets and class names: regression where labels are numbers, not all whole.

    Args:
      source: what an error names.
      labels: [N], as they are written.
      numbers: False where labels are names even if they read as numbers.

    Returns:
      (int32 [N], class names), or (float32 [N, 1], ()).

    Raises:
      DataError: a label among numbers that is not finite.
    """
    values = [_number(label) for label in labels] if numbers else [None]
    if None not in values:
        if not all(map(math.isfinite, values)):
            wrong = labels[[math.isfinite(n) for n in values].index(False)]
            raise DataError(f"{source}: the label {wrong!r} is not a finite number")
        if not all(n.is_integer() for n in values):
            return np.asarray(values, np.float32)[:, None], ()
    # Whole numbers in their own order, so that class "10" follows "9".
    whole = all(label.isdecimal() for label in labels)
    classes = sorted(set(labels), key=lambda n: (int(n), n) if whole else n)
    index = {name: i for i, name in enumerate(classes)}
    return np.asarray([index[label] for label in labels], np.int32), tuple(classes)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
