"""Bounding boxes: overlap, and matching of predictions to ground truth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_jax.metrics.checks import check_finite
from lstm_jax.targets import CLASS, COLUMNS, CROWD

SCORE_THRESHOLD = 0.5  # predictions count from this score on
FAR = 1e4  # larger than any cost of a pair


def area(boxes):
    """Areas [...] of boxes `[..., 4]`, corners x0, y0, x1, y1; NumPy in, NumPy out."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(a, b):
    """Intersection and union of every box of a with every box of b.

    Args:
      a: [..., N, 4], corners x0, y0, x1, y1 with x0 <= x1 and y0 <= y1.
      b: [..., M, 4], in the same units.

    Returns:
      (intersections, unions), [..., N, M] each. NumPy in, NumPy out.
    """
    lib = np if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else jnp
    a, b = a[..., :, None, :], b[..., None, :, :]
    low = lib.maximum(a[..., :2], b[..., :2])
    high = lib.minimum(a[..., 2:], b[..., 2:])
    sides = lib.maximum(high - low, 0)
    both = sides[..., 0] * sides[..., 1]
    return both, area(a) + area(b) - both


def iou(a, b):
    """Intersection over union, [..., N, M]; 0 where both boxes are empty."""
    both, union = overlaps(a, b)
    lib = np if isinstance(both, np.ndarray) else jnp
    return both / lib.maximum(union, 1e-9)


def giou(a, b):
    """Generalised intersection over union (GIoU) of pairs of boxes, in [-1, 1].

      GIoU = IoU - (C - U) / C,   U area of the union, C area of the enclosing box

    Args:
      a, b: [..., 4] each, as in `overlaps`.

    Returns:
      [...]; it has a gradient even if the boxes do not overlap; -1 if both are empty.

    Reference: Rezatofighi et al. 2019, Generalized Intersection over Union, alg. 1.
    """
    both, union = (x[..., 0, 0] for x in overlaps(a[..., None, :], b[..., None, :]))
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    around = jnp.maximum(jnp.prod(high - low, -1), 1e-9)
    return both / jnp.maximum(union, 1e-9) - (around - union) / around


def assign(costs):
    """Assigns one prediction to each object, minimizing the sum of costs.

    Args:
      costs: [Q, M], predictions x objects, Q >= M, finite; columns of a constant value
        take predictions that no other column needs.

    Returns:
      int32 [M], the row of each column; rows are distinct.

    Reference: Crouse 2016, as optax has it; Carion et al. 2020, DETR, eq. 1.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its types
        rows, columns = optax.assignment.hungarian_algorithm(costs)
    found = jnp.zeros(costs.shape[1], jnp.int32)
    return found.at[columns].set(rows.astype(jnp.int32))


def single_images(predictions, targets):
    """Predictions and boxes per image, [N, Q, 6] and [N, M, 7]; frames become images.

    Raises:
      ValueError: shapes that do not fit, or predictions that are not finite.
    """
    predictions = np.asarray(predictions, np.float64)
    targets = np.asarray(targets, np.float64)
    fits = predictions.ndim == targets.ndim and targets.ndim in (3, 4)
    fits = fits and predictions.shape[:-2] == targets.shape[:-2] and len(targets)
    if not fits or predictions.shape[-1] != 6 or targets.shape[-1] != COLUMNS:
        raise ValueError(
            f"detection: predictions have shape {predictions.shape} for targets "
            f"{targets.shape}; expected [..., Q, 6] and [..., M, {COLUMNS}], N >= 1"
        )
    predictions, targets = (
        x.reshape(-1, *x.shape[-2:]) for x in (predictions, targets)
    )
    check_finite("detection", np.isfinite(predictions).all((-1, -2)))
    return predictions, targets


def match_counts(predictions, targets) -> np.ndarray:
    """int [3]: predictions above the threshold, true positives, objects."""
    found = np.zeros(3, np.int64)
    for answers, truth in zip(*single_images(predictions, targets), strict=True):
        right, said = _right_exactly(answers, truth)
        known = (truth[:, CLASS] >= 0) & (truth[:, CROWD] == 0)
        found += [said, right, known.sum()]
    return found


def _right_exactly(answers, truth):
    """Greedy matching in descending order of score, each to its highest IoU."""
    crowds = truth[(truth[:, CLASS] >= 0) & (truth[:, CROWD] == 1)]
    truth = truth[(truth[:, CLASS] >= 0) & (truth[:, CROWD] == 0)]
    answers = answers[answers[:, 4] >= SCORE_THRESHOLD]
    answers = answers[np.argsort(-answers[:, 4], kind="stable")]
    meets = iou(answers[:, :4], truth[:, :4])
    meets[answers[:, 5][:, None] != truth[:, CLASS]] = 0
    right, said = 0, len(answers)
    for row, answer in zip(meets, answers, strict=True):
        if len(row) and row.max() >= 0.5:
            right += 1
            meets[:, row.argmax()] = 0
        elif len(crowds):  # inside a crowd region predictions are ignored
            both = overlaps(answer[None, :4], crowds[:, :4])[0][0]
            inside = both / max(area(answer[:4]), 1e-9) >= 0.5
            said -= bool((inside & (crowds[:, CLASS] == answer[5])).any())
    return right, said
