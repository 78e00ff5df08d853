"""Arrays of bounding boxes."""

import numpy as np

from lstm_jax.targets import CLASS, COLUMNS, CORNERS, CROWD, HIDDEN


def table(boxes: np.ndarray, labels: np.ndarray, size: int, **columns) -> np.ndarray:
    """Boxes of one image in the layout of `Split.targets`.

    Args:
      boxes: [n, 4], corners x0, y0, x1, y1 in pixels.
      labels: int [n], class indices.
      size: M, at least n; rows after n have class -1.
      **columns: `crowd` and `hidden` (occluded fraction), [n] each; default 0.

    Returns:
      float32 [M, 7].
    """
    rows = np.zeros((size, COLUMNS), np.float32)
    rows[:, CLASS] = -1
    n = len(boxes)
    rows[:n, CORNERS] = boxes
    rows[:n, CLASS] = labels
    rows[:n, CROWD] = columns.get("crowd", 0)
    rows[:n, HIDDEN] = columns.get("hidden", 0)
    return rows
