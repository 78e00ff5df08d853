"""Average precision of boxes, as COCO's evaluator defines it."""

import numpy as np

from lstm_jax.metrics.boxes import area, overlaps
from lstm_jax.targets import CLASS, CROWD, HIDDEN

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # predictions per image that are evaluated, by descending score


def average_precision(
    predictions, targets, classes: int, *, hidden: bool = False, curves: bool = False
) -> dict:
    """Average precision (AP) and recall (AR) of bounding boxes.

    For each class and IoU threshold, predictions are matched in descending order of
    score: each is matched to the unmatched ground-truth box of its class with the
    highest IoU, at least the threshold, and is a true positive; otherwise it is a false
    positive. Predictions matched to a crowd region, where the overlap is the fraction
    of the prediction inside it, are ignored; a crowd matches any number of them. AP is
    the mean of the interpolated precision at the recalls 0, 0.01 … 1; 0 for recalls
    that are not reached.

    Args:
      predictions: [N, Q, 6]: corners in pixels, score, class; rows with a negative
        score are padding.
      targets: [N, M, 7], boxes as in `data.Split`.
      classes: K, number of classes.
      hidden: evaluate only objects that are more than half occluded; the others are
        ignored.
      curves: also return the precision at the 101 recalls.

    Returns:
      "ap" (mean over the thresholds 0.50, 0.55 … 0.95), "ap50", "ap75", "ar" (mean of
      the maximum recall over the same thresholds) and "ar50", each a mean over the
      classes that occur, None if none does; "per_class", K dicts of "ap", "ap50",
      "ar50" and "things", the number of objects; with `curves`, "curves" [10, 101],
      means over classes.

    Reference: Lin et al. 2014, Microsoft COCO, and its evaluator (area "all", 100
    predictions per image); tested to be equal to pycocotools.
    answers an image); tested to be equal to pycocotools.
    """
    predictions = np.asarray(predictions, np.float64)
    targets = np.asarray(targets, np.float64)
    precisions = np.full((classes, len(THRESHOLDS), len(RECALLS)), np.nan)
    recalls = np.full((classes, len(THRESHOLDS)), np.nan)
    things = np.zeros(classes, int)
    best = [_best(answers) for answers in predictions]
    for label in range(classes):
        scores, right, ignored = [np.zeros(0)], [], []
        for answers, truth in zip(best, targets, strict=True):
            truth = truth[truth[:, CLASS] == label]
            answers = answers[answers[:, 5] == label][:MOST]
            skipped = truth[:, CROWD] == 1
            if hidden:
                skipped |= truth[:, HIDDEN] <= 0.5
            things[label] += (~skipped).sum()
            if len(answers):
                scores.append(answers[:, 4])
                hit, none = _take(answers[:, :4], truth, skipped)
                right.append(hit)
                ignored.append(none)
        if not things[label]:
            continue
        recalls[label] = 0
        precisions[label] = 0
        if not right:
            continue
        order = np.argsort(-np.concatenate(scores), kind="stable")
        hits, ignored = (np.concatenate(x, 1)[:, order] for x in (right, ignored))
        for t in range(len(THRESHOLDS)):
            found = hits[t][~ignored[t]]
            reached, precision = _curve(found, things[label])
            recalls[label, t] = reached
            precisions[label, t] = precision
    return _means(precisions, recalls, things) | (
        {"curves": _mean(precisions)} if curves else {}
    )


def _best(answers):
    """The predictions for one image, sorted by descending score."""
    answers = answers[answers[:, 4] >= 0]  # negative scores are padding
    return answers[np.argsort(-answers[:, 4], kind="stable")]


def _take(boxes, truth, skipped):
    """True positives, and ignored predictions, [10, Q] each, bool."""
    # Objects that are evaluated come first: they are preferred to ignored ones.
    order = np.argsort(skipped, kind="stable")
    truth, skipped = truth[order], skipped[order]
    crowd = truth[:, CROWD] == 1
    both, union = overlaps(boxes, truth[:, :4])
    whole = np.where(crowd, area(boxes)[:, None], union)
    met = both / np.maximum(whole, 1e-12)  # [Q, M]
    hits = np.zeros((len(THRESHOLDS), len(boxes)), bool)
    ignored = np.zeros_like(hits)
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(truth), bool)
        least = min(threshold, 1 - 1e-10)
        for q in np.flatnonzero((met >= least).any(1)):
            row = met[q]
            # Of equal IoUs the last wins, as in COCO's evaluator.
            for some in (~skipped, skipped):
                can = some & (free | crowd) & (row >= least)
                if can.any():
                    at = len(row) - 1 - np.where(can, row, -1)[::-1].argmax()
                    free[at] = False
                    hits[t, q], ignored[t, q] = not skipped[at], skipped[at]
                    break
    return hits, ignored


def _curve(found, things):
    """The maximum recall, and the precision at the 101 recalls."""
    right = np.cumsum(found)
    recall = right / things
    precision = right / (np.arange(len(found)) + 1 + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    values = np.append(precision, 0)[at]
    return (recall[-1] if len(recall) else 0.0), values


def _means(precisions, recalls, things):
    def number(values):
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else None

    def of(precisions, recalls):
        return {
            "ap": number(precisions),
            "ap50": number(precisions[..., 0, :]),
            "ap75": number(precisions[..., 5, :]),
            "ar": number(recalls),
            "ar50": number(recalls[..., 0]),
        }

    rows = []
    for precision, recall, count in zip(precisions, recalls, things, strict=True):
        row = of(precision[None], recall[None])
        rows.append(
            {k: row[k] for k in ("ap", "ap50", "ar50")} | {"things": int(count)}
        )
    return of(precisions, recalls) | {"per_class": rows}


def _mean(precisions):
    """Mean over the classes that occur, [10, 101]."""
    there = ~np.isnan(precisions).any((1, 2))
    if not there.any():
        return np.zeros(precisions.shape[1:])
    return precisions[there].mean(0)
