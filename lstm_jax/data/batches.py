"""Whole batches out of arrays, in an order that follows from (seed, epoch, step)."""

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from lstm_jax.data.dataset import DataError, Split

_HOWS = ("unit", "symmetric", "standard")


def normalization(images: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Constants that bring pixels to a range: y = (x - offset) * scale.

    Args:
      images: uint8 [N, H, W, C], those of the training split.
      how: "unit" for [0, 1], "symmetric" for [-1, 1], "standard" for zero mean and
        unit variance in each channel (a constant channel is only centred).

    Returns:
      (offset, scale), float32 [C] each.

    Raises:
      DataError: an unknown `how`, or nothing to take the statistics of.
    """
    channels = images.shape[-1]
    if how == "unit":
        offset, scale = np.zeros(channels), np.full(channels, 1 / 255)
    elif how == "symmetric":
        offset, scale = np.full(channels, 127.5), np.full(channels, 1 / 127.5)
    elif how == "standard":
        if not images.size:
            raise DataError("normalization: standard needs at least one image; got 0")
        counts = np.zeros((channels, 256))
        for start in range(0, len(images), 4096):
            for channel in range(channels):
                pixels = images[start : start + 4096, ..., channel].ravel()
                counts[channel] += np.bincount(pixels, minlength=256)
        values = np.arange(256.0)
        share = counts / counts.sum(1, keepdims=True)
        offset = share @ values  # [C]
        variance = (share * (values - offset[:, None]) ** 2).sum(1)
        scale = np.where(variance > 0, 1 / np.sqrt(np.maximum(variance, 1e-12)), 1.0)
    else:
        near = difflib.get_close_matches(str(how), _HOWS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"normalization: {how!r} is none of {', '.join(_HOWS)}{hint}")
    return offset.astype(np.float32), scale.astype(np.float32)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Full batches in one permutation of n examples: floor(n / batch_size).

    Raises:
      DataError: the batch size is not positive, or larger than n.
    """
    _check_positive(batch_size)
    if batch_size > n:
        raise DataError(
            f"batch size {batch_size} is larger than the training split of {n} "
            f"examples; the largest that fits is {n}"
        )
    return n // batch_size


def batch_indices(n: int, batch_size: int, *, seed: int, step: int) -> np.ndarray:
    """Which examples step `step` trains on.

    Each epoch is a fresh permutation, drawn from (seed, epoch); its remainder of less
    than a batch is left out.

    Args:
      n: examples in the split.
      batch_size: B, in 1..n.
      seed: at least 0.
      step: at least 0, counted over the whole run.

    Returns:
      int64 [B].

    Raises:
      DataError: a batch size that does not fit, a negative seed or step.
    """
    if seed < 0 or step < 0:
        raise DataError(f"seed and step are at least 0; got seed {seed}, step {step}")
    epoch, k = divmod(step, steps_per_epoch(n, batch_size))
    return _permutation(n, seed, epoch)[k * batch_size : (k + 1) * batch_size].copy()


def train_rows(
    n: int,
    batch_size: int,
    *,
    seed: int,
    step: int,
    share: tuple[int, int] = (0, 1),
) -> dict:
    """Which examples one training step takes; see `batch_indices`.

    Args:
      n, batch_size, seed, step: as there; the batch is that of all processes.
      share: (process, processes): which part of the batch to give.

    Returns:
      rows int32 [B / processes], mask float32 of ones, alike.
    """
    rows = batch_indices(n, batch_size, seed=seed, step=step)
    rows = _part(rows, share).astype(np.int32)
    return dict(rows=rows, mask=np.ones(len(rows), np.float32))


def train_batch(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    step: int,
    share: tuple[int, int] = (0, 1),
) -> dict:
    """The batch of one training step; arguments as in `train_rows`.

    Returns:
      inputs uint8 [B, H, W, C], targets [B] or [B, K], mask float32 [B] of ones.
    """
    batch = train_rows(len(split.inputs), batch_size, seed=seed, step=step, share=share)
    rows = batch.pop("rows")
    return dict(inputs=split.inputs[rows], targets=split.targets[rows], **batch)


def eval_batches(
    split: Split, batch_size: int, *, share: tuple[int, int] = (0, 1)
) -> Iterator[dict]:
    """Every example exactly once, in order; the last batch is padded with mask 0.

    Args:
      split: may be smaller than the batch.
      batch_size: B of all processes, at least 1.
      share: as in `train_rows`.

    Returns:
      Batches as `train_batch` gives them; padding, all at the end, repeats example 0.

    Raises:
      DataError: the batch size is not positive.
    """
    _check_positive(batch_size)
    return _eval_batches(split, batch_size, share)


def _eval_batches(split: Split, batch_size: int, share) -> Iterator[dict]:
    for start in range(0, len(split.inputs), batch_size):
        rows = _part(np.arange(start, start + batch_size), share)
        mask = (rows < len(split.inputs)).astype(np.float32)
        rows[mask == 0] = 0
        yield dict(inputs=split.inputs[rows], targets=split.targets[rows], mask=mask)


def read_ahead(
    make: Callable[[Any], Any], items: Iterable, *, threads: int = 2, ahead: int = 2
) -> Iterator:
    """`map(make, items)`, of which grain's threads make some ahead.

    Args:
      make: reads one batch; it is called from threads.
      items: what to make, all known beforehand.
      threads: how many read at once, at least 1.
      ahead: how many wait to be taken, at least 1.

    Returns:
      make(item) for each item, in order.
    """
    import grain  # 0.7 s, which only who streams waits for

    made = grain.MapDataset.source(list(items)).map(make)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    arriving = iter(made.to_iter_dataset(options))
    try:
        yield from arriving
    finally:
        arriving.close()


def _part(rows: np.ndarray, share: tuple[int, int]) -> np.ndarray:
    """The rows of one of several processes, which follow each other."""
    at, parts = share
    size = len(rows) // parts
    return rows[at * size : (at + 1) * size]


def _check_positive(batch_size: int) -> None:
    if batch_size < 1:
        raise DataError(f"batch size {batch_size} is not positive; give 1 or more")


@functools.lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
