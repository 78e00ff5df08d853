"""Image files: find them and decode them to uint8."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.csv_files import placed, read_table
from lstm_jax.data.files.file_tree import walk
from lstm_jax.data.files.mask_colors import Classes, color_indices

SUFFIXES = frozenset(
    ".png .jpg .jpeg .bmp .gif .tif .tiff .webp .ppm .pgm .pbm".split()
)
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_GREY = ("1", "L", "LA", "La", *_SIXTEEN_BIT)


def decode(file: BinaryIO, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """Decode one image from an open binary file; see `read_image`."""
    if shape[-1] not in (1, 3):
        raise DataError(f"images have 1 or 3 channels; shape {shape} has {shape[-1]}")
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
    except Exception as error:  # Pillow raises exceptions of many types
        raise DataError(f"{name}: not a readable image ({reason(error)})") from error


def fit(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Resizes an 8-bit image, on a white background, to `shape`: uint8 [H, W, C]."""
    height, width, channels = shape
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(shape)


def decode_mask(
    file: BinaryIO,
    shape: tuple[int, int] | None,
    name: str,
    classes: Classes = Classes(),
) -> np.ndarray:
    """Decode a segmentation mask from an open binary file; pixel values are classes.

    In a palette image the palette indices are the classes, not the colours, unless
    `classes` names colours.

    Args:
      file: PNG or another lossless format: grey, palette, or in colours.
      shape: (H, W) to resize to, nearest neighbour; None keeps the size.
      name: of the file, for errors.
      classes: the colours of classes, if masks are in colours.

    Returns:
      uint8 [H, W].

    Raises:
      DataError: not an image, truncated, a JPEG, or a colour has no class.
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
            if classes.colors or mask.mode not in ("L", "P"):
                mask = Image.fromarray(color_indices(mask, classes))
            if shape and mask.size != shape[::-1]:
                mask = mask.resize(shape[::-1], Image.Resampling.NEAREST)
            return np.asarray(mask, np.uint8)
    except Exception as error:  # Pillow raises exceptions of many types
        raise DataError(f"{name}: not a readable mask ({reason(error)})") from error


def read_image(path: str | os.PathLike, shape: tuple[int, int, int]) -> np.ndarray:
    """Read one image of any size and mode.

    Transparent pixels are composited on white, 16-bit grey is scaled to 8 bits, the
    EXIF rotation is applied, and an animation gives its first frame.

    Args:
      path: the file.
      shape: (H, W, C) of the result, C = 1 (grey) or 3 (RGB); the image is resized
        without keeping its aspect ratio.

    Returns:
      uint8 [H, W, C].

    Raises:
      DataError: the file is missing, not an image, or truncated; one line.
    """
    try:
        with open(path, "rb") as file:
            return decode(file, shape, os.fspath(path))
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: {reason(error)}") from error


def probe(path: Path) -> tuple[tuple[int, int], bool] | None:
    """((H, W), whether it is grey) from the file's header; None if unreadable."""
    try:
        with Image.open(path) as image:
            grey = image.mode in _GREY
            if image.mode in ("P", "PA"):
                pixels = np.asarray(image.convert("RGB"))
                grey = bool((pixels == pixels[..., :1]).all())
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # orientation: rotated by 90°
                width, height = height, width
            return (height, width), grey
    except Exception:  # as in `decode`, which reports the reason
        return None


def image_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of an image file after EXIF rotation; None if it is unreadable."""
    found = probe(path)
    return found[0] if found else None


def find_images(folder: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """All image files below a folder, sorted; see `walk`.

    Args:
      folder: searched recursively.
      suffixes: lower-case suffixes of the files to find.
    """
    return walk([folder], suffixes).files[0]


def image_paths(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """Image files given by files, folders (searched recursively) and CSV tables.

    Args:
      paths: one or several; a CSV has a column `path`, relative to the CSV.

    Returns:
      The files in the order given; those of a folder are sorted.

    Raises:
      DataError: a path does not exist, or a folder holds no image.
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
                    f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})"
                )
            found += inside
        elif path.suffix.lower() in (".csv", ".tsv"):
            found += [placed(path, row["path"]) for row in read_table(path, ["path"])]
        else:
            found.append(path)
    return found


def reason(error: Exception) -> str:
    """One line that describes an error, without paths or memory addresses."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image format that Pillow knows"
    if strerror := getattr(error, "strerror", None):
        return strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
