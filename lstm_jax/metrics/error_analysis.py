"""What a network gets wrong, class by class and example by example."""

import numpy as np


def one_against_rest(task, predictions, targets):
    """For each class or label, scores [n] and truths [n] (bool) of known entries."""
    predictions, targets = np.asarray(predictions, np.float64), np.asarray(targets)
    if task.name == "classification":
        return [(predictions[:, k], targets == k) for k in range(task.outputs)]
    known = ~np.isnan(targets)
    return [
        (predictions[..., k][known[..., k]], targets[..., k][known[..., k]] == 1)
        for k in range(task.outputs)
    ]


def average_precisions(pairs) -> list[float | None]:
    """Of each pair (scores, truths); None where only one of the two answers occurs."""
    from sklearn.metrics import average_precision_score

    return [
        float(average_precision_score(truth, scores))
        if truth.any() and not truth.all()
        else None
        for scores, truth in pairs
    ]


def middle_frames(inputs, lengths=None):
    """Pictures [N, H, W, C] of clips [N, T, H, W, C]: each one's middle frame."""
    if inputs.ndim == 4:
        return inputs
    steps = np.full(len(inputs), inputs.shape[1]) if lengths is None else lengths
    return inputs[np.arange(len(inputs)), np.asarray(steps) // 2]
