"""Semantic segmentation: cross-entropy and Dice loss, intersection over union."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_jax.figures.visualization import bar_chart
from lstm_jax.metrics.bootstrap import Scores, mean_known
from lstm_jax.metrics.confusion import confusion
from lstm_jax.targets import VOID
from lstm_jax.tasks.task import Task, check_mask, masked


def segmentation(classes, *, dice_weight: float = 1.0) -> Task:
    """Classifies every pixel, of images or of every frame of a clip.

      loss = mean over pixels of -log p_true  +  dice_weight (1 - Dice)
      Dice = mean over the classes in the mask of (2 sum p t + 1) / (sum p + sum t + 1)

    with p = softmax(outputs) and t the one-hot mask of one class; sums are over the
    pixels of an example, including all frames of a clip. Pixels of 255, and examples
    without other pixels, are ignored in the loss and in all metrics.

    Training metrics are sums over pixels: "pixel_accuracy", and "foreground_iou", the
    intersections of all classes but the first divided by their unions.

    Args:
      classes: K names, at least 2, in index order; the first is the background.
      dice_weight: weight of the Dice loss, at least 0.

    Returns:
      A Task; targets are uint8 [B, H, W] or [B, T, H, W], class indices or 255; outputs
      are logits [B, H, W, K] or [B, T, H, W, K]; predictions are class indices, uint8
      of the targets' shape.

    Raises:
      ValueError: fewer than 2 classes or more than 255, or a negative weight.

    Reference: soft Dice: Milletari et al. 2016, V-Net, section 3. Departs: no squares
    in the denominator, 1 is added to both, and classes absent from a mask are left out.
    """
    classes = tuple(map(str, classes))
    k = len(classes)
    if not 2 <= k <= VOID:
        raise ValueError(f"segmentation: {k} classes, expected 2 to {VOID}")
    if dice_weight < 0:
        raise ValueError(f"segmentation: dice_weight={dice_weight}, expected 0 or more")

    def check(outputs, batch):
        targets, mask = batch["targets"], batch["mask"]
        if targets.ndim not in (3, 4) or outputs.shape != (*targets.shape, k):
            raise ValueError(
                f"segmentation: outputs {outputs.shape} do not fit targets "
                f"{targets.shape}; expected [B, H, W] or [B, T, H, W], and {k} more "
                "for each pixel"
            )
        check_mask("segmentation", mask, targets)
        valid = (targets != VOID) & _in_time(targets, batch.get("lengths"))
        return outputs.astype(jnp.float32), jnp.where(valid, targets, 0), valid

    def error(outputs, targets, valid):  # [B]
        axes = tuple(range(1, targets.ndim))
        weight = valid.astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(
            outputs, targets.astype(jnp.int32)
        )
        loss = (loss * weight).sum(axes) / jnp.maximum(weight.sum(axes), 1)
        if not dice_weight:
            return loss
        p = jax.nn.softmax(outputs) * weight[..., None]
        t = jax.nn.one_hot(targets, k, dtype=jnp.float32) * weight[..., None]
        both, whole = (p * t).sum(axes), p.sum(axes) + t.sum(axes)  # [B, K]
        there = (t.sum(axes) > 0).astype(jnp.float32)
        dice = (there * (2 * both + 1) / (whole + 1)).sum(-1)
        return loss + dice_weight * (1 - dice / jnp.maximum(there.sum(-1), 1))

    def total(outputs, targets, valid, mask):
        known = valid.any(tuple(range(1, valid.ndim)))  # [B]
        weight = jnp.where(known, mask.astype(jnp.float32), 0.0)
        return masked(error(outputs, targets, valid), weight)

    def loss_of(outputs, batch):
        return total(*check(outputs, batch), batch["mask"])

    def metrics(outputs, batch):
        outputs, targets, valid = check(outputs, batch)
        mask = batch["mask"].astype(jnp.float32)
        weight = mask.reshape(-1, *(1,) * (targets.ndim - 1))
        weight = valid.astype(jnp.float32) * weight
        chosen = outputs.argmax(-1).astype(targets.dtype)
        right = chosen == targets

        def pixels(where):
            return jnp.sum(where.astype(jnp.float32) * weight)

        thing = targets > 0
        # A misclassified pixel is in the union of both classes.
        union = pixels((chosen > 0) | thing) + pixels((chosen > 0) & thing & ~right)
        return {
            "loss": total(outputs, targets, valid, mask),
            "pixel_accuracy": (pixels(right), jnp.sum(weight)),
            "foreground_iou": (pixels(right & thing), union),
        }

    def report(predictions, targets):
        matrix = confusion(predictions, targets, k).sum(0)
        return {
            "task": "segmentation",
            "examples": len(targets),
            **scores(matrix),
            "classes": list(classes),
            "per_class": [
                {"name": name, **row}
                for name, row in zip(classes, _per_class(matrix), strict=True)
            ],
            "pixel_confusion": matrix.tolist(),
        }

    def figures(predictions, targets):
        matrix = confusion(predictions, targets, k).sum(0)
        rows = _per_class(matrix)
        values = {n: r["iou"] for n, r in zip(classes, rows, strict=True)}
        return {"iou": bar_chart(values, "Intersection over union of each class")}

    return Task(
        name="segmentation",
        outputs=k,
        loss=loss_of,
        metrics=metrics,
        predict=lambda outputs: outputs.argmax(-1).astype(jnp.uint8),
        monitor="foreground_iou",
        mode="max",
        report=report,
        figures=figures,
        example_losses=_example_losses,
        weighted_scores=_weighted_scores,
    )


def _in_time(targets, lengths):
    """Which pixels are in valid frames, in a shape that broadcasts."""
    if lengths is None or targets.ndim == 3:
        return jnp.ones(targets.shape[:1] + (1,) * (targets.ndim - 1), bool)
    steps = jnp.arange(targets.shape[1])
    return (steps < lengths[:, None])[..., None, None]


def scores(matrix) -> dict[str, float | None]:
    """Metrics of a confusion matrix of pixels, [K, K], true classes in rows.

      IoU_k = TP_k / (TP_k + FP_k + FN_k)      Dice_k = 2 TP_k / (2 TP_k + FP_k + FN_k)

    "mean_iou" and "dice" are means over the classes that occur in the masks or in the
    predictions; "foreground_iou" divides sums over all classes but the first. None if
    there are no pixels.

    Reference: Everingham et al. 2010, The Pascal VOC Challenge, section 4.1.4 (IoU).
    """
    matrix = np.asarray(matrix, np.float64)
    if not matrix.any():
        return dict.fromkeys(("mean_iou", "dice", "pixel_accuracy", "foreground_iou"))
    iou, dice = _overlaps(matrix)
    hit, whole = np.diag(matrix), matrix.sum(0) + matrix.sum(1)
    union = (whole - hit)[1:].sum()
    return {
        "mean_iou": float(mean_known(iou)),
        "dice": float(mean_known(dice)),
        "pixel_accuracy": float(hit.sum() / matrix.sum()),
        "foreground_iou": float(hit[1:].sum() / union) if union else None,
    }


def _overlaps(matrix):
    """IoU and Dice of each class [..., K], from [..., K, K]; NaN if absent."""
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    whole = matrix.sum(-2) + matrix.sum(-1)
    whole = np.where(whole > 0, whole, np.nan)
    return hit / (whole - hit), 2 * hit / whole


def _example_losses(predictions, targets):
    """1 - Dice of each example, over the foreground."""
    known = targets != VOID
    axes = tuple(range(1, targets.ndim))
    hit = ((predictions == targets) & (targets > 0) & known).sum(axes)
    both = ((predictions > 0) & known).sum(axes) + ((targets > 0) & known).sum(axes)
    return np.where(both, 1 - 2 * hit / np.maximum(both, 1), 0.0)


def _weighted_scores(predictions, targets) -> Scores:
    classes = 1 + int(
        max(predictions.max(), np.where(targets == VOID, 0, targets).max())
    )
    each = confusion(predictions, targets, classes).astype(np.float64)  # [N, K, K]

    def scores(weights):
        found = np.einsum("rn,nij->rij", weights, each)
        iou, dice = _overlaps(found)  # [R, K]
        return {
            "mean_iou": mean_known(iou.T),
            "dice": mean_known(dice.T),
            "pixel_accuracy": np.trace(found, axis1=1, axis2=2) / found.sum((1, 2)),
        }

    return scores


def _per_class(matrix) -> list[dict]:
    counts = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    return [
        {
            "iou": hit / (said + true - hit) if said + true else None,
            "dice": 2 * hit / (said + true) if said + true else None,
            "precision": hit / said if said else None,
            "recall": hit / true if true else None,
            "pixels": true,
        }
        for hit, said, true in np.stack(counts, -1).tolist()
    ]
