"""Applies the EXIF orientation of an image to its pixels, masks and boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from lstm_jax.data.files.png import png_exif

_TAG = 0x0112
_WIDTH, _HEIGHT = 0x0100, 0x0101
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Size = tuple[int, int]  # (H, W)


class Geometry(NamedTuple):
    """The transform from the pixels stored in a file to the upright image.

    Attributes:
      stored: (H, W) of the stored pixels.
      orientation: EXIF orientation, 1 (upright) to 8.
    """

    stored: Size
    orientation: int = 1

    @property
    def shown(self) -> Size:
        """(H, W) of the upright image."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored

    def pixels(self, stored: np.ndarray) -> np.ndarray:
        """Transforms stored pixels [H, W, ...] to upright ones."""
        if self.orientation >= 5:
            stored = stored.swapaxes(0, 1)
        if self.orientation in (3, 4, 7, 8):
            stored = stored[::-1]
        if self.orientation in (2, 3, 6, 7):
            stored = stored[:, ::-1]
        return stored

    def points(self, stored: np.ndarray) -> np.ndarray:
        """Transforms points (x, y) on the stored pixels, float [..., 2]."""
        height, width = self.shown
        x, y = np.moveaxis(np.asarray(stored, np.float64), -1, 0)
        if self.orientation >= 5:
            x, y = y, x
        if self.orientation in (3, 4, 7, 8):
            y = height - y
        if self.orientation in (2, 3, 6, 7):
            x = width - x
        return np.stack([x, y], -1)

    def boxes(self, stored: np.ndarray) -> np.ndarray:
        """Transforms boxes (x0, y0, x1, y1) on the stored pixels, [..., 4]."""
        stored = np.asarray(stored)
        corners = self.points(stored.reshape(*stored.shape[:-1], 2, 2))
        return np.concatenate([corners.min(-2), corners.max(-2)], -1)


def upright(image: Image.Image, geometry: Geometry) -> Image.Image:
    """Applies the EXIF orientation to a decoded image."""
    method = _METHODS.get(geometry.orientation)
    return image if method is None else image.transpose(method)


def geometry_of(image: Image.Image) -> Geometry:
    """The geometry of an opened image file, without decoding most formats."""
    height, width = image.height, image.width
    if image.format == "TIFF":  # Pillow gives the upright size before decoding
        width = image.tag_v2.get(_WIDTH, width)
        height = image.tag_v2.get(_HEIGHT, height)
        orientation = image.tag_v2.get(_TAG, 1)
    elif image.format == "PNG":  # Pillow decodes a PNG to find its EXIF data
        orientation = png_exif(image.fp).get(_TAG, 1)
    else:
        orientation = image.getexif().get(_TAG, 1)
    valid = orientation in range(1, 9)
    return Geometry((height, width), orientation if valid else 1)


def is_stored_size(geometry: Geometry, written: Size | None) -> bool | None:
    """Whether targets of the size `written` refer to the stored pixels of an image.

    Returns:
      True for the stored pixels, False for the upright image; None if that is unknown,
      because both have the same size or because no size is given.
    """
    if geometry.orientation == 1:
        return False
    if written is None or geometry.stored == geometry.shown:
        return None
    return written == geometry.stored


def lie_on_stored(facts: Sequence[bool | None]) -> bool:
    """The assumption for targets whose size is ambiguous, from all other targets.

    They are assumed to refer to the stored pixels, as in libraries that ignore EXIF
    data, unless all unambiguous targets refer to upright images.

    Args:
      facts: results of `is_stored_size`.
    """
    known = [fact for fact in facts if fact is not None]
    return not known or any(known)


def notes_on_turns(turned: Sequence[str], unsure: Sequence[str], what: str) -> list:
    """Notes on targets, such as "masks", of images with an EXIF orientation.

    Args:
      turned: names of images whose targets were rotated with them.
      unsure: names of images whose targets have an ambiguous size.
      what: the word for the targets.
    """
    notes = []
    if turned:
        notes.append(
            f"{_counted(turned)} an EXIF orientation: the {what} are turned with the "
            f"pixels (first: {turned[0]})"
        )
    if unsure:
        notes.append(
            f"{_counted(unsure)} an EXIF orientation that does not change the size, so "
            f"the {what} may refer to the turned or to the stored pixels; assumed: "
            f"{'stored' if set(unsure) <= set(turned) else 'turned'}. If that is "
            f"wrong, save the images upright (first: {unsure[0]})"
        )
    return notes


def _counted(names: Sequence[str]) -> str:
    return "1 image has" if len(names) == 1 else f"{len(names):,} images have"
