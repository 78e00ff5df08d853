"""How sure a test metric is: bootstrap intervals over the examples of a test set."""

from collections.abc import Callable

import numpy as np

from lstm_jax.metrics.boxes import match_counts
from lstm_jax.metrics.confusion import confusion
from lstm_jax.metrics.edit_distance import align
from lstm_jax.metrics.image_similarity import frame_scores
from lstm_jax.targets import VOID

RESAMPLES = 1000
LARGEST_RANKING = 1_000_000  # examples x classes; above it, curves have no interval
CHUNK = 2**21  # weights that are held at once

Scores = Callable[[np.ndarray], dict[str, np.ndarray]]


def bootstrap(
    task: str,
    predictions,
    targets,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a task's metrics, examples drawn with replacement.

    Whole examples are drawn: a clip brings all its frames, steps and labels along. A
    draw in which a metric is not defined, such as the ROC of a class that was not
    drawn, does not count for it.

    Args:
      task: "classification" | "regression" | "forecasting" | "multilabel" |
        "segmentation" | "detection", of which it has none for AP | "recognition".
      predictions, targets: as the task's `report` takes them, N examples.
      level: share of the draws between the two ends, in (0, 1).
      resamples: draws.
      seed: of the draws.

    Returns:
      {metric: (low, high)}, by the names that the report has, "macro.f1" for one
      inside of "macro"; of a classification also "brier" and
      "macro.average_precision".

    Raises:
      ValueError: an unknown task, or a level out of its range.

    Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    if not 0 < level < 1:
        raise ValueError(f"bootstrap: level={level} is not in (0, 1); 0.95 is usual")
    scores = weighted_scores(task, predictions, targets)
    count = len(targets)
    rng = np.random.default_rng(seed)
    rows, step = [], max(1, CHUNK // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(0, count, (size, count))
        drawn += count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count)
        rows.append(scores(weights.reshape(size, count).astype(np.float64)))
    tail = 50 * (1 - level)
    found = {}
    for name in rows[0]:
        values = np.concatenate([row[name] for row in rows])
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.percentile(values, [tail, 100 - tail])
            found[name] = float(low), float(high)
    return found


def weighted_scores(task: str, predictions, targets) -> Scores:
    """`(weights [R, N]) -> {metric: [R]}`, each example counted weight times."""
    makers = {
        "classification": _classification,
        "regression": _regression,
        "forecasting": _forecasting,
        "multilabel": _multilabel,
        "segmentation": _segmentation,
        "detection": _detection,
        "recognition": _recognition,
    }
    if task not in makers:
        raise ValueError(f'bootstrap: task="{task}", wanted one of {tuple(makers)}')
    return makers[task](np.asarray(predictions), np.asarray(targets))


def example_losses(task: str, predictions, targets) -> np.ndarray:
    """One number an example, [N], high where the answer is bad.

    Cross-entropy of a classification and, over its known entries, of a multilabel
    example (NaN without any); mean absolute error of a regression; squared error of a
    forecast, summed over a frame and averaged over frames; 1 - Dice over the pixels of
    a segmentation that are not background; 1 - F1 of a detection's boxes; edits of a
    line of text, divided by its characters.
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if task == "classification":
        return _cross_entropy(np.float64(predictions), targets)
    if task == "regression":
        return np.abs(np.float64(predictions) - targets).mean(-1)
    if task == "forecasting":
        return _clip_scores(predictions, targets)["mse"]
    if task == "segmentation":
        return _dice_errors(predictions, targets)
    if task == "detection":
        said, right, true = _box_counts(predictions, targets).T
        return np.where(said + true, 1 - 2 * right / np.maximum(said + true, 1), 0.0)
    if task == "recognition":
        edits, characters, _ = _text_counts(predictions, targets)
        return edits / np.maximum(characters, 1)
    loss, known = _entries(predictions, targets)[2:]
    axes = tuple(range(1, loss.ndim))
    count = known.sum(axes)
    return np.where(count, loss.sum(axes) / np.maximum(count, 1), np.nan)


def _text_counts(predictions, targets):
    """Edits, characters and whether nothing is wrong, of each line, [N] each."""
    true = [[int(label) for label in row if label] for row in targets]
    read = [[int(label) for label in row if label] for row in predictions[..., 0]]
    pairs = zip(true, read, strict=True)
    edits = np.asarray([align(t, r).distance for t, r in pairs], np.float64)
    return edits, np.asarray([len(t) for t in true], np.float64), edits == 0


def _recognition(predictions, targets) -> Scores:
    edits, characters, exact = _text_counts(predictions, targets)

    def scores(weights):
        total = weights @ characters
        return {
            "cer": np.where(total > 0, weights @ edits / np.maximum(total, 1), np.nan),
            "exact": weights @ exact.astype(np.float64) / weights.sum(1),
        }

    return scores


def _dice_errors(predictions, targets):
    known = targets != VOID
    axes = tuple(range(1, targets.ndim))
    hit = ((predictions == targets) & (targets > 0) & known).sum(axes)
    both = ((predictions > 0) & known).sum(axes) + ((targets > 0) & known).sum(axes)
    return np.where(both, 1 - 2 * hit / np.maximum(both, 1), 0.0)


def _box_counts(predictions, targets):
    """Sure answers, right ones, and things, of each example: [N, 3]."""
    pairs = zip(predictions, targets, strict=True)
    return np.stack([match_counts(p[None], t[None]) for p, t in pairs])


def _segmentation(predictions, targets) -> Scores:
    classes = 1 + int(
        max(predictions.max(), np.where(targets == VOID, 0, targets).max())
    )
    each = confusion(predictions, targets, classes).astype(np.float64)  # [N, K, K]

    def scores(weights):
        found = np.einsum("rn,nij->rij", weights, each)
        hit = np.diagonal(found, axis1=1, axis2=2)  # [R, K]
        whole = found.sum(1) + found.sum(2)
        there = whole > 0
        count = np.maximum(there.sum(1), 1)
        iou = np.where(there, hit / np.maximum(whole - hit, 1), 0)
        dice = np.where(there, 2 * hit / np.maximum(whole, 1), 0)
        return {
            "mean_iou": iou.sum(1) / count,
            "dice": dice.sum(1) / count,
            "pixel_accuracy": hit.sum(1) / found.sum((1, 2)),
        }

    return scores


def _detection(predictions, targets) -> Scores:
    each = _box_counts(predictions, targets).astype(np.float64)

    def scores(weights):
        said, right, true = (weights @ each).T
        return {
            "f1": 2 * right / np.maximum(said + true, 1),
            "precision": right / np.maximum(said, 1),
            "recall": right / np.maximum(true, 1),
        }

    return scores


def _cross_entropy(predictions, targets):
    p_true = predictions[np.arange(len(targets)), targets]
    return -np.log(p_true.clip(np.finfo(np.float32).tiny))


def _classification(predictions, targets) -> Scores:
    predictions = np.float64(predictions)
    chosen, width = predictions.argmax(-1), predictions.shape[1]
    truth, answers = _one_hot(targets, width), _one_hot(chosen, width)
    right = chosen == targets
    columns = {"accuracy": right, "loss": _cross_entropy(predictions, targets)}
    if width > 5:
        best = np.argsort(-predictions, -1, kind="stable")[:, :5]
        columns["top5_accuracy"] = (best == targets[:, None]).any(-1)
    p_true = predictions[np.arange(len(targets)), targets]
    columns["brier"] = (predictions**2).sum(-1) - 2 * p_true + 1

    def scores(weights):
        result = _means(columns, weights)
        hits = (weights * right) @ truth  # [R, K]
        both = weights @ truth + weights @ answers
        result["macro.f1"] = (2 * hits / np.maximum(both, 1)).mean(-1)
        if len(targets) * width <= LARGEST_RANKING:
            each = [
                areas(predictions[:, k], targets == k, weights) for k in range(width)
            ]
            result |= _macro(each)
        return result

    return scores


def _regression(predictions, targets) -> Scores:
    targets = np.float64(targets)
    errors = np.float64(predictions) - targets
    centred = targets - targets.mean(0)
    columns = {"mae": np.abs(errors).mean(-1), "bias": errors.mean(-1)}

    def scores(weights):
        result = _means(columns, weights)
        count = weights.sum(-1, keepdims=True)
        squares = weights @ errors**2  # [R, K]
        result["rmse"] = np.sqrt((squares / count).mean(-1))
        spread = weights @ centred**2 - (weights @ centred) ** 2 / count
        changes = spread > 1e-12 * np.maximum(weights @ centred**2, 1e-300)
        r2 = np.where(changes, 1 - squares / np.where(changes, spread, 1), np.nan)
        result["r2"] = _mean_known(r2.T)
        return result

    return scores


def _forecasting(predictions, targets) -> Scores:
    columns = _clip_scores(predictions, targets)
    return lambda weights: _means(columns, weights)


def _clip_scores(predictions, targets):
    """Scores of each clip, {name: [N]}, means over its predicted frames."""
    import jax

    run = jax.jit(frame_scores)
    rows, step = [], 64
    for start in range(0, len(targets), step):
        true = targets[start : start + step, -predictions.shape[1] :]
        if true.dtype == np.uint8:
            true = true.astype(np.float32) / np.float32(255)
        rows.append(jax.device_get(run(predictions[start : start + step], true)))
    return {
        name: np.concatenate([row[name].mean(1, dtype=np.float64) for row in rows])
        for name in rows[0]
    }


def _multilabel(predictions, targets) -> Scores:
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
        result["macro.f1"] = _mean_known(f1s)
        if rankable:
            result |= _macro([_areas_of_steps(*part, weights) for part in parts])
        return result

    return scores


def _entries(predictions, targets):
    """Probabilities, truths, losses (0 where unknown) and what is known, all alike."""
    p = np.float64(predictions)
    known = ~np.isnan(targets)
    truth = known & (targets == 1)
    # as the report counts: what float32 tells from 0 and from 1
    p_truth = np.where(truth, np.maximum(p, 2.0**-126), np.maximum(1 - p, 2.0**-25))
    return p, truth, np.where(known, -np.log(p_truth), 0.0), known


def areas(scores, positive, weights) -> np.ndarray:
    """Areas under the ROC and under precision over recall, for each row of weights.

    The former are the odds that a positive example scores above a negative one, ties
    half; the latter the average precision over the steps of recall.

    Args:
      scores: [N].
      positive: bool [N].
      weights: [R, N].

    Returns:
      [2, R]; NaN with one answer only.
    """
    if not len(scores):
        return np.full((2, len(weights)), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    weights, positive = weights[:, order], positive[order]
    both = np.add.reduceat(weights, starts, axis=-1)  # [R, groups of equal scores]
    positives = np.add.reduceat(weights * positive, starts, axis=-1)
    negatives = both - positives
    below = np.cumsum(negatives, -1) - negatives / 2
    above = np.cumsum(positives[:, ::-1], -1)[:, ::-1]
    at_least = np.cumsum(both[:, ::-1], -1)[:, ::-1]
    yes, no = positives.sum(-1), negatives.sum(-1)
    pairs = np.where(yes * no, yes * no, np.nan)
    roc = (positives * below).sum(-1) / pairs
    precision = (positives * above / np.maximum(at_least, 1)).sum(-1) * no / pairs
    return np.stack([roc, precision])


def _areas_of_steps(scores, positive, example, weights) -> np.ndarray:
    """`areas` of entries [n], each with the weight of its example, some rows at once.

    An example has as many entries as steps: the weights of all draws need not fit.
    """
    size = max(1, CHUNK // max(1, len(example)))
    rows = [
        areas(scores, positive, weights[start : start + size, example])
        for start in range(0, len(weights), size)
    ]
    return np.concatenate(rows, axis=-1)


def _macro(each):
    roc, precision = np.moveaxis(np.asarray(each), 1, 0)
    return {
        "macro.roc_auc": _mean_known(roc),
        "macro.average_precision": _mean_known(precision),
    }


def _one_hot(indices, width):
    from scipy.sparse import csr_array

    rows = np.arange(len(indices))
    ones = np.ones(len(indices))
    return csr_array((ones, (rows, indices)), shape=(len(indices), width))


def _means(columns, weights):
    count = weights.sum(-1)
    return {name: weights @ values / count for name, values in columns.items()}


def _mean_known(values):
    """Mean over the first axis without NaN; NaN where there is nothing else."""
    values = np.asarray(values)
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count, total / np.maximum(count, 1), np.nan)
