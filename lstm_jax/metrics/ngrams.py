"""A language model of characters: n-grams, as one table that a beam search indexes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

LARGEST = 1 << 25  # numbers in a table, 128 MiB of them


class Ngram(NamedTuple):
    """What comes after the last characters.

    Attributes:
      order: n.
      log_p: float32 [K ** (n - 1), K], log p(class | context), nats. A context is a
        number of n - 1 digits of base K, the latest last, zeros before the beginning;
        class 0 is the end of the line.
    """

    order: int
    log_p: np.ndarray


def ngram(lines: Iterable[Sequence[int]], classes: int, order: int = 3) -> Ngram:
    """Counts lines, and mixes each order with the one below it.

        p_n(c | h) = (N(h c) + D(h) p_n-1(c | h')) / (N(h) + D(h))

    with N the number of times, D(h) that of different classes after h, h' without its
    first character, and p_0 = 1 / K.

    Args:
      lines: labels of each, 1 to K - 1.
      classes: K, the end of a line at 0 included.
      order: n, 1 or more.

    Returns:
      The Ngram; each row of exp(log_p) sums to 1.

    Raises:
      ValueError: a label out of its range, or a table that is too large.

    Reference: Witten & Bell 1991, method C, interpolated.
    """
    if order < 1 or classes < 2:
        raise ValueError(
            f"ngram: order={order}, classes={classes}; wanted are 1 and 2 or more"
        )
    if classes**order > LARGEST:
        raise ValueError(
            f"ngram: {classes} classes to the power of {order} are {classes**order:,} "
            f"numbers, over {LARGEST:,}; give a lower order"
        )
    padded = []
    for number, line in enumerate(lines):
        line = np.asarray(line, np.int64).reshape(-1)
        if line.size and not 1 <= line.min() <= line.max() < classes:
            raise ValueError(
                f"ngram: line {number} has the labels {line.min()} to {line.max()}; "
                f"wanted are 1 to {classes - 1}"
            )
        padded.append(np.concatenate([np.zeros(order - 1, np.int64), line, [0]]))
    p = np.full((1, classes), 1 / classes)
    for n in range(1, order + 1):
        counts = np.zeros(classes**n, np.int64)
        for line in padded:
            ends = np.arange(order - 1, len(line))
            grams = sum(line[ends - back] * classes**back for back in range(n))
            np.add.at(counts, grams, 1)
        counts = counts.reshape(-1, classes)
        different = (counts > 0).sum(-1, keepdims=True)
        total = counts.sum(-1, keepdims=True)
        if n > 1:
            p = np.tile(p, (classes, 1))
        mixed = (counts + different * p) / np.maximum(total + different, 1)
        p = np.where(total > 0, mixed, p)
    return Ngram(order, np.log(p).astype(np.float32))
