"""Multi-label classification, per clip or per step: loss, ROC, average precision."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_jax.figures.roc_pr import roc_figure
from lstm_jax.metrics.bootstrap import Scores, mean_known
from lstm_jax.metrics.checks import check_finite
from lstm_jax.metrics.ranking import LARGEST_RANKING, areas_of_steps, macro_areas
from lstm_jax.tasks.task import Task, checked_names, checked_weights, masked

SCORES = ("roc_auc", "average_precision", "f1", "precision", "recall")


def multilabel(
    labels: Sequence[str],
    *,
    class_weights: Sequence[Sequence[float]] = (),
    gamma: float = 0.0,
) -> Task:
    """K independent binary labels per clip, or per step of a clip, from logits.

    loss = -(q (1 - p)^gamma log p + (1 - q) p^gamma log(1 - p)) with p =
    sigmoid(output) and q the target; its mean is weighted by the class weights of q.
    The metric "loss" has gamma = 0 and equal weights.
    Loss and accuracy (at p >= 0.5) are means over all known entries: NaN targets are
    unknown and ignored, and so are steps after the end of the clip.

    Args:
      labels: the K names, in the order of the outputs.
      class_weights: [K, 2], positive: of no and of yes, such as
        `balanced_label_weights`; () for equal ones.
      gamma: 0 or more; 2 is usual for a focal loss.

    Returns:
      A Task; targets are 0, 1 or NaN, [B, K] or [B, T, K]; a batch may have "lengths"
      [B], int, in steps. Predictions are probabilities of the targets' shape. `report`
      and `figures` take no lengths: set padded steps to NaN.

    Raises:
      ValueError: no labels, or a repeated name.

    Reference: Bishop 2006, Pattern Recognition and Machine Learning, equation 4.90;
    Lin et al. 2017, Focal Loss for Dense Object Detection, equation 4.
    """
    labels = checked_names("multilabel", "labels", labels, 1)
    width = len(labels)
    if gamma < 0:
        raise ValueError(f"multilabel: gamma={gamma}, wanted 0 or more")
    of_class = checked_weights("multilabel", class_weights, (width, 2))

    def check(outputs, batch):
        """Logits, targets with NaN replaced, and the weight of each entry."""
        targets, mask, lengths = batch["targets"], batch["mask"], batch.get("lengths")
        if outputs.ndim not in (2, 3) or outputs.shape[-1] != width:
            raise ValueError(
                f"multilabel: outputs have shape {outputs.shape}, expected [B, "
                f"{width}] or [B, T, {width}]; give the head {width} outputs"
            )
        if targets.shape != outputs.shape or mask.shape != outputs.shape[:1]:
            raise ValueError(
                f"multilabel: targets {targets.shape} and mask {mask.shape} do not fit "
                f"outputs {outputs.shape}; expected targets of the same shape and mask "
                f"{outputs.shape[:1]}"
            )
        targets = targets.astype(jnp.float32)
        known = ~jnp.isnan(targets)
        if lengths is not None and outputs.ndim == 3:
            if lengths.shape != mask.shape:
                raise ValueError(
                    f"multilabel: lengths have shape {lengths.shape}, expected "
                    f"{mask.shape}"
                )
            steps = jnp.arange(outputs.shape[1], dtype=lengths.dtype)
            known &= (steps < lengths[:, None])[..., None]
        first = mask.reshape(-1, *[1] * (outputs.ndim - 1)).astype(jnp.float32)
        weights = first * known.astype(jnp.float32)
        return outputs.astype(jnp.float32), jnp.where(known, targets, 0), weights

    def loss(outputs, batch):
        logits, targets, weights = check(outputs, batch)
        if of_class is not None:
            no, yes = of_class.T
            weights = weights * jnp.where(targets == 1, yes, no)
        if not gamma:
            return masked(optax.sigmoid_binary_cross_entropy(logits, targets), weights)
        values = optax.sigmoid_focal_loss(logits, targets, gamma=gamma)
        return masked(values, weights)

    def metrics(outputs, batch):
        logits, targets, weights = check(outputs, batch)
        right = (predict(logits) >= 0.5) == (targets >= 0.5)
        values = optax.sigmoid_binary_cross_entropy(logits, targets)
        return {"loss": masked(values, weights), "accuracy": masked(right, weights)}

    def predict(outputs):
        return jax.nn.sigmoid(outputs.astype(jnp.float32))

    def report(predictions, targets):
        pairs = known_entries(predictions, targets, width)
        return _report(pairs, np.asarray(predictions), np.asarray(targets), labels)

    def figures(predictions, targets):
        return {"roc": roc_figure(known_entries(predictions, targets, width), labels)}

    return Task(
        name="multilabel",
        outputs=width,
        loss=loss,
        metrics=metrics,
        predict=predict,
        monitor="loss",
        mode="min",
        report=report,
        figures=figures,
        example_losses=_example_losses,
        weighted_scores=_weighted_scores,
    )


def balanced_label_weights(targets, width: int) -> np.ndarray:
    """Weights [K, 2] of no and yes under which both count alike: n / (2 n_k).

    Of a label of which only one of them occurs, both weigh 1.

    Args:
      targets: 0, 1 or NaN, [N, K] or [N, T, K].
      width: K.
    """
    targets = np.asarray(targets).reshape(-1, width)
    counts = np.stack([(targets == q).sum(0) for q in (0, 1)], -1)  # [K, 2]
    weights = counts.sum(-1, keepdims=True) / (2 * np.maximum(counts, 1))
    return np.where(counts.all(-1, keepdims=True), weights, 1.0)


def best_thresholds(predictions, targets, width: int) -> np.ndarray:
    """The probability from which on each label is a yes, [K]: that of the largest F1.

    Choose it on validation examples, never on those of the test. Halfway between two
    predictions; of equals the nearest to 0.5, which is also that of a label without
    both answers.

    Args:
      predictions, targets, width: as in `known_entries`.
    """
    found = []
    for p, truth in known_entries(predictions, targets, width):
        if truth.all() or not truth.any():
            found.append(0.5)
            continue
        values, place = np.unique(p, return_inverse=True)
        yes, both = (
            np.bincount(place, w, minlength=len(values))[::-1].cumsum()[::-1]
            for w in (truth.astype(float), None)
        )
        f1 = 2 * yes / (both + truth.sum())
        cuts = np.r_[values[:1] / 2, (values[1:] + values[:-1]) / 2]
        best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=1e-12, atol=0))
        low, high = np.r_[0, values[:-1]][best], values[best]
        inside = (low < 0.5) & (high >= 0.5)  # 0.5 does as well as what is between
        near = np.where(inside, 0.5, cuts[best])
        found.append(float(near[np.abs(near - 0.5).argmin()]))
    return np.asarray(found)


def scores_at(predictions, targets, thresholds) -> list[dict[str, float] | None]:
    """Precision, recall and F1 of each label at its threshold.

    Args:
      predictions, targets: as in `known_entries`.
      thresholds: [K].

    Returns:
      K dicts; None of a label without both answers.
    """
    pairs = known_entries(predictions, targets, len(thresholds))
    rows = []
    for (p, truth), cut in zip(pairs, thresholds, strict=True):
        said = p >= cut
        hits, yes, told = (int(x.sum()) for x in (said & truth, truth, said))
        scores = {
            "precision": hits / max(told, 1),
            "recall": hits / max(yes, 1),
            "f1": 2 * hits / max(yes + told, 1),
        }
        rows.append(None if truth.all() or not truth.any() else scores)
    return rows


def known_entries(predictions, targets, width: int):
    """Probabilities and truths (bool) of the known entries of each label.

    Args:
      predictions: probabilities [N, K] or [N, T, K].
      targets: 0, 1 or NaN, of the same shape.
      width: K, number of labels.

    Returns:
      K pairs ([n_k], [n_k]).

    Raises:
      ValueError: shapes that do not fit, or values out of range.
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    wanted = targets.ndim in (2, 3) and targets.shape[-1] == width and len(targets)
    if predictions.shape != targets.shape or not wanted:
        raise ValueError(
            f"multilabel: predictions have shape {predictions.shape} and targets "
            f"{targets.shape}; expected [N, {width}] or [N, T, {width}] with N >= 1, "
            "the same for both"
        )
    targets = targets.reshape(-1, width).astype(np.float32)
    predictions = predictions.reshape(-1, width)
    known = ~np.isnan(targets)
    pairs = [
        (predictions[known[:, k], k].astype(np.float64), targets[known[:, k], k])
        for k in range(width)
    ]
    p, q = (np.concatenate(values) for values in zip(*pairs, strict=True))
    check_finite("multilabel", np.isfinite(p))
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            "multilabel: predictions are not probabilities; pass the outputs through "
            "task.predict first"
        )
    if ((q != 0) & (q != 1)).any():
        raise ValueError("multilabel: targets hold other numbers than 0, 1 and NaN")
    return [(probability, truth == 1) for probability, truth in pairs]


