"""Clips of scanned digits that move behind bars, generated offline."""

import numpy as np

from lstm_jax.data.synthetic import scenes

FRAMES, OBJECTS = 12, 2
BARS = 1  # vertical bars of full height, in front of the digits; they do not move
WIDTHS = (14, 18)  # range of bar widths, pixels
SPEED = (2.0, 4.0)  # range of speeds, pixels per frame
SIDES = (14, 18)


def track(rng: np.random.Generator, size: tuple[int, int], side: int) -> np.ndarray:
    """Top left corners (x, y) of a bouncing object, int [T, 2], pixels.

    It moves mostly sideways, at most 30 degrees up or down.
    """
    h, w = size
    free = np.array([side - w, side - h], np.float64)
    angle = rng.uniform(-np.pi / 6, np.pi / 6) + np.pi * rng.integers(2)
    velocity = rng.uniform(*SPEED) * np.array([np.cos(angle), np.sin(angle)])
    start = rng.uniform(0, free)
    # A path reflected at both ends is a folded straight line.
    path = start + velocity * np.arange(FRAMES)[:, None]
    path = np.mod(path, 2 * free)
    return np.rint(np.minimum(path, 2 * free - path)).astype(int)


def clip(split: str, index: int, pool: scenes.Scans) -> dict[str, np.ndarray]:
    """Clip number `index` of a split, "train" or "test".

    If two digits overlap, the later one is in front.

    Args:
      split, index, pool: as in `scenes.scene`.

    Returns:
      dict:
        frames: uint8 [T, 48, 48, 1].
        segmentation_masks: uint8 [T, 48, 48], 1 + d on the visible ink of a digit d.
        boxes: float32 [T, M, 4], corners of the whole digit, pixels.
        hidden: float32 [T, M], occluded fraction of its ink.
        labels: int [M].
    """
    rng = np.random.default_rng([0, ("train", "test").index(split), index])
    side = scenes.SIDE
    digits = [scenes.draw_digit(rng, pool, SIDES) for _ in range(OBJECTS)]
    tracks = [track(rng, d.image.shape, side) for d in digits]
    widths = rng.integers(WIDTHS[0], WIDTHS[1] + 1, BARS)
    lefts = _bars(rng, widths, side)
    cover = np.zeros((side, side), bool)
    for left, width in zip(lefts, widths, strict=True):
        cover[:, left : left + width] = True
    texture = rng.integers(70, 150, (side, side)).astype(np.uint8)
    pictures = np.zeros((FRAMES, side, side), np.uint8)
    masks = np.zeros_like(pictures)
    boxes = np.zeros((FRAMES, OBJECTS, 4), np.float32)
    hidden = np.zeros((FRAMES, OBJECTS), np.float32)
    for t in range(FRAMES):
        canvas = rng.integers(0, scenes.NOISE + 1, (side, side)).astype(np.uint8)
        owner = np.full((side, side), -1)
        for k, (digit, path) in enumerate(zip(digits, tracks, strict=True)):
            (h, w), (x, y) = digit.image.shape, path[t]
            ink = digit.image >= scenes.INK
            canvas[y : y + h, x : x + w][ink] = digit.image[ink]
            owner[y : y + h, x : x + w][ink] = k
            boxes[t, k] = x, y, x + w, y + h
        owner[cover] = -1
        pictures[t] = np.where(cover, texture, canvas)
        for k, digit in enumerate(digits):
            seen = owner == k
            masks[t][seen] = 1 + digit.label
            hidden[t, k] = 1 - seen.sum() / (digit.image >= scenes.INK).sum()
    return {
        "frames": pictures[..., None],
        "segmentation_masks": masks,
        "boxes": boxes,
        "hidden": hidden,
        "labels": np.array([digit.label for digit in digits]),
    }


def _bars(rng: np.random.Generator, widths: np.ndarray, side: int) -> list[int]:
    """Left edges of bars that do not overlap; gaps are random."""
    left = side - int(widths.sum())
    gaps = np.sort(rng.integers(2, left - 1, len(widths)))
    before = np.concatenate([[0], np.cumsum(widths)[:-1]])
    return (gaps + before).tolist()
