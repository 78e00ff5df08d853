"""Orders of training examples in which no class is rare."""

import functools
from collections.abc import Callable

import numpy as np


def balanced_order(targets: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    """The order of examples by epoch, in which every class occurs equally often.

    An epoch has N examples, as always: of a rare class each occurs several times, of a
    frequent one some are left out, in each epoch others.

    Args:
      targets: int [N], the class of each example.
      seed: of the draws, at least 0.

    Returns:
      epoch -> int64 [N], a pure function of (targets, seed, epoch).
    """
    members = [np.flatnonzero(targets == k) for k in np.unique(targets)]
    share, more = divmod(len(targets), len(members))

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch, len(members)])
        counts = np.full(len(members), share)
        counts[rng.permutation(len(members))[:more]] += 1
        drawn = [
            _draw(rows, int(count), rng)
            for rows, count in zip(members, counts, strict=True)
        ]
        return rng.permutation(np.concatenate(drawn))

    return order


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the rows: each as often as any other, or once more."""
    times, rest = divmod(count, len(rows))
    return np.concatenate([np.tile(rows, times), rng.permutation(rows)[:rest]])
