"""Whole batches out of arrays, in an order that follows from (seed, epoch, step)."""

import collections
import difflib
import functools
from collections.abc import Callable, Iterator
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


def train_batch(split: Split, batch_size: int, *, seed: int, step: int) -> dict:
    """The batch of one training step; see `batch_indices`.

    Returns:
      inputs uint8 [B, H, W, C], targets [B] or [B, K], mask float32 [B] of ones.
    """
    rows = batch_indices(len(split.inputs), batch_size, seed=seed, step=step)
    mask = np.ones(batch_size, np.float32)
    return dict(inputs=split.inputs[rows], targets=split.targets[rows], mask=mask)


def eval_batches(split: Split, batch_size: int) -> Iterator[dict]:
    """Every example exactly once, in order; the last batch is padded with mask 0.

    Args:
      split: may be smaller than the batch.
      batch_size: B, at least 1.

    Returns:
      Batches as `train_batch` gives them; padding repeats example 0.

    Raises:
      DataError: the batch size is not positive.
    """
    _check_positive(batch_size)
    return _eval_batches(split, batch_size)


def _eval_batches(split: Split, batch_size: int) -> Iterator[dict]:
    for start in range(0, len(split.inputs), batch_size):
        rows = np.arange(start, start + batch_size)
        mask = (rows < len(split.inputs)).astype(np.float32)
        rows[mask == 0] = 0
        yield dict(inputs=split.inputs[rows], targets=split.targets[rows], mask=mask)


def prefetch(items: Iterator, put: Callable[[Any], Any], depth: int = 2) -> Iterator:
    """Keep `depth` items on their way ahead of the consumer, without a thread.

    Args:
      items: host batches.
      put: starts the transfer and returns at once, as `jax.device_put` does.
      depth: at least 1; 2 is double buffering.

    Returns:
      put(item) for each item, in order.

    Raises:
      DataError: the depth is not positive.
    """
    if depth < 1:
        raise DataError(f"prefetch: depth is at least 1; got {depth}")
    return _prefetch(iter(items), put, depth)


def _prefetch(items: Iterator, put: Callable, depth: int) -> Iterator:
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(put(item))
        if len(waiting) == depth:
            yield waiting.popleft()
    yield from waiting


def _check_positive(batch_size: int) -> None:
    if batch_size < 1:
        raise DataError(f"batch size {batch_size} is not positive; give 1 or more")


@functools.lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
