"""Error analysis by class and by example."""

import numpy as np


def average_precisions(pairs) -> list[float | None]:
    """Average precision of each pair (scores, truths); None if all truths agree."""
    from sklearn.metrics import average_precision_score

    return [
        float(average_precision_score(truth, scores))
        if truth.any() and not truth.all()
        else None
        for scores, truth in pairs
    ]


def middle_frames(inputs, lengths=None):
    """The middle frame [N, H, W, C] of each clip [N, T, H, W, C]."""
    if inputs.ndim == 4:
        return inputs
    steps = np.full(len(inputs), inputs.shape[1]) if lengths is None else lengths
    return inputs[np.arange(len(inputs)), np.asarray(steps) // 2]
