"""Image files: find them and decode them to uint8."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.csv_files import (
    TABLES,
    TableFormat,
    check_inside,
    placed,
    read_table,
)
from lstm_jax.data.files.decoding import (
    JPEG,
    check_whole,
    decode_large,
    is_grey_png,
    is_large,
    load_8_bits,
    sample_depth,
    to_array,
)
from lstm_jax.data.files.depth import WIDE_MODES
from lstm_jax.data.files.file_tree import walk
from lstm_jax.data.files.limits import check_folder
from lstm_jax.data.files.mask_colors import Classes, color_indices
from lstm_jax.data.files.orientation import Geometry, geometry_of, upright
from lstm_jax.data.files.placement import FITS

SUFFIXES = frozenset(
    ".png .jpg .jpeg .bmp .gif .tif .tiff .webp .ppm .pgm .pbm".split()
)
_GREY = ("1", "L", "LA", "La", *WIDE_MODES)


class Head(NamedTuple):
    """What `probe` finds out about an image file.

    Attributes:
      size: (H, W) of the upright image.
      grey: whether it is grey.
      geometry: how the stored pixels become upright.
      pages: pages or frames in the file, of which the first is read.
      depth: bits that its samples use, if it has more than 8; else None.
    """

    size: tuple[int, int]
    grey: bool
    geometry: Geometry
    pages: int = 1
    depth: int | None = None


def decode(
    file: BinaryIO,
    shape: tuple[int, int, int],
    name: str,
    depth: int | None = None,
    fit: str = FITS[0],
) -> np.ndarray:
    """Decode one image from an open binary file; see `read_image`."""
    if shape[-1] not in (1, 3):
        raise DataError(f"images have 1 or 3 channels; shape {shape} has {shape[-1]}")
    try:
        with Image.open(file) as opened:
            geometry = geometry_of(opened)
            if is_large(opened):
                return decode_large(opened, geometry, shape, depth, fit)
            image = load_8_bits(opened, depth)
            if opened.format != "TIFF":  # which Pillow turns while it decodes
                image = upright(image, geometry)
            return to_array(image, shape, fit)
    except Exception as error:  # Pillow raises exceptions of many types
        raise DataError(f"{name}: not a readable image ({reason(error)})") from error


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
      file: PNG or another lossless format: grey, palette, or in colours; its own EXIF
        orientation is applied.
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
            if opened.format in JPEG:
                raise DataError("a JPEG changes the pixels' classes; save it as PNG")
            geometry = geometry_of(opened)
            check_whole(opened, "masks")
            opened.load()
            mask = opened
            if opened.format != "TIFF":  # which Pillow turns while it decodes
                mask = upright(opened, geometry)
            if mask.mode == "1":
                mask = mask.convert("L").point(lambda value: value and 1)
            if mask.mode in WIDE_MODES:
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


def read_image(
    path: str | os.PathLike,
    shape: tuple[int, int, int],
    depth: int | None = None,
    fit: str = FITS[0],
) -> np.ndarray:
    """Read one image of any size and mode.

    Transparent pixels are composited on white, the EXIF orientation is applied, and of
    several pages or frames the first is read. Memory is bounded by the requested size
    for PNG and JPEG files that are not interlaced or progressive; others are decoded
    whole, up to 64 megapixels.

    Args:
      path: the file.
      shape: (H, W, C) of the result, C = 1 (grey) or 3 (RGB).
      depth: bits of samples of more than 8 bits: 2^depth - 1 becomes 255. None: 8, 10,
        12, 14 or 16, the least that holds the largest sample of the image.
      fit: "squash" changes the aspect ratio, "crop" uses the central part, and
        "letterbox" leaves a grey border.

    Returns:
      uint8 [H, W, C].

    Raises:
      DataError: the file is missing, not an image, truncated, or too large; one line.
    """
    try:
        with open(path, "rb") as file:
            return decode(file, shape, os.fspath(path), depth, fit)
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: {reason(error)}") from error


def probe(path: Path) -> Head | None:
    """What an image file holds, mostly from its header; None if it is unreadable."""
    try:
        with Image.open(path) as image:
            geometry = geometry_of(image)
            depth, pages = sample_depth(image), _pages(image)
            return Head(geometry.shown, _is_grey(image), geometry, pages, depth)
    except Exception:  # as in `decode`, which reports the reason
        return None


def _is_grey(image: Image.Image) -> bool:
    if image.mode in _GREY or is_grey_png(image):
        return True
    if image.mode not in ("P", "PA"):
        return False
    if is_large(image):
        pixels = np.reshape(image.getpalette(), (-1, 3))
    else:
        pixels = np.asarray(image.convert("RGBA"))[..., :3]
    return bool((pixels == pixels[..., :1]).all())


def pages_note(pages: Mapping[Path, int]) -> list[str]:
    """A note on image files of which only the first page or frame is read."""
    several = [(path, count) for path, count in pages.items() if count > 1]
    if not several:
        return []
    path, count = several[0]
    files = "1 file has" if len(several) == 1 else f"{len(several):,} files have"
    return [
        f"{files} several pages or frames, of which only the first is read: {path} "
        f"has {count}"
    ]


def page_count(path: Path) -> int:
    """Pages or frames of an image file; 0 if it is unreadable."""
    try:
        with Image.open(path) as image:
            return _pages(image)
    except Exception:  # as in `decode`, which reports the reason
        return 0


def _pages(image: Image.Image) -> int:
    # The further images of an MPO are previews and depths of the first.
    return 1 if image.format in JPEG else getattr(image, "n_frames", 1)


def image_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of an image file after EXIF rotation; None if it is unreadable."""
    geometry = image_geometry(path)
    return geometry and geometry.shown


def image_geometry(path: Path) -> Geometry | None:
    """How the pixels of an image file become upright; None if it is unreadable."""
    try:
        with Image.open(path) as image:
            return geometry_of(image)
    except Exception:  # as in `decode`, which reports the reason
        return None


def find_images(folder: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """All image files below a folder, sorted; see `walk`.

    Args:
      folder: searched recursively.
      suffixes: lower-case suffixes of the files to find.
    """
    return walk([folder], suffixes).files[0]


def image_paths(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    form: TableFormat = TableFormat(),
) -> list[Path]:
    """Image files given by files, folders (searched recursively) and CSV tables.

    Args:
      paths: one or several; a CSV has a column `path`, relative to the CSV.
      form: the user's options for tables.

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
            check_folder(path)
            inside = find_images(path)
            if not inside:
                raise DataError(
                    f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})"
                )
            found += inside
        elif path.suffix.lower() in TABLES:
            for row in read_table(path, ["path"], form):
                check_inside(path, row["path"], form)
                found.append(placed(path, row["path"]))
        else:
            found.append(path)
    return found


def reason(error: Exception) -> str:
    """One line that describes an error, without paths or memory addresses."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown file format, or a damaged file"
    if strerror := getattr(error, "strerror", None):
        return strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
