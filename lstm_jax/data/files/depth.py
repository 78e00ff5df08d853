"""Pixels of more than 8 bits, scaled to 8 bits by the range that they use."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from lstm_jax.data.dataset import DataError

WIDE_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
FULL = 16  # bits
_DEPTHS = (8, 10, 12, 14, FULL)  # of cameras and scanners, bits


def depth_of(highest: int) -> int:
    """Bits of the samples of which `highest` is the largest: 8, 10, 12, 14 or 16."""
    return next(depth for depth in _DEPTHS if highest < 1 << depth or depth == FULL)


def highest_value(pixels: np.ndarray) -> int:
    """The largest of grey pixels of a wide mode.

    Raises:
      DataError: they do not fit into 16 bits.
    """
    low, high = int(pixels.min(initial=0)), int(pixels.max(initial=0))
    if low < 0 or high >= 1 << FULL:
        raise DataError(
            f"its pixels go from {low:,} to {high:,}; save it as 8 or 16 bit"
        )
    return high


def to_8_bits(pixels: np.ndarray, depth: int) -> np.ndarray:
    """Scales integers so that 2^depth - 1 becomes 255, rounded; uint8."""
    white = (1 << depth) - 1
    wide = np.minimum(pixels, white).astype(np.uint32)
    return ((wide * 510 + white) // (2 * white)).astype(np.uint8)


def grey_pixels(image: Image.Image) -> np.ndarray:
    """Pixels of an image of a wide mode, int [H, W]."""
    return np.asarray(image).astype(np.int32, copy=False)


def common_depth(depths: Iterable[int | None], notes: list[str]) -> int | None:
    """The bits to which all images of more than 8 bits in a data set are scaled.

    Args:
      depths: of each image; None for images of 8 bits.
      notes: a line is appended if the images use less than 16 bits.
    """
    wide = [depth for depth in depths if depth]
    if not wide:
        return None
    depth = max(wide)
    if depth < FULL:
        what = "1 image of 16 bits uses" if len(wide) == 1 else "images of 16 bits use"
        notes.append(
            f"{what} {depth} bits: scaled so that {(1 << depth) - 1:,} is white"
        )
    return depth
