"""Class folders: CLASS/image, or SPLIT/CLASS/image; what else lies there is named."""

from pathlib import Path
from typing import NamedTuple

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.clip_files import FEATURES, VIDEOS
from lstm_jax.data.files.file_tree import count, hidden, holds
from lstm_jax.data.files.images import SUFFIXES
from lstm_jax.data.files.split_names import one_each, split_of

EXAMPLES = frozenset({*SUFFIXES, *VIDEOS, FEATURES})
EMPTY = "holds no image, clip or features"  # how lines on empty folders end


class ClassFolder(NamedTuple):
    """A folder whose name is a class; split None: its examples are split at random."""

    split: str | None
    path: Path


class ClassFolders(NamedTuple):
    """The class folders of a data set.

    Attributes:
      folders: sorted by split folder and name.
      ignored: a line for each thing beside them that holds no example.
      lost: a line for each thing beside them that holds some.
    """

    folders: tuple[ClassFolder, ...]
    ignored: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


class _Folder(NamedTuple):
    path: Path
    split: str | None  # that its name spells
    flat: bool  # whether it holds examples itself
    inside: tuple[Path, ...]  # folders in it that hold examples

    @property
    def name(self) -> str:
        return f"{self.path.name}/"

    @property
    def bare(self) -> bool:
        return not (self.flat or self.inside)


def visible(folder: Path) -> list[Path]:
    """Contents of a folder, sorted, without hidden files."""
    return sorted(f for f in folder.iterdir() if not hidden(f.name))


def find_class_folders(path: Path) -> ClassFolders:
    """The class folders in a folder; splits may have any common name, in any case.

    A folder whose name spells a split is one if it holds class folders. Folders beside
    the splits are left out, and listed.

    Raises:
      DataError: the folders can be understood in several ways, or do not lie as
        expected; the message says what was seen and what to do.
    """
    folders = [_look(f) for f in visible(path) if f.is_dir()]
    splits = [f for f in folders if f.split and f.inside]
    others = [f for f in folders if not f.split and not f.bare]
    train = [f for f in folders if f.split == "train"]
    if any(f.inside for f in train):
        return _split(path, folders, splits, others)
    named = [f for f in folders if f.split]
    if train and (not others or len(named) > 1):
        _refuse_flat(path, named, others)
    if splits:
        raise DataError(
            f"{path}: {splits[0].name} holds class folders, but there is no train/; "
            + (
                f"move {others[0].name} and other classes into {path.name}/train/"
                if others
                else f"expected {path.name}/train/CLASS/image"
            )
        )
    full = [f for f in folders if not f.bare]
    if len(full) == 1 and not full[0].flat and len(full[0].inside) > 1:
        raise DataError(
            f"{path}: its only folder with files is {full[0].name}, which holds "
            f"{_names(full[0].inside)}; give --data={path / full[0].path.name}"
        )
    within = [f for f in others if _splits_within(f)]
    if within:
        raise DataError(
            f"{path}: {within[0].name} holds {_names(within[0].inside)}, a split in a "
            f"class; expected {path.name}/train/{within[0].name}image"
        )
    return ClassFolders(
        tuple(ClassFolder(None, f.path) for f in full),
        tuple(f"{f.name} {EMPTY}" for f in folders if f.bare) + _files(path),
        _loose(path, path.name + "/") if full else (),
    )


def _look(folder: Path) -> _Folder:
    inside = [f for f in _visible(folder) if f.is_dir()]
    return _Folder(
        folder,
        split_of(folder.name),
        holds(folder, EXAMPLES),
        tuple(f for f in inside if holds(f, EXAMPLES, deep=True)),
    )


def _visible(folder: Path) -> list[Path]:
    try:
        return visible(folder)
    except OSError:
        return []


def _splits_within(folder: _Folder) -> bool:
    words = [split_of(f.name) for f in folder.inside]
    return not folder.flat and len(words) > 1 and "train" in words and all(words)


def _split(path, folders, splits, others) -> ClassFolders:
    """The class folders of split folders."""
    if len(splits) == 1 and others:
        raise DataError(
            f"{path}: holds {splits[0].name} with class folders, and "
            f"{_names([f.path for f in others])} beside it; is {splits[0].name} a "
            f"split or a class? Move {others[0].name} elsewhere, or rename "
            f"{splits[0].name}"
        )
    found = one_each(path, [(f.split, f.path) for f in splits])
    kept, ignored, lost = [], [*_files(path)], [*_loose(path, path.name + "/")]
    for split, folder in found.items():
        top = folder
        only = [f for f in _visible(top) if f.is_dir()]
        while len(only) == 1 and split_of(only[0].name) == split:
            top = only[0]  # as seg_train/seg_train/CLASS
            only = [f for f in _visible(top) if f.is_dir()]
        for inside in only:
            where = inside.relative_to(path).as_posix()
            if holds(inside, EXAMPLES, deep=True):
                kept.append(ClassFolder(split, inside))
            else:
                ignored.append(f"{where}/ {EMPTY}")
        lost += _loose(top, top.relative_to(path).as_posix() + "/")
    for folder in folders:
        if folder.path in found.values():
            continue
        if folder.bare:
            ignored.append(f"{folder.name} {EMPTY}")
        else:
            what = "no class folders" if folder.split else "not a split"
            number = count(folder.path, EXAMPLES, deep=True)
            lost.append(f"left out {folder.name}: {what} ({number} files)")
    return ClassFolders(tuple(kept), tuple(ignored), tuple(lost))


def _refuse_flat(path: Path, named: list[_Folder], others: list[_Folder]) -> None:
    train = next(f for f in named if f.split == "train")
    splits = _names([f.path for f in named])
    if others:
        raise DataError(
            f"{path}: holds {splits} without class folders, and "
            f"{_names([f.path for f in others])} beside them; for splits, expected "
            f"{train.name}CLASS/image; for classes, rename {train.name}"
        )
    what = "files, but no class folders" if train.flat else "no images or clips"
    raise DataError(
        f"{path}: {train.name} holds {what}; expected {train.name}CLASS/image, at "
        "least two classes, or a table with the columns path,label"
    )


def _names(folders) -> str:
    names = [f"{f.name}/" for f in folders]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _loose(folder: Path, where: str) -> tuple[str, ...]:
    """A line on examples directly in a folder, which have no class."""
    number = count(folder, EXAMPLES)
    line = f"left out {number} files directly in {where}: they are in no class folder"
    return (line,) if number else ()


def _files(path: Path) -> tuple[str, ...]:
    """A line on the other files directly in a folder."""
    files = [
        f.name
        for f in visible(path)
        if not f.is_dir() and f.suffix.lower() not in EXAMPLES
    ]
    if not files:
        return ()
    return (f"{len(files)} other files, such as {files[0]}",)
