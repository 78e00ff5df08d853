"""Files with their labels, splits and groups, listed by a folder or a table."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.csv_files import (
    TableFormat,
    check_files,
    placed,
    read_table,
)
from lstm_jax.data.files.split_names import split_of

_NAMED = 5  # notes of one kind that are listed individually


def first_few(lines: list[str], more: str) -> list[str]:
    """The first few lines, then one line, `more`, with the number of the others."""
    rest = len(lines) - _NAMED
    return [*lines[:_NAMED], more.format(rest)] if rest > 0 else lines


def fingerprint(path: Path) -> list[int]:
    """[size in bytes, modification time in ns] of a file; -1 if it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return [-1, -1]
    return [stat.st_size, stat.st_mtime_ns]


class Row(NamedTuple):
    """A row of a table of files.

    Attributes:
      where: the table and the row number, for errors.
      cells: by column name.
      file: the absolute path, from the column `path`.
      split: None: assigned at random.
      group: from the column `group`; without it, the file, so that repeated rows of
        one file stay together.
    """

    where: str
    cells: dict[str, str]
    file: Path
    split: str | None
    group: str


def table_rows(
    path: Path, wanted: Sequence[str], form: TableFormat = TableFormat()
) -> Iterator[Row]:
    """Rows of a table with the columns `path[,group][,split]` and others.

    Args:
      path: the table.
      wanted: the required columns, including "path".
      form: what the user says of the table.

    Raises:
      DataError: the table is malformed, a group is in two splits, or no file exists.
    """
    table = read_table(path, wanted, form)
    check_files(path, [cells["path"] for cells in table if cells["path"]] or [""])
    splits: dict[str, str | None] = {}
    for number, cells in enumerate(table, start=1):
        where = f"{path}: entry {number}"
        if not cells["path"]:
            raise DataError(f"{where} has an empty path")
        split = None
        if "split" in cells and not (split := split_of(cells["split"])):
            raise DataError(
                f"{where} has the split {cells['split']!r}; expected train, "
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


def targets_of(
    source: Path, labels: Sequence[str], *, numbers: bool = True
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets and class names; regression if all labels are numbers, not all integers.

    Args:
      source: the data set's path, for errors.
      labels: [N], as written.
      numbers: False if labels are names even when they look like numbers.

    Returns:
      (int32 [N], class names), or for regression (float32 [N, 1], ()).

    Raises:
      DataError: a numeric label is not finite.
    """
    values = [_number(label) for label in labels] if numbers else [None]
    if None not in values:
        if not all(map(math.isfinite, values)):
            wrong = labels[[math.isfinite(n) for n in values].index(False)]
            raise DataError(f"{source}: the label {wrong!r} is not a finite number")
        if not all(n.is_integer() for n in values):
            return np.asarray(values, np.float32)[:, None], ()
    # Integers are sorted by value, so that class "10" follows "9".
    whole = all(label.isdecimal() for label in labels)
    classes = sorted(set(labels), key=lambda n: (int(n), n) if whole else n)
    index = {name: i for i, name in enumerate(classes)}
    return np.asarray([index[label] for label in labels], np.int32), tuple(classes)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