def _report(pairs, predictions, targets, labels):
    """Test metrics of each label; None where they are undefined."""
    from scipy.special import xlogy  # as in scikit-learn: NumPy's log rounds otherwise

    known = ~np.isnan(targets)
    p, truth = predictions[known].astype(np.float64), targets[known] == 1
    per_label = [
        {"name": name, "support": int(q.sum()), "known": len(q), **_scores(p_k, q)}
        for name, (p_k, q) in zip(labels, pairs, strict=True)
    ]
    macro = {}
    for name in SCORES:
        values = [row[name] for row in per_label if row[name] is not None]
        macro[name] = float(np.mean(values)) if values else None
    # Clip to the smallest float32 probability above 0, and half a step below 1.
    p_truth = np.where(truth, np.maximum(p, 2.0**-126), np.maximum(1 - p, 2.0**-25))
    return {
        "task": "multilabel",
        "examples": len(targets),
        "known": len(p),
        "loss": float(-xlogy(1.0, p_truth).mean()) if len(p) else None,
        "accuracy": float(np.mean((p >= 0.5) == truth)) if len(p) else None,
        "macro": macro,
        "per_label": per_label,
        "labels": list(labels),
    }


def _example_losses(predictions, targets):
    """Mean cross-entropy of an example's known entries; NaN without any."""
    loss, known = _entries(predictions, targets)[2:]
    axes = tuple(range(1, loss.ndim))
    count = known.sum(axes)
    return np.where(count, loss.sum(axes) / np.maximum(count, 1), np.nan)


