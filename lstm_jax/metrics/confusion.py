"""Confusion matrices of pixel classes."""

import numpy as np

from lstm_jax.targets import VOID


def confusion(predictions, targets, k: int) -> np.ndarray:
    """Confusion matrix of each example: true classes in rows, predicted in columns.

    Args:
      predictions: integers [N, ...], the class of each pixel.
      targets: the same shape; pixels of 255 are ignored.
      k: number of classes.

    Returns:
      int64 [N, k, k].

    Raises:
      ValueError: different shapes, no example, or a class that does not exist.
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.shape != targets.shape or not len(targets):
        raise ValueError(
            f"segmentation: predictions have shape {predictions.shape} for targets "
            f"{targets.shape}; expected the same, of 1 example or more"
        )
    found = np.zeros((len(targets), k * k), np.int64)
    for row, true, said in zip(found, targets, predictions, strict=True):
        known = true != VOID
        true, said = true[known].astype(np.int64), said[known].astype(np.int64)
        if (most := max(true.max(initial=0), said.max(initial=0))) >= k:
            raise ValueError(f"segmentation: a pixel of class {most}, of {k} classes")
        row += np.bincount(k * true + said, minlength=k * k)
    return found.reshape(-1, k, k)
