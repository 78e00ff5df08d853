"""Files with their labels, splits and groups, listed by a folder or a table."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.csv_files import (
    TableFormat,
    check_files,
    check_inside,
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
    path: Path,
    wanted: Sequence[str],
    form: TableFormat = TableFormat(),
    group: str | None = None,
) -> Iterator[Row]:
    """Rows of a table with the columns `path[,group][,split]` and others.

    Args:
      path: the table.
      wanted: the required columns, including "path".
      form: what the user says of the table.
      group: as in `load`.

    Raises:
      DataError: the table is malformed, a group is in two splits, or no file exists.
    """
    table = read_table(path, wanted, form)
    check_files(path, [cells["path"] for cells in table if cells["path"]] or [""])
    splits: dict[str, str | None] = {}
    labels = [cells.get("group") for cells in table]
    if group is not None and (column := group.lower()) in table[0]:
        labels = [cells[column] for cells in table]
    elif group is not None:
        labels = groups_of(path, group, [cells["path"] for cells in table])
    for number, (cells, label) in enumerate(zip(table, labels, strict=True), start=1):
        where = f"{path}: entry {number}"
        if not cells["path"]:
            raise DataError(f"{where} has an empty path")
        split = None
        if "split" in cells and not (split := split_of(cells["split"])):
            raise DataError(
                f"{where} has the split {cells['split']!r}; expected train, "
                "validation (or val) or test"
            )
        check_inside(path, cells["path"], form)
        file = placed(path, cells["path"])
        label = label or str(file)
        _check_split(path, label, splits.setdefault(label, split), split)
        yield Row(where, cells, file, split, label)


def groups_of(path: Path, pattern: str, names: Sequence[str]) -> list[str]:
    """What the first parentheses of a regular expression match in each file name.

    Args:
      path: the folder or the table, which errors name.
      pattern: searched for in each name.
      names: paths below the folder, or as the table has them.

    Raises:
      DataError: no regular expression, one without parentheses, or a name that it does
        not match.
    """
    flag, reason = f"--data.group={pattern}", "it has no parentheses"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        compiled, reason = re.compile(""), str(error)
    if not compiled.groups:
        table = "neither a column of the table nor" if path.is_file() else "not"
        raise DataError(
            f"{flag}: {table} a regular expression whose parentheses match the name of "
            f"a group ({reason}); for names such as anna_01.png give "
            "--data.group='([^/]+)_'"
        )
    found = [compiled.search(name) for name in names]
    lost = [n for n, m in zip(names, found, strict=True) if not (m and m[1])]
    if lost:
        raise DataError(
            f"{path}: {len(lost)} of {len(names)} names have no group by {flag}, the "
            f"first is {lost[0]}; change the expression so that it matches all"
        )
    return [match[1] for match in found]


def with_groups(path: Path, items: Sequence[Any], group: str | None) -> list[Any]:
    """Items of a folder, each with a `name`, `split` and `group`, grouped by names.

    Args:
      path: the folder, which errors name.
      items: named tuples.
      group: as in `load`; None: as they are.

    Raises:
      DataError: as `groups_of`, or a group is in two splits.
    """
    if group is None:
        return [*items]
    labels = groups_of(path, group, [item.name for item in items])
    splits: dict[str, str | None] = {}
    for item, label in zip(items, labels, strict=True):
        _check_split(path, label, splits.setdefault(label, item.split), item.split)
    return [i._replace(group=label) for i, label in zip(items, labels, strict=True)]


def _check_split(path: Path, group: str, one: str | None, other: str | None) -> None:
    if one != other:
        raise DataError(
            f"{path}: group {group!r} is in {one} and in {other}; a group belongs to "
            "one split"
        )


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
