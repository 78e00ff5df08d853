"""Which examples are copies of others: identical, or images that are nearly so."""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lstm_jax.data.fingerprints import content_hashes

# Root mean square of the difference of two images, over the geometric mean of their
# standard deviations: at most, in all and in the tile that differs most. Photographs
# saved again as JPEG of quality 75 to 90, or scaled by 0.7, mostly stay below both; the
# two nearest of scikit-learn's digits are 0.11 apart.
NEAR, LOCAL = 0.1, 0.25
FORMAT = 1  # of stored groups of copies; raise it when what counts as one changes
_TILE = 8  # pixels a side, at most
_FLAT = 1.0  # grey levels; images of a smaller deviation are only compared exactly
_CELLS, _AXES, _NEIGHBOURS = 8, 8, 9  # of the search
_CHUNK = 1 << 18  # numbers that are compared at once: they stay in the cache
HASHED = 2 << 30  # bytes of inputs, of which identical examples are looked for
COMPARED = 512 << 20  # bytes of images, of which nearly identical ones are looked for


class Copies(NamedTuple):
    """Copies among N examples.

    Attributes:
      first: int64 [N], the number of the first example with the same content.
      near: int64 [P, 2], pairs of such first examples that are nearly identical.
      compared: whether nearly identical ones were looked for.
    """

    first: np.ndarray
    near: np.ndarray
    compared: bool

    def groups(self) -> np.ndarray:
        """int64 [N]: the same number for copies, copies of these, and so on."""
        return connected(len(self.first), self.near)[self.first]


def connected(count: int, pairs: np.ndarray) -> np.ndarray:
    """Numbers of the connected components of a graph, int [count]."""
    if not len(pairs):
        return np.arange(count)
    from scipy.sparse import csgraph, csr_array  # scikit-learn's

    one, other = pairs.T
    graph = csr_array((np.ones(len(one)), (one, other)), shape=(count, count))
    return csgraph.connected_components(graph, directed=False)[1]


def joined_groups(
    groups: Sequence[Hashable] | None, copies: np.ndarray | None, count: int
) -> list[Hashable] | None:
    """Groups of examples that stay together because of either.

    Args:
      groups: [N] labels, such as patients; None: all apart.
      copies: int [N], the same number for copies; None: not known.
      count: N.

    Returns:
      [N], the label of the first example of each group, or a number; None where all
      are apart.
    """
    pairs = []
    for known in (groups, None if copies is None else copies.tolist()):
        places: dict[Hashable, int] = {}
        for place, label in enumerate(known or ()):
            if places.setdefault(label, place) != place:
                pairs.append((places[label], place))
    found = connected(count, np.asarray(pairs, np.int64).reshape(-1, 2))
    _, first = np.unique(found, return_index=True)
    if len(first) == count:
        return None
    labels = range(count) if groups is None else groups
    return [labels[k] for k in first[found]]


def find_copies(parts: Sequence[np.ndarray]) -> Copies | None:
    """Identical examples, and images or clips that are nearly identical.

    Args:
      parts: arrays [N_i, ...] of one shape and dtype but for N_i; nearly identical
        ones are looked for in uint8 [N_i, ..., H, W, C].

    Returns:
      The `Copies`, numbered through all parts; None for more than 2 GiB. Nearly
      identical ones are not looked for above 512 MiB.
    """
    size = sum(part.nbytes for part in parts)
    if size > HASHED:
        return None
    hashes = np.concatenate([content_hashes(part) for part in parts])
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    images = parts[0].dtype == np.uint8 and parts[0].ndim > 3
    if not images or size > COMPARED:
        return Copies(first[inverse], np.zeros((0, 2), np.int64), False)
    return Copies(first[inverse], near_pairs(parts, np.sort(first)), True)


