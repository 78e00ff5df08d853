"""Recursive search for files; each folder is read once, also through symbolic links."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lstm_jax.data.dataset import DataError

MOST_FILES = 3_000_000  # more images of 32x32x3 exceed the limit for decoded data


class Tree(NamedTuple):
    """Files below some folders.

    Attributes:
      files: the sorted files of each folder.
      notes: one line for each symbolic link that is not followed.
    """

    files: list[list[Path]]
    notes: list[str]


def hidden(name: str) -> bool:
    """Whether a file is ignored because of its name."""
    return name.startswith((".", "__MACOSX", "__pycache__"))


def walk(
    folders: Sequence[Path], suffixes: Iterable[str], top: Path | None = None
) -> Tree:
    """Finds the files below folders, except hidden ones.

    Folders that are not symbolic links are read first. A link to a folder is then
    followed if its target has not been read and does not contain `top`, so that no
    file is found twice and no cycle is followed.

    Args:
      folders: the folders to search recursively.
      suffixes: lower-case suffixes of the files to find.
      top: the folder that contains all others; None: the first of `folders`.

    Raises:
      DataError: a folder holds more than MOST_FILES.
    """
    suffixes, seen = frozenset(suffixes), set()
    found: list[list[Path]] = [[] for _ in folders]
    above = {_identity(f) for f in _above(top or next(iter(folders), None))}
    links, notes = [], []

    def read(start: Path, number: int) -> None:
        for path, is_link in _contents(start, seen):
            if is_link:
                links.append((path, number))
            elif path.suffix.lower() in suffixes:
                found[number].append(path)

    for number, folder in enumerate(folders):
        if folder.is_symlink():
            links.append((folder, number))
        else:
            read(folder, number)
    while links:
        links.sort(reverse=True)
        link, number = links.pop()
        key = _identity(link)
        given = top is None and link == folders[number]
        if key in above and not given:
            notes.append(f"left out {link}: a link to a folder that contains it")
        elif key in seen:
            notes.append(f"left out {link}: a link to a folder that was already read")
        else:
            read(link, number)
    return Tree([sorted(files) for files in found], notes)


def holds(folder: Path, suffixes: Iterable[str], *, deep: bool = False) -> bool:
    """Whether a folder has files with the suffixes; `deep`: also in its subfolders."""
    return any(True for _ in _files(folder, frozenset(suffixes), deep))


def count(folder: Path, suffixes: Iterable[str], *, deep: bool = False) -> int:
    """The number of files with the suffixes; `deep`: also those in subfolders."""
    return sum(1 for _ in _files(folder, frozenset(suffixes), deep))


def _files(folder: Path, suffixes: frozenset, deep: bool) -> Iterator[Path]:
    for path, is_link in _contents(folder, set(), deep=deep):
        if not is_link and path.suffix.lower() in suffixes:
            yield path


def _contents(
    start: Path, seen: set, *, deep: bool = True
) -> Iterator[tuple[Path, bool]]:
    """Files in a folder, and links to folders: (path, whether it is such a link).

    Args:
      start: the folder.
      seen: identities of folders that are not read again; those read are added.
      deep: also in its subfolders.

    Raises:
      DataError: there are more than MOST_FILES.
    """
    waiting, total = [start], 0
    while waiting:
        here = waiting.pop()
        key = _identity(here)
        if key is None or key in seen:
            continue
        seen.add(key)
        inside = _entries(here)
        total += len(inside)
        if total > MOST_FILES:
            raise DataError(
                f"{start}: holds more than {MOST_FILES:,} files and folders, which are "
                "not searched; give the folder of the data set"
            )
        for entry in inside:
            path = here / entry.name
            if not _is_folder(entry):
                yield path, False
            elif entry.is_symlink():
                yield path, True
            elif deep:
                waiting.append(path)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as inside:
            return [entry for entry in inside if not hidden(entry.name)]
    except OSError:  # no permission, or deleted meanwhile
        return []


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int] | None:
    """(device, inode) of a folder, the same for all its paths; None on errors."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _above(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        real = Path(os.path.realpath(folder))
        yield from (real, *real.parents)
