"""Places images of any shape on images of one shape: squash, crop or letterbox."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from lstm_jax.targets import VOID

FITS = ("squash", "crop", "letterbox")
PAD = 114  # the grey beside a letterboxed image
_MIXED = 1.25  # ratio of aspect ratios from which images are letterboxed by default


class Placement(NamedTuple):
    """The transform from an upright image to the array that the network is given.

    Attributes:
      source: x0, y0, x1, y1 of the part of the image that is used, pixels.
      target: x0, y0, x1, y1 of the place of that part in the array, whole pixels.
      size: (H, W) of the array.
    """

    source: tuple[float, float, float, float]
    target: tuple[int, int, int, int]
    size: tuple[int, int]

    @property
    def resized(self) -> tuple[int, int]:
        """(H, W) of the target, pixels."""
        x0, y0, x1, y1 = self.target
        return y1 - y0, x1 - x0

    def image(
        self, image: Image.Image, resample: Image.Resampling, fill: int
    ) -> Image.Image:
        """Transforms an image of mode L or RGB; the rest of the array is `fill`."""
        size = self.resized[::-1]
        whole = (0, 0, *image.size)
        if image.size != size or self.source != whole:
            box = None if self.source == whole else self.source
            image = image.resize(size, resample, box)
        padded = self.padded(np.asarray(image), fill)
        return image if padded is None else Image.fromarray(padded)

    def padded(self, pixels: np.ndarray, fill: int) -> np.ndarray | None:
        """Pixels of the target, [h, w, ...], with `fill` around them; None without."""
        if self.resized == self.size:
            return None
        x0, y0, x1, y1 = self.target
        whole = np.full((*self.size, *pixels.shape[2:]), fill, pixels.dtype)
        whole[y0:y1, x0:x1] = pixels
        return whole

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes x0, y0, x1, y1 of the image in pixels of the array, [..., 4]."""
        start, sides, place, shown = self._corners()
        return (np.asarray(boxes, np.float64) - start) * shown / sides + place

    def on_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes of the array in pixels of the image, [..., 4]."""
        start, sides, place, shown = self._corners()
        return (np.asarray(boxes, np.float64) - place) * sides / shown + start

    def mask_on_image(self, mask: np.ndarray, full: tuple[int, int]) -> np.ndarray:
        """A mask of the array, uint8 [H, W], as one of the image, uint8 [h, w].

        Pixels of the image that the array does not show are 255.
        """
        whole = np.full(full, VOID, np.uint8)
        x0, y0, x1, y1 = self.target
        left, top, right, bottom = map(round, self.source)
        image = Image.fromarray(np.ascontiguousarray(mask[y0:y1, x0:x1], np.uint8))
        size = right - left, bottom - top
        whole[top:bottom, left:right] = image.resize(size, Image.Resampling.NEAREST)
        return whole

    def _corners(self) -> tuple[np.ndarray, ...]:
        """Corner and sides of the source, then of the target, each [4]: x, y, x, y."""
        source, target = np.asarray(self.source), np.asarray(self.target)
        parts = source[:2], source[2:] - source[:2], target[:2], target[2:] - target[:2]
        return tuple(np.tile(part, 2) for part in parts)


def place_image(full: Sequence[int], size: Sequence[int], fit: str) -> Placement:
    """How an image is placed on an array.

    Args:
      full: (H, W) of the upright image.
      size: (H, W) of the array.
      fit: "squash" changes the aspect ratio, "crop" uses the central part that has the
        aspect ratio of the array, "letterbox" leaves a border on two sides.
    """
    (h, w), (height, width) = full, size
    source, target = (0, 0, w, h), (0, 0, width, height)
    scales = height / h, width / w
    if fit == "crop":
        scale = max(scales)
        x, y = ((s - t / scale) / 2 for s, t in ((w, width), (h, height)))
        x, y = (0 if side < 1e-6 else side for side in (x, y))  # but for rounding
        source = x, y, w - x, h - y
    elif fit == "letterbox":
        scale = min(scales)
        inner_w = min(max(round(w * scale), 1), width)
        inner_h = min(max(round(h * scale), 1), height)
        x, y = (width - inner_w) // 2, (height - inner_h) // 2
        target = x, y, x + inner_w, y + inner_h
    return Placement(source, target, (height, width))


def chosen_fit(
    fit: str | None, sizes: Sequence[Sequence[int]], notes: list[str]
) -> str:
    """The fit of a data set: as the user says, or by the aspect ratios of its images.

    Args:
      fit: one of `FITS`; None: "letterbox" if aspect ratios differ, else "squash".
      sizes: (H, W) of the images.
      notes: a line is appended if aspect ratios decide.
    """
    if fit is not None:
        return fit
    ratios = [w / h for h, w in sizes]
    if not ratios or max(ratios) <= _MIXED * min(ratios):
        return FITS[0]
    notes.append(
        f"aspect ratios from {min(ratios):.2f} to {max(ratios):.2f}: images are "
        "letterboxed, with a grey border (--data.fit=crop or squash for another)"
    )
    return "letterbox"
