"""Checks of untrusted data: paths outside its folder, and unprintable names."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.characters import clean

FOLLOW = "--data.follow-outside"
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control, surrogate, line and paragraph


def check_folder(path: Path) -> None:
    """Raises DataError if a folder is the file system's root or the home folder."""
    real = Path(os.path.realpath(path))
    what = {Path(real.anchor): "the whole file system"}
    what |= {Path(os.path.realpath(Path.home())): "your home folder"}
    if real in what:
        raise DataError(
            f"{path}: is {what[real]}, which is not searched; give the folder of the "
            "data set"
        )


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is below a folder; resolves `..`, but not symbolic links."""
    path, folder = (Path(os.path.normpath(p.absolute())) for p in (path, folder))
    return path.is_relative_to(folder)


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raises DataError if a class name cannot be printed.

    Such names contain terminal escape sequences, or bytes that are not UTF-8.
    """
    for name in names:
        if not printable(name):
            raise DataError(
                f"{path}: the class name {ascii(name)} has a character that cannot be "
                "printed, or is not UTF-8; rename the class"
            )


def check_alike(path: Path, names: Iterable[str]) -> None:
    """Raises DataError if two class names differ only by what cannot be seen.

    These are characters without a shape, spaces, and composed or decomposed accents.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(clean(name), name)
        if other != name:
            raise DataError(
                f"{path}: the classes {ascii(other)} and {ascii(name)} look alike; if "
                "they are one class, give them the same name"
            )


def printable(text: str) -> bool:
    """Whether a text has no control characters, surrogates or line separators."""
    return all(unicodedata.category(c) not in _UNPRINTABLE for c in text)
