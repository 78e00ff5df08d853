"""Class names and class colours of segmentation masks."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lstm_jax.data.dataset import DataError
from lstm_jax.targets import VOID

NAMES = "classes.txt"
# Colour tables of Kaggle's CamVid, of CamVid itself and of CVAT.
_TABLES = (NAMES, "class_dict.csv", "label_colors.txt", "labelmap.txt")
_COLOR = re.compile(r"(?<!\d)(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?!\d)")
_IGNORED = ("void", "ignore", "ignored")  # names of colours whose pixels are ignored


class Classes(NamedTuple):
    """Classes as listed in a file beside the masks.

    Attributes:
      names: class names in index order; None: there is no file.
      colors: (r, g, b, index) of each class, and of ignored pixels, with index 255;
        (): pixel values are class indices.
      file: the name of the file.
    """

    names: list[str] | None = None
    colors: tuple[tuple[int, int, int, int], ...] = ()
    file: str = NAMES


def read_classes(path: Path) -> Classes:
    """Reads the classes from classes.txt or a colour table in a folder.

    Each line is NAME or, for masks in colours, NAME R G B, with the name before or
    after the colour and any separator. Colours named void or ignore mark ignored
    pixels.

    Raises:
      DataError: the file is malformed.
    """
    file = next((path / name for name in _TABLES if (path / name).is_file()), None)
    if file is None:
        return Classes()
    try:
        lines = file.read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable text ({error})") from error
    if file.name != NAMES:
        lines = [line for line in lines if not line.startswith("#") and line.strip()]
        lines = lines[not _COLOR.search(lines[0]) :] if lines else []  # a header
    found = [_COLOR.search(line) for line in lines]
    if not any(found):
        if file.name != NAMES:
            raise DataError(f"{file}: no colours; expected lines NAME R G B")
        return Classes(_checked(file, [line.strip() for line in lines]))
    names, colors = [], []
    for number, (line, match) in enumerate(zip(lines, found, strict=True), start=1):
        if not match or max(map(int, match.groups())) > 255:
            raise DataError(
                f"{file}: {line.strip()!r} has no colour; expected NAME R G B, with "
                "numbers 0 to 255, in each line"
            )
        name = (line[: match.start()] + " " + line[match.end() :]).strip(" \t:;,")
        index = VOID if name.lower() in _IGNORED else len(names)
        if index != VOID:
            names.append(name or f"{number}")
        colors.append((*map(int, match.groups()), index))
    twice = [c[:3] for c in colors if sum(c[:3] == d[:3] for d in colors) > 1]
    if twice:
        raise DataError(f"{file}: names the colour {_shown(twice[0])} twice")
    return Classes(_checked(file, names), tuple(colors), file.name)


def _checked(file: Path, names: list[str]) -> list[str]:
    if not 2 <= len(names) <= VOID:
        raise DataError(f"{file}: names {len(names)} classes; expected 2 to {VOID}")
    if "" in names:
        raise DataError(f"{file}: line {names.index('') + 1} is empty; name the class")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: names {twice[0]!r} twice")
    return names


def color_indices(image: Image.Image, classes: Classes) -> np.ndarray:
    """Class indices of a mask in colours, or in three equal channels.

    Args:
      image: an image of any 8-bit mode.
      classes: classes with their colours; without, all channels must be equal.

    Returns:
      uint8 [H, W].

    Raises:
      DataError: a colour has no class, or pixels are transparent.
    """
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min(initial=255) < 255:
            raise DataError("pixels are transparent; save the mask without alpha")
    pixels = np.asarray(image.convert("RGB"))
    if not classes.colors:
        differ = (pixels != pixels[..., :1]).any(-1)
        if differ.any():
            raise DataError(
                f"in colours, such as {_shown(pixels[differ][0])}; name the class of "
                f"each colour in {NAMES}, in lines NAME R G B"
            )
        return pixels[..., 0]
    codes = pixels.astype(np.int32) @ np.asarray([65536, 256, 1], np.int32)
    table = np.asarray([(r << 16 | g << 8 | b, k) for r, g, b, k in classes.colors])
    table = table[table[:, 0].argsort()]
    at = np.searchsorted(table[:, 0], codes).clip(max=len(table) - 1)
    unknown = table[at, 0] != codes
    if unknown.any():
        if image.mode in ("L", "P"):
            return np.asarray(image)  # class indices, although there are colours
        raise DataError(
            f"a pixel has the colour {_shown(pixels[unknown][0])}, which "
            f"{classes.file} does not name"
        )
    return table[at, 1].astype(np.uint8)


def _shown(color) -> str:
    return " ".join(str(int(value)) for value in color[:3])
