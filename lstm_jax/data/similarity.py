"""Finds identical examples, and images or clips that are nearly identical."""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lstm_jax.data.fingerprints import content_hashes

# Largest RMS difference of nearly identical images, divided by the geometric mean of
# their standard deviations: over all pixels (NEAR) and in each tile (LOCAL). Photos
# saved again as JPEG of quality 75 to 90, or scaled by 0.7, mostly stay below both. The
# smallest distance between two of scikit-learn's digits is 0.11.
NEAR, LOCAL = 0.1, 0.25
FORMAT = 1  # format of stored groups; raise it when the definition of a copy changes
_TILE = 8  # largest side of a tile, pixels
_FLAT = 1.0  # grey levels; images with a smaller deviation are only compared exactly
_CELLS, _AXES, _NEIGHBOURS = 8, 8, 9  # parameters of the search
_CHUNK = 1 << 18  # numbers that are compared at once: they fit into the CPU's cache
HASHED = 2 << 30  # bytes; in larger inputs identical examples are not searched for
COMPARED = 512 << 20  # bytes; in larger inputs near copies are not searched for


class Copies(NamedTuple):
    """Copies among N examples.

    Attributes:
      first: int64 [N], the index of the first example with the same content.
      near: int64 [P, 2], pairs of these first examples that are nearly identical.
      compared: whether nearly identical examples were searched for.
    """

    first: np.ndarray
    near: np.ndarray
    compared: bool

    def groups(self) -> np.ndarray:
        """int64 [N]: the same number for all copies of one example, transitively."""
        return connected(len(self.first), self.near)[self.first]


def connected(count: int, pairs: np.ndarray) -> np.ndarray:
    """The index of the connected component of each node of a graph, int [count]."""
    if not len(pairs):
        return np.arange(count)
    from scipy.sparse import csgraph, csr_array  # scikit-learn's

    one, other = pairs.T
    graph = csr_array((np.ones(len(one)), (one, other)), shape=(count, count))
    return csgraph.connected_components(graph, directed=False)[1]


def joined_groups(
    groups: Sequence[Hashable] | None, copies: np.ndarray | None, count: int
) -> list[Hashable] | None:
    """Merges given groups with groups of copies: both stay in one split.

    Args:
      groups: [N] labels, such as patients; None: no groups.
      copies: int [N], the same number for copies; None: not known.
      count: N.

    Returns:
      [N], the label of each example's group (that of its first example, or an index);
      None if no two examples share a group.
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
    """Finds identical examples, and images or clips that are nearly identical.

    Args:
      parts: arrays [N_i, ...] that agree in dtype and shape except for N_i; near
        copies are only searched for in uint8 [N_i, ..., H, W, C].

    Returns:
      The `Copies`, with indices into the concatenated parts; None for more than 2 GiB.
      Near copies are not searched for above 512 MiB.
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
    """`Copies.groups` of the result of `find_copies`; None if that is None."""
    copies = find_copies(parts)
    return None if copies is None else copies.groups()


def near_pairs(parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Pairs of images that differ about as much as by compression or scaling.

    Images i and j with standard deviations s_i and s_j are a pair if
    RMS(i - j) <= 0.1 sqrt(s_i s_j) over all pixels and <= 0.25 sqrt(s_i s_j) in each
    tile of up to 8x8 pixels, so that a moved object or another letter makes two images
    different.

    The search uses z_i = (i - mean(i)) / s_i, for which RMS(z_i - z_j) is at most the
    distance above. Block means of z (8x8 blocks) and their first 8 principal axes are
    orthogonal projections, which never increase this distance. Each image is compared
    with its 8 nearest neighbours in that space.

    Args:
      parts: uint8 arrays [N_i, ..., H, W, C].
      rows: int [M], ascending indices of the compared images among all N = sum N_i.

    Returns:
      int64 [P, 2], with i < j in each row.

    Reference: Yang, Gu and Niu 2006, Block mean value based image perceptual hashing.
    Departs: means are compared as numbers, not as bits; candidates are then compared
    pixel by pixel.
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
    known = other < len(rows)  # KDTree pads missing neighbours with len(rows)
    pairs = np.stack([one[known], other[known]], 1)
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
    apart = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    pairs = rows[pairs[apart <= NEAR]]
    chunks = zip(*(_chunks(parts, side) for side in pairs.T), strict=True)
    alike = [_alike(left, right) for left, right in chunks]
    return pairs[np.concatenate(alike)] if alike else none


def _chunks(parts: Sequence[np.ndarray], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Chunks of the images `rows`, float32 [n, H, W, C]; frames of clips stacked."""
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
    """(images minus their means, standard deviations [n]) for images [n, H, W, C]."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    deviation = np.sqrt(np.einsum("np,np->n", flat, flat) / flat.shape[1])
    return flat.reshape(images.shape), deviation


def _sums(values: np.ndarray, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Sums of [n, H, W] over blocks that start at the edges, [n, rows, columns]."""
    rows = np.add.reduceat(values, edges[0], axis=1)
    return np.add.reduceat(rows, edges[1], axis=2)


def _block_means(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(block means of z as an orthogonal projection [n, cells], deviations [n])."""
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
