"""Decoding of text-line images: grey, one height, individual widths."""

import concurrent.futures
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from lstm_jax.data.cache import new_array
from lstm_jax.data.dataset import LARGEST, DataError, check_size
from lstm_jax.data.files.decoding import to_array
from lstm_jax.data.files.images import (
    image_size,
    page_count,
    pages_note,
    read_image,
)
from lstm_jax.data.files.read_options import ReadOptions, counted
from lstm_jax.data.files.tables import first_few

HEIGHT = 32  # default height that lines are scaled to, pixels
LOWEST = 4  # minimum height of a line in its file, pixels
WIDEST = 4096  # maximum width of a scaled line, pixels
PAPER = 255  # padding to the right of a line

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive


class Cut(NamedTuple):
    """Where a text line is on its page image.

    Attributes:
      box: the crop.
      outline: polygon (x, y) in pixels, three points or more; (): the whole box.
    """

    box: Box
    outline: tuple[tuple[float, float], ...] = ()


class Line(NamedTuple):
    """A text line and its image.

    Attributes:
      image: the image file; the page image if there is a cut.
      text: the transcription.
      label: how notes refer to the line.
      name: the path relative to the data set's folder, or as written in the table.
      split: None: assigned at random.
      group: lines of one group stay in the same split; None: its own group.
      cut: None: the whole image is the line.
    """

    image: Path
    text: str
    label: str
    name: str
    split: str | None = None
    group: str | None = None
    cut: Cut | None = None


def read_line(path: str | os.PathLike, height: int = HEIGHT) -> np.ndarray:
    """Read the image of one text line, preprocessed as in `load_lines`.

    Args:
      path: the file.
      height: to scale to, pixels; the aspect ratio is kept.

    Returns:
      uint8 [height, W, 1].

    Raises:
      DataError: the file cannot be read, is of one colour, lower than 4 pixels or,
        scaled, wider than 4,096 pixels; one line.
    """
    line = Line(Path(path), "", os.fspath(path), "")
    box, width = _place(line, _size(line.image), height)
    return _scaled(line, None, box, (height, width, 1))


def read_page_lines(
    lines: Sequence[Line], height: int
) -> list[tuple[np.ndarray, Box] | DataError]:
    """Cut lines out of their page image, which is decoded once.

    Args:
      lines: of one page, each with a cut.
      height: to scale to, pixels.

    Returns:
      For each line `(uint8 [height, W, 1], its box on the page)`, or why it cannot be
      cut.
    """
    found: list[tuple[np.ndarray, Box] | DataError] = []
    try:
        size = _size(lines[0].image)
        page = read_image(lines[0].image, (*size, 1))
    except DataError as error:
        return [error] * len(lines)
    for line in lines:
        try:
            box, width = _place(line, size, height)
            found.append((_scaled(line, page, box, (height, width, 1)), box))
        except DataError as error:
            found.append(error)
    return found


def decode_lines(
    source: Path, lines: Sequence[Line], options: ReadOptions, folder: Path
) -> dict:
    """Decode the readable lines to images.npy [N, H, W, 1] and widths.npy [N].

    Args:
      source: the data set's path, for errors.
      lines: lines of one page are decoded together.
      options: `size` is the height to scale to, pixels; None: 32.
      folder: where the files are written.

    Returns:
      dict: "kept", the index of each line that was read; "notes".

    Raises:
      DataError: no line can be read, or they exceed the size limit.
    """
    height = options.size or HEIGHT
    pages: dict[Path, dict[int, Line]] = {}
    for number, line in enumerate(lines):
        pages.setdefault(line.image, {})[number] = line
    kept, widths, failed = [], [], []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        places = []
        for found, faults in pool.map(lambda p: _places(*p, height), pages.items()):
            places.append(found)
            failed += faults
        # Compute the sizes first: they determine the total memory.
        widest = max((w for found in places for _, w in found.values()), default=1)
        total = sum(map(len, places)) * height * widest
        remedy = "give a smaller --data.size, or cut the longest lines"
        check_size(source, total, f"lines at {height}x{widest}", LARGEST, remedy)
        shape = (max(sum(map(len, places)), 1), height, widest, 1)
        images = new_array(folder / "images.npy", np.uint8, shape)
        read = pool.map(lambda p, q: _read(*p, q, height), pages.items(), places)
        for found, faults in counted(read, len(pages), options):
            failed += faults
            for number, image in found.items():
                row, width = images[len(kept)], image.shape[1]
                row[:, :width], row[:, width:] = image, PAPER
                kept.append(number)
                widths.append(width)
        images.flush()
    if not kept:
        raise DataError(
            f"{source}: none of its {len(lines)} lines can be read; the first: "
            f"{failed[0]}"
        )
    np.save(folder / "widths.npy", np.asarray(widths, np.int32))
    failed = [f"skipped {fault}" for fault in failed]
    notes = first_few(failed, "skipped {} more lines that cannot be read")
    notes += pages_note({path: page_count(path) for path in pages})
    return {"kept": kept, "notes": notes}


