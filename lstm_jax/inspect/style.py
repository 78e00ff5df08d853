"""What this room's figures need besides the common style."""

from typing import Any

import numpy as np


def bare(ax):
    """A pair of axes for an image: no ticks, no box."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def visible(image: Any, shown: Any = None) -> np.ndarray:
    """What to draw of an image: `[..., H, W]` grey or `[..., H, W, 3]`, in [0, 1].

    Args:
      image: `[..., H, W, C]`, as the network reads it; brought to [0, 1] by its least
        and its largest value, where nothing else is `shown`.
      shown: the same in uint8 or in [0, 1].
    """
    pixels = np.asarray(image if shown is None else shown)
    whole = pixels.dtype == np.uint8
    pixels = pixels.astype(np.float32) / (255 if whole else 1)
    if shown is None and not whole:
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / max(high - low, 1e-6)
    pixels = pixels.clip(0, 1)
    return pixels if pixels.shape[-1] == 3 else pixels.mean(-1)


def order_of(held: np.ndarray) -> np.ndarray:
    """An order of units `[D]`, by when each one moves, so that a heat map `[T, D]`
    shows waves instead of noise."""
    moves = np.abs(np.diff(held, axis=0, prepend=0)) + 1e-12
    when = (moves * np.arange(len(moves))[:, None]).sum(0) / moves.sum(0)
    return np.argsort(when, kind="stable")
