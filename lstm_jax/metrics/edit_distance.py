"""Edit distance between true and recognized text, and the edits."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Edits(NamedTuple):
    """The edits that turn a true sequence into the recognized one.

    Attributes:
      pairs: ((true, read), ...) in order; None on the side without a counterpart.
      substitutions, deletions, insertions: number of each; a deletion is a true
        element that was not recognized.
    """

    pairs: tuple[tuple[Hashable | None, Hashable | None], ...]
    substitutions: int
    deletions: int
    insertions: int

    @property
    def distance(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def align(true: Sequence[Hashable], read: Sequence[Hashable]) -> Edits:
    """Aligns two sequences with the minimum number of edits, each of cost 1.

        d[i, j] = min(d[i-1, j-1] + (true_i != read_j), d[i-1, j] + 1, d[i, j-1] + 1)

    Among equal alignments, the one that pairs elements as late as possible.

    Args:
      true, read: strings, or lists of words.

    Returns:
      The Edits.

    Reference: Levenshtein 1966; Wagner & Fischer 1974.
    """
    numbers: dict[Hashable, int] = {}
    a, b = (
        np.asarray([numbers.setdefault(x, len(numbers)) for x in xs], np.int64)
        for xs in (true, read)
    )
    columns = np.arange(len(b) + 1)
    rows = np.empty((len(a) + 1, len(b) + 1), np.int32)
    rows[0] = columns
    for i, x in enumerate(a):
        row = rows[i + 1]
        row[0] = i + 1
        np.minimum(rows[i, :-1] + (b != x), rows[i, 1:] + 1, out=row[1:])
        # Insertions: minimum over the columns to the left, plus 1 per column.
        row[:] = np.minimum.accumulate(row - columns) + columns
    pairs, (i, j) = [], (len(a), len(b))
    while i or j:
        here = rows[i, j]
        if i and j and here == rows[i - 1, j - 1] + (a[i - 1] != b[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((true[i], read[j]))
        elif i and here == rows[i - 1, j] + 1:
            i -= 1
            pairs.append((true[i], None))
        else:
            j -= 1
            pairs.append((None, read[j]))
    pairs.reverse()
    deletions = sum(r is None for _, r in pairs)
    insertions = sum(t is None for t, _ in pairs)
    substitutions = int(rows[-1, -1]) - deletions - insertions
    return Edits(tuple(pairs), substitutions, deletions, insertions)


def edit_distances(true: jax.Array, read: jax.Array) -> jax.Array:
    """Edit distances of a batch of pairs, usable inside jit.

    Args:
      true: int [B, L], padded with 0.
      read: int [B, M], padded with 0.

    Returns:
      int32 [B].
    """
    columns = jnp.arange(read.shape[1] + 1, dtype=jnp.int32)

    def one(true, read):
        def step(row, x):
            other = (read != x).astype(jnp.int32)
            least = jnp.minimum(row[:-1] + other, row[1:] + 1)
            least = jnp.concatenate([row[:1] + 1, least])
            new = jax.lax.cummin(least - columns) + columns
            return jnp.where(x != 0, new, row), None

        row, _ = jax.lax.scan(step, columns, true)
        return row[(read != 0).sum()]

    return jax.vmap(one)(true, read)
