"""Buckets for text lines of different widths: one compiled shape per bucket."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from lstm_jax.data.dataset import DataError

MULTIPLE = 8  # bucket widths are multiples of this many columns


def bucket_widths(lengths: np.ndarray, count: int) -> tuple[int, ...]:
    """Bucket widths that minimize the total padding.

    Args:
      lengths: int [N], columns of each line, N >= 1.
      count: maximum number of widths, at least 1.

    Returns:
      Ascending multiples of 8; the last is at least the longest line.

    Raises:
      DataError: count is not positive.
    """
    if count < 1:
        raise DataError(f"buckets: got {count}, want 1 or more")
    rounded = -(-np.maximum(lengths, 1) // MULTIPLE) * MULTIPLE
    widths, numbers = np.unique(rounded, return_counts=True)
    before = np.concatenate([[0], np.cumsum(numbers)])  # lines narrower than a width
    # Columns of a bucket of width j that holds all lines wider than width i.
    wider = widths * (before[1:] - before[1:, None]).astype(np.float64)  # [i, j]
    wider[np.tril_indices(len(widths))] = np.inf
    cost = widths * before[1:].astype(np.float64)  # of all lines up to width j
    cuts = []  # per additional bucket: where the bucket that ends at j begins
    for _ in range(min(count, len(widths)) - 1):
        options = cost[:, None] + wider
        cuts.append(options.argmin(0))
        cost = options.min(0)
    chosen, at = [], len(widths) - 1
    for cut in reversed(cuts):
        chosen.append(int(widths[at]))
        at = int(cut[at])
    return (*sorted([*chosen, int(widths[at])]),)


def bucket_of(lengths: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Index of the narrowest bucket that fits each line, int [N]; else the last."""
    return np.minimum(np.searchsorted(widths, lengths), len(widths) - 1)


def bucketed(
    lengths: np.ndarray, widths: Sequence[int], batch_size: int, seed: int
) -> Callable[[int], tuple[np.ndarray, int]]:
    """Batches of lines of similar width for each training step.

    In each epoch the lines of a bucket are shuffled into batches; an incomplete batch
    moves to the next wider bucket, and is dropped in the widest one. Batches come in
    random order, except in the first epoch, which goes from narrow to wide: short
    lines are easier to align and make faster steps.

    Args:
      lengths: int [N], columns of each line.
      widths: from `bucket_widths`.
      batch_size: B, in 1..N.
      seed: random seed.

    Returns:
      step -> (rows int64 [B], width); a pure function of the step.

    Reference: Amodei et al. 2016, section 3.3, SortaGrad.
    """
    bucket, per_epoch = bucket_of(lengths, widths), len(lengths) // batch_size

    @lru_cache(maxsize=2)
    def batches(epoch: int) -> list[tuple[np.ndarray, int]]:
        rng = np.random.default_rng([seed, epoch])
        order, made, left = rng.permutation(len(lengths)), [], np.zeros(0, np.int64)
        for number, width in enumerate(widths):
            pool = rng.permutation(np.append(left, order[bucket[order] == number]))
            full = len(pool) // batch_size * batch_size
            made += [(rows, width) for rows in pool[:full].reshape(-1, batch_size)]
            left = pool[full:]
        mixed = [made[k] for k in rng.permutation(len(made))]
        return mixed if epoch else sorted(mixed, key=lambda batch: batch[1])

    def at(step: int) -> tuple[np.ndarray, int]:
        epoch, number = divmod(step, per_epoch)
        rows, width = batches(epoch)[number]
        return rows.copy(), int(width)

    return at
