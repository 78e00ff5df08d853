"""Clips with their labels, splits and groups, listed by a folder or a table."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.class_folders import EMPTY, find_class_folders, visible
from lstm_jax.data.files.clip_files import FEATURES, VIDEOS, frame_files, is_animated
from lstm_jax.data.files.csv_files import TABLES, TableFormat, placed, read_table
from lstm_jax.data.files.images import SUFFIXES
from lstm_jax.data.files.tables import table_rows

_SAMPLE = 5  # GIFs that are opened to decide whether a folder holds clips
_VALUES = {"0": 0.0, "1": 1.0, "": math.nan}  # the usual spellings
_COLUMNS = ("path", "step", "group", "split")


class Entry(NamedTuple):
    """A clip as listed, with its class, or the values of its label columns."""

    path: Path
    name: str
    split: str | None = None  # None: assigned at random
    group: str = ""
    label: str = ""  # "": unknown
    by_step: dict[int, list[float]] = {}  # values by step; -1: of the whole clip


def is_clip_dataset(
    path: Path, frames: int | None = None, form: TableFormat = TableFormat()
) -> bool:
    """Whether a folder or CSV lists clips or features; otherwise images.

    A class folder that directly holds images is one of images, unless it holds more
    clips than images. GIFs count as clips if one of the first few is animated. A folder
    of images in a class folder is a clip if `frames` is given; in a table it always is.
    """
    if path.is_dir():
        classes = find_class_folders(path).folders
        files = [f for _, folder in classes for f in visible(folder)]
    else:
        try:
            table = path.suffix.lower() in TABLES
            rows = read_table(path, ["path"], form) if table else []
        except DataError:
            return False
        written = dict.fromkeys(row["path"] for row in rows if row["path"])
        files = [placed(path, name) for name in written]
    kinds = Counter(file.suffix.lower() for file in files)
    clips = sum(kinds[suffix] for suffix in (*VIDEOS, FEATURES))
    gifs = [file for file in files if file.suffix.lower() == ".gif"]
    stills = sum(kinds[suffix] for suffix in SUFFIXES) - len(gifs)
    if stills == 0 and any(map(is_animated, gifs[:: len(gifs) // _SAMPLE + 1])):
        clips += len(gifs)
    else:
        stills += len(gifs)
    if stills or clips:
        return clips > stills
    if path.is_dir() and frames is None:
        return False
    return any(file.is_dir() and frame_files(file) for file in files)


def list_folder(path: Path) -> tuple[list[Entry], list[str]]:
    """Lists CLASS/clip, files or folders of frames, and notes on what is left out."""
    found = find_class_folders(path)
    empty = [line for line in found.ignored if line.endswith(EMPTY)]
    entries, notes, beside = [], [*found.lost, *empty], 0
    wanted = {*VIDEOS, ".gif", FEATURES}
    for split, folder in found.folders:
        inside = visible(folder)
        clips = [f for f in inside if f.is_dir() or f.suffix.lower() in wanted]
        beside += sum(f.suffix.lower() in SUFFIXES for f in set(inside) - set(clips))
        if not clips:
            notes.append(f"{folder}: no clips in it; the folder is left out")
        for file in clips:
            name = file.relative_to(path).as_posix()
            entries.append(Entry(file, name, split, name, folder.name))
    folders = sum(entry.path.is_dir() for entry in entries)
    if folders:
        notes.append(f"{folders} folders of images are read as one clip each")
    if beside:
        notes.append(f"{beside} images beside the clips are left out")
    return entries, notes


def list_table(
    path: Path, form: TableFormat = TableFormat(), group: str | None = None
) -> tuple[list[Entry], tuple[str, ...] | None, bool]:
    """Lists a table `path[,group][,split]` with `label`, or columns of 0 and 1.

    Args:
      path: the table.
      group: as in `load`.

    Returns:
      (entries; label names, or None if a column `label` names the class; whether a
      column `step` gives labels per step).
    """
    rows = [*table_rows(path, ["path"], form, group)]
    header = rows[0].cells
    by_step = "step" in header
    single = "label" in header and not by_step
    other = (*_COLUMNS, group.lower()) if group else _COLUMNS
    columns = tuple(name for name in header if name and name not in other)
    if not columns:
        raise DataError(
            f"{path}: no label column; expected the column label, or one column "
            "of 0 and 1 for each label"
        )
    entries: dict[object, Entry] = {}
    for number, (where, cells, file, split, own) in enumerate(rows):
        entry = Entry(file, cells["path"], split, own)
        if single:
            if not cells["label"] and split != "test":
                raise DataError(f"{where} has an empty label")
            entries[number] = entry._replace(label=cells["label"])
            continue
        step = _step(cells["step"], where) if by_step else -1
        key = entry.name if by_step else number
        entry = entries.setdefault(key, entry._replace(by_step={}))
        if own not in (entry.group, str(file)):
            raise DataError(
                f"{where}: {entry.name} is in the group {own!r} and in "
                f"{entry.group!r}; a clip belongs to one group"
            )
        if step in entry.by_step:
            raise DataError(f"{where}: step {step} of {entry.name} is listed twice")
        entry.by_step[step] = [_binary(cells[name], name, where) for name in columns]
    return list(entries.values()), None if single else columns, by_step


def _step(text: str, where: str) -> int:
    if not text.isdecimal():
        raise DataError(f"{where} has the step {text!r}; expected 0, 1, 2, …")
    return int(text)


def _binary(text: str, column: str, where: str) -> float:
    if text in _VALUES:
        return _VALUES[text]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value not in (0, 1) and not math.isnan(value):
        raise DataError(
            f"{where} has {text!r} in the column {column}; expected 0, 1, or empty "
            "if unknown"
        )
    return value
