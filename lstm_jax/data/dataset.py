"""What a data set is, and how examples are dealt out to its splits."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """A person's mistake, or a file that is missing or broken; complete as it reads."""


class Split(NamedTuple):
    """Examples of one split.

    Attributes:
      inputs: uint8 [N, H, W, C], 0..255.
      targets: int32 [N], a class index; or float32 [N, K], values to regress.
    """

    inputs: np.ndarray
    targets: np.ndarray


class Dataset(NamedTuple):
    """A whole data set in memory.

    Attributes:
      name: what it was loaded as.
      splits: exactly "train", "validation" and "test".
      classes: class names in the order of their indices; () means regression.
      notes: lines to show to the person, such as files that were skipped.
    """

    name: str
    splits: dict[str, Split]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.splits["train"].inputs.shape[1:]


def carve(
    strata: np.ndarray,
    count: int,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Take `count` examples out, each stratum in proportion, groups left whole.

    Shares are rounded by largest remainder. A stratum of two or more gives at least
    one example and keeps at least one. With groups the count is met only roughly.

    Args:
      strata: int [N], the class of each example; all zeros to draw plainly.
      count: examples to take, 0..N.
      rng: draws which.
      groups: [N] labels; examples of one group stay together. None: all apart.

    Returns:
      (kept, taken), two sorted int64 index arrays that together cover 0..N-1.
    """
    values, strata = np.unique(strata, return_inverse=True)
    sizes = np.bincount(strata, minlength=len(values))
    exact = sizes * (count / max(len(strata), 1))
    need = np.floor(exact).astype(np.int64)
    for stratum in np.argsort(need - exact, kind="stable")[: count - need.sum()]:
        need[stratum] += 1
    if count:
        need = np.clip(need, np.minimum(1, sizes - 1), np.maximum(sizes - 1, 0))
    taken = np.zeros(len(strata), bool)
    if groups is None:
        order = rng.permutation(len(strata))
        for stratum, wanted in enumerate(need):
            taken[order[strata[order] == stratum][:wanted]] = True
        return np.flatnonzero(~taken), np.flatnonzero(taken)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    bundles = list(members.values())
    for number in rng.permutation(len(bundles)):
        have = np.bincount(strata[bundles[number]], minlength=len(values))
        # A group goes over when at least half of it is still wanted there.
        if 2 * np.minimum(have, need).sum() >= have.sum():
            taken[bundles[number]] = True
            need = np.maximum(need - have, 0)
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def deal(
    targets: np.ndarray,
    assigned: dict[str, np.ndarray],
    *,
    validation: float,
    seed: int,
    test: float = 0.2,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, np.ndarray]:
    """Indices of the three splits; those not assigned are carved out of "train".

    Args:
      targets: int [N] classes (stratified) or float [N, K] (drawn plainly).
      assigned: indices by split name; "train" is there.
      validation: share of the examples in "train" as it is assigned, in (0, 1).
      seed: of the draw.
      test: share of the same examples, used when no "test" is assigned.
      groups: [N] labels of examples that stay together; None: all apart.

    Returns:
      Sorted int64 indices by name for "train", "validation" and "test".
    """
    assigned = dict(assigned)
    strata = targets if targets.ndim == 1 else np.zeros(len(targets), np.int32)
    total = len(assigned["train"])
    # Test first, with a seed of its own: the share of validation cannot move it.
    for number, (name, share) in enumerate(
        (("test", test), ("validation", validation))
    ):
        if name not in assigned:
            pool = assigned["train"]
            kept, taken = carve(
                strata[pool],
                min(max(round(share * total), 1), len(pool)),
                np.random.default_rng([seed, number]),
                None if groups is None else [groups[i] for i in pool],
            )
            assigned["train"], assigned[name] = pool[kept], pool[taken]
    return {name: assigned[name] for name in SPLITS}
