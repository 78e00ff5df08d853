"""Batches from arrays; their order is a function of (seed, epoch, step)."""

import collections
import concurrent.futures
import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from lstm_jax.data.buckets import bucket_of, bucketed
from lstm_jax.data.dataset import DataError, Split

_HOWS = ("unit", "symmetric", "inverted", "standard")
_BLOCK = 1 << 22  # array elements per block when statistics are computed


def normalization(
    images: np.ndarray, how: str, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Constants that normalize inputs: y = (x - offset) * scale.

    Args:
      images: inputs of the training split, [N, ..., C]: uint8 pixels, or float32
        features, which allow only "standard".
      how: "unit" maps pixels to [0, 1], "symmetric" to [-1, 1], "inverted" to [0, 1]
        with white at 0; "standard" gives each channel zero mean and unit variance (a
        constant channel is only centred).
      lengths: int [N], valid steps of clips [N, T, ..., C]; None: all are valid.

    Returns:
      (offset, scale), float32 [C] each.

    Raises:
      DataError: `how` is unknown, does not fit features, or there are no images.
    """
    channels = images.shape[-1]
    if how not in _HOWS:
        near = difflib.get_close_matches(str(how), _HOWS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"normalization: {how!r} is none of {', '.join(_HOWS)}{hint}")
    pixels = images.dtype == np.uint8
    if how == "standard":
        if not images.size:
            raise DataError("normalization: standard needs at least one image; got 0")
        offset, variance = _moments(images, lengths)  # [C], [C]
        scale = np.where(variance > 0, 1 / np.sqrt(np.maximum(variance, 1e-12)), 1.0)
    elif not pixels:
        raise DataError(
            f"normalization: {how} is defined for pixels, but the inputs are features "
            f"of type {images.dtype}; use standard"
        )
    elif how == "unit":
        offset, scale = np.zeros(channels), np.full(channels, 1 / 255)
    elif how == "inverted":
        offset, scale = np.full(channels, 255.0), np.full(channels, -1 / 255)
    else:
        offset, scale = np.full(channels, 127.5), np.full(channels, 1 / 127.5)
    return offset.astype(np.float32), scale.astype(np.float32)


def _blocks(images: np.ndarray, lengths: np.ndarray | None) -> Iterator[np.ndarray]:
    """Valid inputs as blocks [M, C] of about `_BLOCK` elements."""
    block = max(_BLOCK // max(images[0].size, 1), 1)
    for start in range(0, len(images), block):
        part = images[start : start + block]
        if lengths is not None:
            valid = lengths[start : start + block]
            part = part[np.arange(part.shape[1]) < valid[:, None]]
        yield part.reshape(-1, images.shape[-1])


def _moments(inputs, lengths) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel, float64 [C] each."""
    if inputs.dtype == np.uint8:  # exact sums of integers, which are also faster
        parts = (
            [np.bincount(c, minlength=256) for c in p.T]
            for p in _blocks(inputs, lengths)
        )
        counts = sum(map(np.stack, parts))  # [C, 256]
        values, total = np.arange(256), counts.sum(1)
        mean = counts @ values / total
        return mean, (counts * (values - mean[:, None]) ** 2).sum(1) / total
    sums = [(len(p), p.sum(0, np.float64)) for p in _blocks(inputs, lengths)]
    count = sum(n for n, _ in sums)
    mean = sum(total for _, total in sums) / count
    squares = (((p - mean) ** 2).sum(0) for p in _blocks(inputs, lengths))
    return mean, sum(squares) / count


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Full batches in one epoch of n examples: floor(n / batch_size).

    Raises:
      DataError: the batch size is not positive, or larger than n.
    """
    _check_positive(batch_size)
    if batch_size > n:
        raise DataError(
            f"batch size {batch_size} is larger than the training split of {n} "
            f"examples; give --batch-size={n} or less"
        )
    return n // batch_size


def batch_indices(
    n: int,
    batch_size: int,
    *,
    seed: int,
    step: int,
    order: Callable[[int], np.ndarray] | None = None,
) -> np.ndarray:
    """Indices of the examples in the batch of training step `step`.

    Each epoch is a new permutation, drawn from (seed, epoch); the last, incomplete
    batch is dropped.

    Args:
      n: number of examples in the split.
      batch_size: B, in 1..n.
      seed: at least 0.
      step: at least 0, counted over the whole run.
      order: epoch -> int64 [n], in place of the permutation, as `balanced_order`.

    Returns:
      int64 [B], indices in 0..n-1.

    Raises:
      DataError: a batch size that does not fit, a negative seed or step.
    """
    if seed < 0 or step < 0:
        raise DataError(f"seed and step are at least 0; got seed {seed}, step {step}")
    epoch, k = divmod(step, steps_per_epoch(n, batch_size))
    rows = order(epoch) if order else _permutation(n, seed, epoch)
    return rows[k * batch_size : (k + 1) * batch_size].copy()


def train_rows(
    n: int,
    batch_size: int,
    *,
    seed: int,
    step: int,
    share: tuple[int, int] = (0, 1),
    order: Callable[[int], np.ndarray] | None = None,
) -> dict:
    """Row indices and mask of one training step; see `batch_indices`.

    Args:
      n, batch_size, seed, step, order: as in `batch_indices`; B is the global batch
        size.
      share: (process index, number of processes); selects this process's part.

    Returns:
      dict: "rows", int32 [B / processes]; "mask", float32 ones of the same shape.
    """
    rows = batch_indices(n, batch_size, seed=seed, step=step, order=order)
    rows = _part(rows, share).astype(np.int32)
    return dict(rows=rows, mask=np.ones(len(rows), np.float32))


def train_batch(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    step: int,
    share: tuple[int, int] = (0, 1),
    order: Callable[[int], np.ndarray] | None = None,
) -> dict:
    """The batch of one training step; arguments as in `train_rows`.

    Returns:
      dict: "inputs" and "targets" [B, ...] as in `Split`; "mask", float32 ones [B];
      "lengths", int32 [B], if the split has them.
    """
    options = dict(seed=seed, step=step, share=share, order=order)
    batch = train_rows(len(split.inputs), batch_size, **options)
    return gather(split, batch.pop("rows")) | batch


def line_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    widths: Sequence[int],
    share: tuple[int, int] = (0, 1),
) -> Callable[[int], dict]:
    """Training batches of text lines, each padded to one of a few widths.

    Args:
      split: text lines, with lengths.
      batch_size, seed, share: as in `train_rows`.
      widths: from `bucket_widths`, pixels; each gives batches of a different shape.

    Returns:
      step -> dict as from `train_batch`, with inputs cropped to the bucket's width.

    Raises:
      DataError: the batch size is not positive, or larger than the split.
    """
    steps_per_epoch(len(split.inputs), batch_size)  # checks the batch size
    at = bucketed(split.lengths, widths, batch_size, seed)

    def batch(step: int) -> dict:
        rows, width = at(step)
        rows = _part(rows, share)
        return gather(split, rows, width) | dict(mask=np.ones(len(rows), np.float32))

    return batch


def pad_to_widest(batch: dict, widths: Sequence[int]) -> dict:
    """Pads a batch of `line_batches` to the widest bucket: one shape for all widths.

    Args:
      batch: "inputs" uint8 [B, H, W, C], W one of the widths.
      widths: ascending, pixels.

    Returns:
      The batch with inputs padded with white on the right to `widths[-1]`, and
      "bucket", int32 []: the index of its width.
    """
    inputs = batch["inputs"]
    more = widths[-1] - inputs.shape[2]
    sides = (0, 0), (0, 0), (0, more), (0, 0)
    return batch | {
        "inputs": np.pad(inputs, sides, constant_values=255),
        "bucket": np.asarray(widths.index(inputs.shape[2]), np.int32),
    }


def eval_batches(
    split: Split,
    batch_size: int,
    *,
    share: tuple[int, int] = (0, 1),
    widths: Sequence[int] = (),
) -> Iterator[dict]:
    """Batches that hold every example exactly once; padding has mask 0.

    Args:
      split: may be smaller than the batch.
      batch_size: B, over all processes, at least 1.
      share: as in `train_rows`.
      widths: of text lines, from `bucket_widths`: batches go bucket by bucket, and
        the last batch of each bucket is padded. (): the order of the split.

    Returns:
      Iterator of dicts as from `train_batch`; padding repeats an example. `in_order`
      restores the order of the split.

    Raises:
      DataError: the batch size is not positive.
    """
    _check_positive(batch_size)
    return _eval_batches(split, batch_size, share, widths)


def _eval_batches(split: Split, batch_size: int, share, widths) -> Iterator[dict]:
    for rows, mask, width in _eval_rows(split, batch_size, widths):
        mask = _part(mask, share)
        yield gather(split, _part(rows, share), width) | dict(mask=mask)


def _eval_rows(split: Split, batch_size: int, widths: Sequence[int]):
    """Yields row indices [B], their mask [B], and the width or None."""
    parts = [(np.arange(len(split.inputs)), None)]
    if widths:
        bucket = bucket_of(split.lengths, widths)
        parts = [(np.flatnonzero(bucket == k), w) for k, w in enumerate(widths)]
    for members, width in parts:
        for start in range(0, len(members), batch_size):
            rows = members[start : start + batch_size]
            more = batch_size - len(rows)
            mask = np.pad(np.ones(len(rows), np.float32), (0, more))
            yield np.pad(rows, (0, more), constant_values=members[0]), mask, width


def in_order(
    split: Split,
    batch_size: int,
    outputs: Sequence[np.ndarray],
    widths: Sequence[int] = (),
) -> np.ndarray:
    """Concatenates the outputs for `eval_batches`, in the order of the split.

    Args:
      split, batch_size, widths: as passed to `eval_batches`.
      outputs: [B, ...] for each batch; of text lines [B, T, ...], where T depends on
        the bucket (shorter outputs are padded with 0).

    Returns:
      [N, ...], without the padding examples.
    """
    if not widths:
        return np.concatenate(outputs)[: len(split.inputs)]
    longest = max(output.shape[1] for output in outputs)
    shape = (len(split.inputs), longest, *outputs[0].shape[2:])
    ordered = np.zeros(shape, outputs[0].dtype)
    parts = _eval_rows(split, batch_size, widths)
    for output, (rows, mask, _) in zip(outputs, parts, strict=True):
        real = mask > 0
        ordered[rows[real], : output.shape[1]] = output[real]
    return ordered


def gather(split: Split, rows: np.ndarray, width: int | None = None) -> dict:
    """Examples of a split as a dict; text lines are cropped or padded to `width`."""
    if width is not None:
        inputs, lengths = split.inputs[:, :, :width], split.lengths
        split = split._replace(inputs=inputs, lengths=np.minimum(lengths, width))
    fields = split._asdict().items()
    found = {name: a[rows] for name, a in fields if a is not None}
    if width is not None and (more := width - found["inputs"].shape[2]):
        sides = (0, 0), (0, 0), (0, more), (0, 0)
        found["inputs"] = np.pad(found["inputs"], sides, constant_values=255)
    return found


def prefetch(
    make: Callable[[Any], Any], items: Iterable, *, threads: int = 2, ahead: int = 2
) -> Iterator:
    """`map(make, items)`, computed ahead of time by threads.

    Args:
      make: builds one batch; called from worker threads.
      items: the arguments of `make`.
      threads: number of worker threads, at least 1.
      ahead: number of batches that are being built or waiting, at least 1.

    Returns:
      Iterator of make(item) for each item, in order.
    """
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending = collections.deque(pool.submit(make, x) for x in islice(items, ahead))
        try:
            while pending:
                made = pending.popleft().result()
                pending.extend(pool.submit(make, x) for x in islice(items, 1))
                yield made
        finally:
            for future in pending:
                future.cancel()


def _part(rows: np.ndarray, share: tuple[int, int]) -> np.ndarray:
    """The contiguous part of the rows that belongs to one process."""
    at, parts = share
    size = len(rows) // parts
    return rows[at * size : (at + 1) * size]


def _check_positive(batch_size: int) -> None:
    if batch_size < 1:
        raise DataError(f"batch size {batch_size} is not positive; give 1 or more")


@functools.lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
