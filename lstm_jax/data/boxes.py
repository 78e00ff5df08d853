"""Boxes as rows of numbers."""

import numpy as np

from lstm_jax.targets import CLASS, COLUMNS, CORNERS, CROWD, HIDDEN


def table(boxes: np.ndarray, labels: np.ndarray, most: int, **columns) -> np.ndarray:
    """Boxes of one picture as `Split.targets` has them.

    Args:
      boxes: [n, 4], corners in pixels.
      labels: int [n].
      most: M, rows; those past n have the class -1.
      **columns: `crowd` and `hidden`, [n] each; default 0.

    Returns:
      float32 [M, 7].
    """
    rows = np.zeros((most, COLUMNS), np.float32)
    rows[:, CLASS] = -1
    n = len(boxes)
    rows[:n, CORNERS] = boxes
    rows[:n, CLASS] = labels
    rows[:n, CROWD] = columns.get("crowd", 0)
    rows[:n, HIDDEN] = columns.get("hidden", 0)
    return rows
