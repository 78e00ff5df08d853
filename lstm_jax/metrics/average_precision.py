"""Average precision of boxes, as COCO's evaluator defines it."""

import numpy as np

from lstm_jax.metrics.boxes import area, overlaps
from lstm_jax.targets import CLASS, CROWD, HIDDEN

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # answers to an image, the best ones


def average_precision(
    predictions, targets, classes: int, *, hidden: bool = False, curves: bool = False
) -> dict:
    """AP and AR over images.

    For each class and each threshold of IoU, answers are taken by score, the highest
    first; each takes the free thing of its class that it overlaps most, if by the
    threshold or more, and is right; else it is wrong. What takes a crowd, whose
    overlap is the share of the answer inside of it, counts neither way, and a crowd
    may be taken often. AP is the mean, over recalls of 0, 0.01 … 1, of the highest
    precision at that recall or a higher one; 0 for recalls that are not reached.

    Args:
      predictions: [N, Q, 6]: corners in pixels, score, class; rows of a negative score
        are none.
      targets: [N, M, 7] as `data.Split` has boxes.
      classes: K.
      hidden: judge by things alone of which more than half is hidden; the others
        count neither way.
      curves: also return precisions at the 101 recalls.

    Returns:
      "ap" (mean over the thresholds 0.50, 0.55 … 0.95), "ap50", "ap75", "ar" (mean of
      the recalls reached, over the same thresholds) and "ar50", each a mean over the
      classes that occur, None if none does; "per_class", K dicts of "ap", "ap50",
      "ar50" and "things"; with `curves`, "curves" [10, 101], means over classes.

    Reference: Lin et al. 2014, Microsoft COCO, and its evaluator (area "all", 100
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
    """The answers to one image, the highest score first."""
    answers = answers[answers[:, 4] >= 0]  # a negative one is padding
    return answers[np.argsort(-answers[:, 4], kind="stable")]


def _take(boxes, truth, skipped):
    """Which answers are right, and which count neither way, [10, Q] each, bool."""
    # Things that count come first, and are preferred.
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
            # Among equals the later one is taken, as COCO's evaluator does.
            for some in (~skipped, skipped):
                can = some & (free | crowd) & (row >= least)
                if can.any():
                    at = len(row) - 1 - np.where(can, row, -1)[::-1].argmax()
                    free[at] = False
                    hits[t, q], ignored[t, q] = not skipped[at], skipped[at]
                    break
    return hits, ignored


def _curve(found, things):
    """The recall reached, and the precision at the 101 recalls."""
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
    """Over the classes that occur, [10, 101]."""
    there = ~np.isnan(precisions).any((1, 2))
    if not there.any():
        return np.zeros(precisions.shape[1:])
    return precisions[there].mean(0)