def copy_groups(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """`Copies.groups` of what `find_copies` finds; None where it does not look."""
    copies = find_copies(parts)
    return None if copies is None else copies.groups()


def near_pairs(parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Pairs of images that differ by compression or scaling, not more.

    Images i and j are a pair where RMS(i - j) <= 0.1 sqrt(s_i s_j) over all pixels, and
    <= 0.25 sqrt(s_i s_j) in each tile of 8x8 pixels at most, s their standard
    deviations: a moved object or another letter counts. With z = (i - mean) / s_i,
    RMS(z_i - z_j) is no larger. Candidates are neighbours by the means of 8x8 blocks of
    z, and of these by their first 8 principal axes, both orthogonal projections, in
    which no pair is farther apart; of each image the 8 nearest are compared.

    Args:
      parts: uint8 arrays [N_i, ..., H, W, C].
      rows: int [M], which of all N = sum N_i images, ascending.

    Returns:
      int64 [P, 2], each i < j.

    Reference: Yang, Gu and Niu 2006, Block mean value based image perceptual hashing.
    Departs: the means are compared as numbers, not as bits, and candidates by pixels.
    """
    from scipy.spatial import KDTree  # scikit-learn's

    none = np.zeros((0, 2), np.int64)
    means, flat = [], []
    for images in _chunks(parts, rows):
        block, deviation = _block_means(images)
        means.append(block)
        flat.append(deviation < _FLAT)
    if not means:
        return none
    rows = rows[~np.concatenate(flat)]
    means = np.concatenate(means)[~np.concatenate(flat)].astype(np.float64)
    if len(rows) < 2:
        return none
    centred = means - means.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, -_AXES:]
    places = centred @ axes
    count = min(_NEIGHBOURS, len(rows))
    _, found = KDTree(places).query(places, count, distance_upper_bound=NEAR)
    one, other = np.repeat(np.arange(len(rows)), count), found.ravel()
    known = other < len(rows)  # KDTree pads with this number
    pairs = np.stack([one[known], other[known]], 1)
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
    apart = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    pairs = rows[pairs[apart <= NEAR]]
    chunks = zip(*(_chunks(parts, side) for side in pairs.T), strict=True)
    alike = [_alike(left, right) for left, right in chunks]
    return pairs[np.concatenate(alike)] if alike else none


def _chunks(parts: Sequence[np.ndarray], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Images of all parts together, float32 [n, H, W, C]; of clips below each other."""
    starts = np.cumsum([0, *map(len, parts)])
    step = max(_CHUNK // max(int(np.prod(parts[0].shape[1:])), 1), 1)
    for begin in range(0, len(rows), step):
        some = rows[begin : begin + step]
        owners = np.searchsorted(starts, some, side="right") - 1
        images = np.stack(
            [parts[k][n - starts[k]] for k, n in zip(owners, some, strict=True)]
        )
        yield images.reshape(len(some), -1, *images.shape[-2:]).astype(np.float32)


def _centred(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(images minus their means, standard deviations [n]), of images [n, H, W, C]."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    deviation = np.sqrt(np.einsum("np,np->n", flat, flat) / flat.shape[1])
    return flat.reshape(images.shape), deviation


def _sums(values: np.ndarray, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Sums of [n, H, W] over blocks that begin at the edges, [n, rows, columns]."""
    rows = np.add.reduceat(values, edges[0], axis=1)
    return np.add.reduceat(rows, edges[1], axis=2)


def _block_means(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a projection of z with an RMS distance no larger [n, cells], deviations [n])."""
    centred, deviation = _centred(images)
    sides = images.shape[1:3]
    edges = tuple(
        np.linspace(0, side, min(_CELLS, side) + 1).astype(int)[:-1] for side in sides
    )
    count = _sums(np.ones((1, *sides), np.float32), edges) * images.shape[-1]
    sums = _sums(centred.sum(-1), edges) / np.sqrt(count * images[0].size)
    return sums.reshape(len(sums), -1) / np.maximum(deviation, _FLAT)[
        :, None
    ], deviation


def _alike(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool [n]: whether pairs of images [n, H, W, C] are nearly identical."""
    scale = np.sqrt(_centred(left)[1] * _centred(right)[1])
    square = np.square((left - right) / scale[:, None, None, None]).mean(-1)
    sides = square.shape[1:]
    tile = max(1, min(_TILE, min(sides) // 4))
    edges = tuple(np.arange(max(side // tile, 1)) * tile for side in sides)
    count = _sums(np.ones((1, *sides), np.float32), edges)
    local = (_sums(square, edges) / count).max((1, 2))
    return (square.mean((1, 2)) <= NEAR**2) & (local <= LOCAL**2)
