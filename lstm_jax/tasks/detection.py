"""Object detection: set prediction of boxes with one-to-one matching."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_jax.figures.roc_pr import detection_precision_recall
from lstm_jax.metrics.average_precision import average_precision
from lstm_jax.metrics.bootstrap import Scores
from lstm_jax.metrics.boxes import (
    FAR,
    SCORE_THRESHOLD,
    assign,
    giou,
    iou,
    match_counts,
    single_images,
)
from lstm_jax.targets import CLASS, COLUMNS, CROWD, HIDDEN
from lstm_jax.tasks.task import Task, check_mask, masked

FOCUS = 2.0  # gamma of the focal loss


def detection(classes, size: tuple[int, int], *, sequential: bool) -> Task:
    """Detects boxes of K classes, in images or in every frame of a clip.

    The network predicts Q boxes; row q of its outputs holds the box's corners as
    fractions of the image, an existence logit e_q, and K class logits. Predictions are
    matched one to one with the objects of an image so that the sum of costs is minimal:

      cost(q, m) = -p_q[class_m] + 5 |box_q - box_m|_1 + 2 (1 - GIoU)   (- σ(e_q))
      loss = existence + mean over matched pairs of
             (-log p_q[class_m] + 5 |box_q - box_m|_1 + 2 (1 - GIoU))

    With `sequential`, predictions are emitted one after another until a stop: for n
    objects only the first n predictions are matched, the target of e_q is 1 for q < n
    and 0 for q = n (mean cross-entropy over q <= n; later predictions are ignored), and
    the score of a prediction is prod_{r <= q} σ(e_r) max_k p_q[k]. Otherwise any
    prediction may be matched, the target of e_q is whether q is matched (focal loss,
    gamma 2, twice its sum over the predictions, divided by n), the cost includes its
    last term, and the score is σ(e_q) max_k p_q[k]. If n is 0, 1 is the divisor. The
    frames of a clip share its weight.

    Training metrics are computed per batch: "f1" counts boxes with a score of at least
    0.5; a true positive has the class of an object and an IoU of at least 0.5 with it.

    Args:
      classes: K names in index order.
      size: (H, W) of an image, pixels.
      sequential: see above.

    Returns:
      A Task; targets are float32 [B, M, 7] or [B, T, M, 7], boxes as in `data.Split`;
      outputs are [B, Q, 5 + K] or [B, T, Q, 5 + K] with Q >= M; predictions are float32
      [..., Q, 6]: corners in pixels, clipped to the image, score, class. `outputs` is
      5 + K.

    Raises:
      ValueError: no class, or a size below 1.

    Reference: Carion et al. 2020, DETR, eq. 1, 2 and appendix A.4 (the weights);
    sequential: Romera-Paredes & Torr 2016, Recurrent Instance Segmentation, eq. 4 and
    6; focal loss: Lin et al. 2017, eq. 4. Departs: the mean over pairs is taken per
    image, then over images.
    """
    classes = tuple(map(str, classes))
    k, (height, width) = len(classes), size
    if not classes or height < 1 or width < 1:
        raise ValueError(
            f"detection: {k} classes in images of {height}x{width}; expected 1 or more "
            "of each"
        )
    scale = np.asarray([width, height, width, height], np.float32)

    def check(outputs, batch):
        """(outputs [N, Q, 5 + K], targets [N, M, 7], weights [N]), N images."""
        targets, mask = batch["targets"], batch["mask"]
        fits = targets.ndim in (3, 4) and outputs.ndim == targets.ndim
        fits = fits and outputs.shape[:-2] == targets.shape[:-2]
        if not fits or outputs.shape[-1] != 5 + k or targets.shape[-1] != COLUMNS:
            raise ValueError(
                f"detection: outputs {outputs.shape} do not fit targets "
                f"{targets.shape}; expected [..., Q, {5 + k}] and [..., M, {COLUMNS}]"
            )
        if outputs.shape[-2] < targets.shape[-2] + sequential:
            raise ValueError(
                f"detection: {outputs.shape[-2]} predictions for {targets.shape[-2]} "
                f"objects{' and the stop' if sequential else ''}; give the network more"
            )
        check_mask("detection", mask, targets)
        weight = mask.astype(jnp.float32)
        if targets.ndim == 4:
            steps, lengths = targets.shape[1], batch.get("lengths")
            if lengths is None:
                lengths = jnp.full(len(targets), steps)
            inside = jnp.arange(steps) < lengths[:, None]  # [B, T]
            share = weight / jnp.maximum(lengths, 1).astype(jnp.float32)
            weight = jnp.where(inside, share[:, None], 0.0)
            outputs, targets = (x.reshape(-1, *x.shape[2:]) for x in (outputs, targets))
        return outputs.astype(jnp.float32), targets, weight.reshape(-1)

    def error(outputs, targets):
        """Losses of one image, from [Q, 5 + K] and [M, 7]."""
        boxes, exists, logits = outputs[:, :4], outputs[:, 4], outputs[:, 5:]
        true = targets[:, :4] / scale
        there = (targets[:, CLASS] >= 0) & (targets[:, CROWD] == 0)  # [M]
        label = jnp.maximum(targets[:, CLASS], 0).astype(jnp.int32)
        log_p = jax.nn.log_softmax(logits)

        def far(one, other):  # [...]
            l1 = jnp.abs(one - other).sum(-1)
            return 5 * l1 + 2 * (1 - giou(one, other))

        cost = far(boxes[:, None], true[None]) - jnp.exp(log_p)[:, label]  # [Q, M]
        number = there.sum()
        steps = jnp.arange(len(outputs))
        if sequential:
            cost = jnp.where(steps[:, None] < number, cost, FAR)
        else:
            cost -= jax.nn.sigmoid(exists)[:, None]
        cost = jnp.nan_to_num(jnp.where(there, cost, 0.0), nan=FAR, posinf=FAR)
        rows = assign(jax.lax.stop_gradient(cost))  # [M]
        pairs = far(boxes[rows], true) - log_p[rows, label]
        count = jnp.maximum(number, 1).astype(jnp.float32)
        loss = jnp.where(there, pairs, 0.0).sum() / count
        if sequential:
            said = optax.sigmoid_binary_cross_entropy(
                exists, (steps < number).astype(jnp.float32)
            )
            judged = (steps <= number).astype(jnp.float32)
            return loss + (said * judged).sum() / judged.sum()
        matched = jnp.zeros(len(outputs)).at[rows].add(there.astype(jnp.float32))
        said = optax.sigmoid_focal_loss(exists, matched, alpha=0.5, gamma=FOCUS)
        return loss + 4 * said.sum() / count

    def loss_of(outputs, batch):
        outputs, targets, weight = check(outputs, batch)
        return masked(jax.vmap(error)(outputs, targets), weight)

    def predict(outputs):
        outputs = outputs.astype(jnp.float32)
        boxes = jnp.clip(outputs[..., :4], 0, 1) * scale
        exists = jax.nn.sigmoid(outputs[..., 4])
        if sequential:
            exists = jnp.cumprod(exists, -1)
        p = jax.nn.softmax(outputs[..., 5:])
        score, label = exists * p.max(-1), p.argmax(-1).astype(jnp.float32)
        return jnp.concatenate([boxes, score[..., None], label[..., None]], -1)

    def metrics(outputs, batch):
        outputs, targets, weight = check(outputs, batch)
        found, answers = jax.vmap(_right)(predict(outputs), targets)
        known = (targets[..., CLASS] >= 0) & (targets[..., CROWD] == 0)
        counts = 2 * found, answers + known.sum(-1).astype(jnp.float32)
        real = (weight > 0).astype(jnp.float32)
        return {
            "loss": masked(jax.vmap(error)(outputs, targets), weight),
            "f1": tuple(jnp.sum(count * real) for count in counts),
        }

    def report(predictions, targets):
        predictions, targets = single_images(predictions, targets)
        found = average_precision(predictions, targets, k)
        said, right, true = map(int, match_counts(predictions, targets))
        per_class = [
            {"name": name, **row}
            for name, row in zip(classes, found.pop("per_class"), strict=True)
        ]
        hidden = {}
        if (targets[..., HIDDEN] > 0.5).any():
            part = average_precision(predictions, targets, k, hidden=True)
            hidden = {"hidden": {name: part[name] for name in ("ap50", "ar50")}}
        return {
            "task": "detection",
            "examples": len(targets),
            **found,
            "precision": right / said if said else None,
            "recall": right / true if true else None,
            "f1": 2 * right / (said + true) if said + true else None,
            **hidden,
            "classes": list(classes),
            "per_class": per_class,
        }

    def figures(predictions, targets):
        predictions, targets = single_images(predictions, targets)
        curves = average_precision(predictions, targets, k, curves=True)["curves"]
        return {"precision_recall": detection_precision_recall(curves)}

    return Task(
        name="detection",
        outputs=5 + k,
        loss=loss_of,
        metrics=metrics,
        predict=predict,
        monitor="f1",
        mode="max",
        report=report,
        figures=figures,
        example_losses=_example_losses,
        weighted_scores=_weighted_scores,
    )


def _example_losses(predictions, targets):
    """1 - F1 of the boxes of each example."""
    said, right, true = _box_counts(predictions, targets).T
    return np.where(said + true, 1 - 2 * right / np.maximum(said + true, 1), 0.0)


def _weighted_scores(predictions, targets) -> Scores:
    """F1, precision and recall; average precision cannot be weighted."""
    each = _box_counts(predictions, targets).astype(np.float64)

    def scores(weights):
        said, right, true = (weights @ each).T
        return {
            "f1": 2 * right / np.maximum(said + true, 1),
            "precision": right / np.maximum(said, 1),
            "recall": right / np.maximum(true, 1),
        }

    return scores


def _box_counts(predictions, targets):
    """Predictions above the threshold, true positives, objects, per example: [N, 3]."""
    pairs = zip(predictions, targets, strict=True)
    return np.stack([match_counts(p[None], t[None]) for p, t in pairs])


def _right(answers, targets):
    """True positives and predictions above the threshold of one image, [Q, 6], [M, 7].

    An object matches at most one prediction, and a prediction at most one object.
    """
    sure = answers[:, 4] >= SCORE_THRESHOLD
    known = (targets[:, CLASS] >= 0) & (targets[:, CROWD] == 0)
    same = answers[:, 5][:, None] == targets[:, CLASS]
    meets = (iou(answers[:, :4], targets[:, :4]) >= 0.5) & same
    meets &= sure[:, None] & known
    found = jnp.minimum(meets.any(0).sum(), meets.any(1).sum())
    return found.astype(jnp.float32), sure.sum().astype(jnp.float32)
