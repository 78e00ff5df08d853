"""Class-balanced sampling of training examples."""

import functools
from collections.abc import Callable

import numpy as np


def balanced_order(targets: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    """Orders of examples in which every class occurs equally often in each epoch.

    An epoch still has N examples: those of a rare class occur several times, and some
    of a frequent class are left out, different ones in each epoch.

    Args:
      targets: int [N], the class of each example.
      seed: seed of the draws, at least 0.

    Returns:
      A function of the epoch that returns indices, int64 [N]; it is pure in (targets,
      seed, epoch).
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
    """Draws `count` of the rows; how often two rows occur differs by at most one."""
    times, rest = divmod(count, len(rows))
    return np.concatenate([np.tile(rows, times), rng.permutation(rows)[:rest]])