def _weighted_scores(predictions, targets) -> Scores:
    p, truth, loss, known = _entries(predictions, targets)
    axes = tuple(range(1, loss.ndim))
    right = ((p >= 0.5) == truth) & known
    entries = known.sum(axes)
    rankable = known.sum() <= LARGEST_RANKING
    parts, counts = [], []
    for k in range(p.shape[-1]):
        of_label = known[..., k]
        score, positive = p[..., k][of_label], truth[..., k][of_label]
        example, said = np.nonzero(of_label)[0], score >= 0.5
        parts.append((score, positive, example))
        counts.append(
            [
                np.bincount(example, which, minlength=len(p))
                for which in (positive & said, positive, said, ~positive)
            ]
        )

    def scores(weights):
        count = weights @ entries
        count = np.where(count, count, np.nan)
        result = {
            "loss": weights @ loss.sum(axes) / count,
            "accuracy": weights @ right.sum(axes) / count,
        }
        f1s = []
        for each in counts:
            hits, yes, said, no = (weights @ count for count in each)
            f1 = 2 * hits / np.maximum(yes + said, 1)
            f1s.append(np.where((yes > 0) & (no > 0), f1, np.nan))
        result["macro.f1"] = mean_known(f1s)
        if rankable:
            result |= macro_areas([areas_of_steps(*part, weights) for part in parts])
        return result

    return scores


def _entries(predictions, targets):
    """Probabilities, truths, losses (0 if unknown) and known, all of one shape."""
    p = np.float64(predictions)
    known = ~np.isnan(targets)
    truth = known & (targets == 1)
    # As in the report: clipped to what float32 distinguishes from 0 and 1.
    p_truth = np.where(truth, np.maximum(p, 2.0**-126), np.maximum(1 - p, 2.0**-25))
    return p, truth, np.where(known, -np.log(p_truth), 0.0), known


def _scores(p, truth):
    """Scores of one label, all None if only one class occurs."""
    from sklearn.metrics import (
        average_precision_score,
        precision_recall_fscore_support,
        roc_auc_score,
    )

    if truth.all() or not truth.any():
        return dict.fromkeys(SCORES)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, p >= 0.5, average="binary", zero_division=0
    )
    values = (
        roc_auc_score(truth, p),
        average_precision_score(truth, p),
        f1,
        precision,
        recall,
    )
    return {name: float(value) for name, value in zip(SCORES, values, strict=True)}
