"""What a network gets wrong, class by class and example by example."""

import numpy as np


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
    """Images [N, H, W, C] of clips [N, T, H, W, C]: each one's middle frame."""
    if inputs.ndim == 4:
        return inputs
    steps = np.full(len(inputs), inputs.shape[1]) if lengths is None else lengths
    return inputs[np.arange(len(inputs)), np.asarray(steps) // 2]