def _size(path: Path) -> tuple[int, int]:
    size = image_size(path)
    if size is None:
        read_image(path, (1, 1, 1))  # raises, with the reason
        raise DataError(f"{path}: its size cannot be determined")
    return size


def _place(line: Line, size: tuple[int, int], height: int) -> tuple[Box, int]:
    """The crop of a line in an image of size (h, w), and its scaled width."""
    h, w = size
    x0, y0, x1, y1 = line.cut.box if line.cut else (0, 0, w, h)
    box = x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, w), min(y1, h)
    if x0 >= x1 or y0 >= y1:
        raise DataError(
            f"{line.label}: lies outside its page, {line.image.name} is {h}x{w}"
        )
    if y1 - y0 < LOWEST:
        pixels = "1 pixel" if y1 - y0 == 1 else f"{y1 - y0} pixels"
        raise DataError(f"{line.label}: is {pixels} high; the minimum is {LOWEST}")
    width = max(round((x1 - x0) * height / (y1 - y0)), 1)
    if width > WIDEST:
        raise DataError(
            f"{line.label}: is {x1 - x0:,} pixels wide, {width:,} at a height of "
            f"{height}; the maximum is {WIDEST:,}: cut the line"
        )
    return box, width


def _places(
    path: Path, lines: dict[int, Line], height: int
) -> tuple[dict[int, tuple[Box, int]], list[str]]:
    """`_place` of each line by index, and errors of the others."""
    found, faults = {}, []
    try:
        size = _size(path)
    except DataError as error:
        return {}, [str(error)]
    for number, line in lines.items():
        try:
            found[number] = _place(line, size, height)
        except DataError as error:
            faults.append(str(error))
    return found, faults


def _read(
    path: Path, lines: dict[int, Line], places: dict[int, tuple[Box, int]], height: int
) -> tuple[dict[int, np.ndarray], list[str]]:
    """Images uint8 [height, W, 1] by line index, and errors of the others."""
    found, faults, page = {}, [], None
    if any(lines[number].cut for number in places):
        try:
            page = read_image(path, (*_size(path), 1))
        except DataError as error:
            return {}, [str(error)]
    for number, (box, width) in places.items():
        try:
            found[number] = _scaled(lines[number], page, box, (height, width, 1))
        except DataError as error:
            faults.append(str(error))
    return found, faults


def _scaled(
    line: Line, page: np.ndarray | None, box: Box, shape: tuple[int, int, int]
) -> np.ndarray:
    """A line's scaled image, from its file or from its page uint8 [h, w, 1]."""
    if line.cut is None:
        image = read_image(line.image, shape)
    else:
        x0, y0, x1, y1 = box
        piece = page[y0:y1, x0:x1, 0]
        if line.cut.outline:
            mask = Image.new("1", (x1 - x0, y1 - y0))
            corners = [
                (min(max(x, x0 - 1), x1) - x0, min(max(y, y0 - 1), y1) - y0)
                for x, y in line.cut.outline
            ]
            ImageDraw.Draw(mask).polygon(corners, fill=1)
            inside = np.asarray(mask)
            if not inside.any():
                raise DataError(f"{line.label}: its outline has no pixel on the page")
            light = np.uint8(np.percentile(piece[inside], 75))  # background colour
            piece = np.where(inside, piece, light)
        image = to_array(Image.fromarray(piece), shape)
    if image.min() == image.max():
        raise DataError(f"{line.label}: the image is empty, it has one colour")
    return image
