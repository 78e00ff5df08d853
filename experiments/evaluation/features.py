"""Feature vectors of examples, for support-vector machines and nearest neighbours."""

import numpy as np

LARGEST = 4096  # numbers in the vector of a sequence of features
PHOTOGRAPH = 33  # pixels; images with sides of at least this use HOG, not pixels
CHUNK = 256  # examples that are processed at a time


def vectors(inputs: np.ndarray) -> np.ndarray:
    """Examples as vectors, float32 [N, D].

    Small images are represented by their pixels, photographs by `hog` at 48x48 or
    less, clips by four frames of at most 16x16, and sequences of features by up to 16
    of their steps, or by the mean over all steps if that is more than 4096 numbers.

    Args:
      inputs: uint8 [N, H, W, C] or [N, T, H, W, C], or float32 [N, T, F].
    """
    if inputs.ndim == 3:
        steps = _some_steps(inputs, 16)
        if steps[0].size > LARGEST:
            return inputs.mean(1, dtype=np.float32)
        return steps.reshape(len(inputs), -1).astype(np.float32)
    if inputs.ndim == 5:
        frames = _some_steps(inputs, 4)
        return np.concatenate(
            [shrunk(frames[:, t], 16).reshape(len(inputs), -1) for t in range(4)], 1
        )
    photographs = inputs.shape[-1] == 3 or min(inputs.shape[1:3]) >= PHOTOGRAPH
    if not photographs or min(inputs.shape[1:3]) < 16:
        return shrunk(inputs, 32).reshape(len(inputs), -1)
    parts = range(0, len(inputs), CHUNK)
    return np.concatenate([hog(shrunk(inputs[k : k + CHUNK], 48)) for k in parts])


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Images [N, H, W, C] reduced by block means to sides <= `side`, float32."""
    n, h, w, c = images.shape
    by_h, by_w = -(-h // side), -(-w // side)
    h, w = h // by_h, w // by_w
    cut = images[:, : h * by_h, : w * by_w]
    blocks = cut.reshape(n, h, by_h, w, by_w, c)
    return blocks.mean((2, 4), dtype=np.float32)


def hog(images: np.ndarray, *, cell: int = 8, bins: int = 9) -> np.ndarray:
    """Histograms of oriented gradients in blocks of 2x2 cells, L2-Hys normalized.

    Args:
      images: [N, H, W, C], with H and W of at least two cells; for each pixel, the
        channel with the largest gradient is used.
      cell: side of a cell, in pixels.
      bins: number of bins for unsigned orientations.

    Returns:
      float32 [N, (rows - 1) (columns - 1) 4 bins], for rows x columns cells.

    Reference: Dalal & Triggs 2005, Histograms of Oriented Gradients for Human
    Detection. Departs: a gradient counts for one bin and cell, without interpolation.
    """
    images = images.astype(np.float32)
    rows, columns = np.zeros_like(images), np.zeros_like(images)
    rows[:, 1:-1] = images[:, 2:] - images[:, :-2]
    columns[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    sizes = np.hypot(rows, columns)
    channel = sizes.argmax(-1)[..., None]
    rows, columns, sizes = (
        np.take_along_axis(x, channel, -1)[..., 0] for x in (rows, columns, sizes)
    )
    angle = np.rad2deg(np.arctan2(rows, columns)) % 180
    which = np.minimum((angle * (bins / 180)).astype(int), bins - 1)
    n, h, w = sizes.shape
    h, w = h // cell, w // cell
    cells = np.zeros((n, h, w, bins), np.float32)
    for k in range(bins):
        of_bin = np.where(which == k, sizes, 0)[:, : h * cell, : w * cell]
        of_cell = of_bin.reshape(n, h, cell, w, cell)
        cells[..., k] = of_cell.mean((2, 4))
    corners = (cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1])
    blocks = np.concatenate([*corners, cells[:, 1:, 1:]], -1)
    blocks = np.minimum(_unit(blocks), 0.2)
    return _unit(blocks).reshape(n, -1)


def _unit(blocks: np.ndarray) -> np.ndarray:
    return blocks / np.sqrt(np.square(blocks).sum(-1, keepdims=True) + 1e-10)


def _some_steps(inputs: np.ndarray, count: int) -> np.ndarray:
    steps = np.linspace(0, inputs.shape[1] - 1, count).round().astype(int)
    return inputs[:, np.unique(steps) if inputs.ndim == 3 else steps]
