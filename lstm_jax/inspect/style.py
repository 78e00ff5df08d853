"""Style of inspection figures, in addition to `lstm_jax.figures.style`."""

from typing import Any

import numpy as np


def bare(ax):
    """Axes for an image: no ticks, no box."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def visible(image: Any, shown: Any = None) -> np.ndarray:
    """An image for display: `[..., H, W]` grey or `[..., H, W, 3]`, in [0, 1].

    Args:
      image: `[..., H, W, C]`, the network's input; scaled from its minimum and maximum
        to [0, 1], unless `shown` is given.
      shown: the same image in uint8 or in [0, 1].
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
    """Order of the units of a heat map `[T, D]`, sorted by when each changes, `[D]`."""
    moves = np.abs(np.diff(held, axis=0, prepend=0)) + 1e-12
    when = (moves * np.arange(len(moves))[:, None]).sum(0) / moves.sum(0)
    return np.argsort(when, kind="stable")
