"""Scenes of scanned digits with exact masks and boxes, generated offline.

The scans are those of `digits`; training and test scenes share no scans. Each scene is
a function of (seed, split, index).
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from lstm_jax.data.synthetic.digits import scans, split_rows

SIDE = 48  # side of a scene, pixels
INK = 96  # minimum value of a pixel that counts as ink
NOISE = 40  # maximum value of background noise
PIECE = 7  # side of a piece of clutter, pixels


class Digit(NamedTuple):
    """An enlarged scan, uint8 [S, S], on black, and its class."""

    image: np.ndarray
    label: int


class Scans(NamedTuple):
    """Scans of one split, uint8 [N, 8, 8], and their classes, int [N]."""

    images: np.ndarray
    labels: np.ndarray


def scans_of(split: str) -> Scans:
    """The scans of "train" or "test", split as in `digits`."""
    images, labels = scans()
    rows = split_rows()[split]
    return Scans(images[rows], labels[rows])


def enlarged(scan: np.ndarray, side: int) -> np.ndarray:
    """A scan as strokes on black, uint8 [side, side].

    The contrast is stretched: enlarging blurs the strokes, stretching sharpens them.
    """
    large = Image.fromarray(scan).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip((np.asarray(large, np.float64) - 70) * 1.6, 0, 255).astype(np.uint8)


def draw_digit(rng: np.random.Generator, pool: Scans, sides: tuple[int, int]) -> Digit:
    """A random scan, its side within `sides` (inclusive), cropped to its ink."""
    which = int(rng.integers(len(pool.labels)))
    image = enlarged(pool.images[which], int(rng.integers(sides[0], sides[1] + 1)))
    rows, columns = (np.flatnonzero((image >= INK).any(axis)) for axis in (1, 0))
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Digit(image, int(pool.labels[which]))


def clutter(rng: np.random.Generator, pool: Scans, side: int, pieces: int):
    """A background of faint noise and fragments of strokes, uint8 [side, side]."""
    canvas = rng.integers(0, NOISE + 1, (side, side)).astype(np.uint8)
    for _ in range(pieces):
        scan = pool.images[int(rng.integers(len(pool.labels)))]
        large = enlarged(scan, 16)
        y, x = rng.integers(2, 16 - PIECE - 1, 2)
        piece = large[y : y + PIECE, x : x + PIECE]
        y, x = rng.integers(0, side - PIECE + 1, 2)
        spot = canvas[y : y + PIECE, x : x + PIECE]
        np.maximum(spot, piece, out=spot)
    return canvas


def place(
    rng: np.random.Generator, sizes: list[tuple[int, int]], side: int, gap: int
) -> list[tuple[int, int, int, int]]:
    """Random boxes (x0, y0, x1, y1) of the sizes (h, w), at least `gap` pixels apart.

    If a box does not fit in fifty attempts, it and all later ones are omitted.
    """
    found: list[tuple[int, int, int, int]] = []
    for h, w in sizes:
        for _ in range(50):
            y, x = (int(rng.integers(0, side - size + 1)) for size in (h, w))
            apart = all(
                x >= x1 + gap or x + w <= x0 - gap or y >= y1 + gap or y + h <= y0 - gap
                for x0, y0, x1, y1 in found
            )
            if apart:
                found.append((x, y, x + w, y + h))
                break
        else:
            break
    return found


def scene(
    split: str,
    index: int,
    pool: Scans,
    *,
    objects: tuple[int, int],
    sides: tuple[int, int],
    pieces: int,
) -> dict[str, np.ndarray]:
    """Scene number `index` of a split.

    Args:
      split: "train" or "test".
      index: at least 0.
      pool: scans to draw from.
      objects: minimum and maximum number of digits.
      sides: minimum and maximum side of a digit before cropping to its ink, pixels.
      pieces: number of pieces of clutter.

    Returns:
      dict:
        image: uint8 [48, 48, 1].
        mask: uint8 [48, 48, 1]; 0 background, 1 + d on the ink of a digit d.
        boxes: float32 [M, 4], (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.
        labels: int [M], digits.
    """
    rng = np.random.default_rng([0, ("train", "test").index(split), index])
    count = int(rng.integers(objects[0], objects[1] + 1))
    digits = [draw_digit(rng, pool, sides) for _ in range(count)]
    canvas = clutter(rng, pool, SIDE, pieces)
    boxes = place(rng, [d.image.shape for d in digits], SIDE, gap=1)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for digit, (x0, y0, x1, y1) in zip(digits, boxes, strict=False):
        spot, ink = canvas[y0:y1, x0:x1], digit.image >= INK
        spot[...] = np.where(ink, digit.image, np.minimum(spot, INK // 2))
        mask[y0:y1, x0:x1][ink] = 1 + digit.label
    labels = [digit.label for digit in digits[: len(boxes)]]
    return {
        "image": canvas[..., None],
        "mask": mask[..., None],
        "boxes": np.asarray(boxes, np.float32).reshape(-1, 4),
        "labels": np.asarray(labels, np.int64),
    }
