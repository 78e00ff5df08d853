"""Pictures from files: find them, decode them to uint8."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from lstm_jax.data.dataset import DataError

SUFFIXES = frozenset(
    ".png .jpg .jpeg .bmp .gif .tif .tiff .webp .ppm .pgm .pbm".split()
)
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_GREY = ("1", "L", "LA", "La", *_SIXTEEN_BIT)


def decode(file: BinaryIO, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """Decode one picture as `read_image` does, from an open binary file."""
    if shape[-1] not in (1, 3):
        raise DataError(f"images have 1 or 3 channels; shape {shape} wants {shape[-1]}")
    try:
        with Image.open(file) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode == "F":
                raise DataError("its pixels are floating point; save it as 8 or 16 bit")
            if image.mode in _SIXTEEN_BIT:
                wide = np.clip(np.asarray(image, np.int64), 0, 65535)
                image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
            return fit(image, shape)
    except Exception as error:  # Pillow's readers raise whatever they meet
        raise DataError(f"{name}: not a readable picture ({reason(error)})") from error


def fit(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture of 8 bit on white, stretched to `shape`, grey or RGB: uint8."""
    height, width, channels = shape
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(shape)


def decode_mask(file: BinaryIO, shape: tuple[int, int] | None, name: str) -> np.ndarray:
    """Decode one mask from an open binary file, as its pixels' numbers.

    Of a palette the indices count, not the colours. Another size is resampled to the
    nearest pixel; None keeps the size.

    Returns:
      uint8 [H, W].

    Raises:
      DataError: no picture, truncated, or of colours, whose classes nobody knows.
    """
    try:
        with Image.open(file) as opened:
            opened.load()
            mask = opened
            if mask.format == "JPEG":
                raise DataError("a JPEG changes the pixels' classes; save it as PNG")
            if mask.mode == "1":
                mask = mask.convert("L").point(lambda value: value and 1)
            if mask.mode in _SIXTEEN_BIT:
                wide = np.asarray(mask, np.int64)
                if wide.max(initial=0) > 255:
                    raise DataError(f"a pixel is {wide.max()}; classes are 0 to 255")
                mask = Image.fromarray(wide.astype(np.uint8))
            if mask.mode not in ("L", "P"):
                raise DataError(
                    f"of mode {mask.mode}; wanted is a grey or palette picture whose "
                    "pixels are classes 0, 1, 2 and so on"
                )
            if shape and mask.size != shape[::-1]:
                mask = mask.resize(shape[::-1], Image.Resampling.NEAREST)
            return np.asarray(mask, np.uint8)
    except Exception as error:  # Pillow's readers raise whatever they meet
        raise DataError(f"{name}: not a readable mask ({reason(error)})") from error


def read_image(path: str | os.PathLike, shape: tuple[int, int, int]) -> np.ndarray:
    """Read one picture of any size and mode.

    Transparent pixels are laid on white, 16-bit grey is scaled to 8, the EXIF rotation
    is applied, an animation gives its first frame.

    Args:
      path: the file.
      shape: (H, W, C) wanted, C = 1 (grey) or 3 (RGB); the picture is stretched to it.

    Returns:
      uint8 [H, W, C].

    Raises:
      DataError: the file is missing, no picture, or truncated (one line).
    """
    try:
        with open(path, "rb") as file:
            return decode(file, shape, os.fspath(path))
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: {reason(error)}") from error


def probe(path: Path) -> tuple[tuple[int, int], bool] | None:
    """((H, W), whether it is grey) from a file's head; None where it is unreadable."""
    try:
        with Image.open(path) as image:
            grey = image.mode in _GREY
            if image.mode in ("P", "PA"):
                pixels = np.asarray(image.convert("RGB"))
                grey = bool((pixels == pixels[..., :1]).all())
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # orientation: a quarter turn
                width, height = height, width
            return (height, width), grey
    except Exception:  # as in decode, which will give the reason
        return None


def picture_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of a picture's file, upright; None where it is unreadable."""
    found = probe(path)
    return found[0] if found else None


def find_images(folder: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """Every picture below a folder by its suffix, hidden ones left out, sorted.

    Other suffixes, of lower case, find other files.
    """
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))]
        for file in files:
            if not file.startswith(".") and Path(file).suffix.lower() in suffixes:
                found.append(Path(root, file))
    return sorted(found)


def read_table(path: Path, wanted: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file by lower-case column name; checks the columns wanted."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({reason(error)})") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    wanted = list(wanted)
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(map(repr, missing))}; its first line names "
            f"{', '.join(map(repr, header)) or 'nothing'}. Wanted are the columns "
            f"path,{'text' if 'text' in wanted else 'label'} and, if you like, group "
            "and split"
        )
    table = []
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}: row {line} has {len(row)} cells, the first has {len(header)}"
            )
        table.append(dict(zip(header, map(str.strip, row), strict=True)))
    if not table:
        raise DataError(f"{path}: no rows below the column names")
    return table


def image_paths(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """Picture files named by files, folders (searched to the bottom) and CSV tables.

    Args:
      paths: one or several; a CSV has a `path` column, relative to the CSV itself.

    Returns:
      The files in the order given, those of a folder sorted.

    Raises:
      DataError: a path does not exist, or a folder holds no picture.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: list[Path] = []
    for path in map(Path, paths):
        path = path.expanduser()
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if path.is_dir():
            inside = find_images(path)
            if not inside:
                raise DataError(
                    f"{path}: no picture in this folder ({', '.join(sorted(SUFFIXES))})"
                )
            found += inside
        elif path.suffix.lower() == ".csv":
            found += [path.parent / row["path"] for row in read_table(path, ["path"])]
        else:
            found.append(path)
    return found


def reason(error: Exception) -> str:
    """One line for what went wrong, without the path or an address in memory."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture format that Pillow knows"
    if strerror := getattr(error, "strerror", None):
        return strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
