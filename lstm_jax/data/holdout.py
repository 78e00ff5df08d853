"""Stratified hold-out of examples that keeps groups together."""

from collections.abc import Hashable, Sequence

import numpy as np


def stratified_holdout(
    strata: np.ndarray,
    count: int,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Holds out `count` examples, in proportion from each stratum.

    Shares are rounded by largest remainder. Of a stratum with two or more examples, at
    least one is held out and at least one is kept. Groups are never divided, so with
    groups the count is only approximate.

    Args:
      strata: int [N], the class of each example; all zeros: no stratification.
      count: number of examples to hold out, 0..N.
      rng: random generator for the draw.
      groups: [N] labels; examples of one group stay together. None: no groups.

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
    if groups is None or not len(strata):
        order = rng.permutation(len(strata))
        for stratum, wanted in enumerate(need):
            taken[order[strata[order] == stratum][:wanted]] = True
        return np.flatnonzero(~taken), np.flatnonzero(taken)
    members: dict[Hashable, list[int]] = {}
    for index in rng.permutation(len(strata)).tolist():
        members.setdefault(groups[index], []).append(index)
    wanted, bundles = np.flatnonzero(need), [*members.values()]
    have = np.stack([np.bincount(strata[b], minlength=len(values)) for b in bundles])
    inside = np.zeros(len(bundles), bool)
    for number, own in enumerate(have):
        # A group is held out if at least half of its examples are still needed.
        if 2 * np.minimum(own, np.maximum(need, 0)).sum() >= own.sum():
            inside[number] = True
            need = need - own
    while True:  # move one group at a time, while that brings counts nearer to `need`
        change = np.where(inside, 2, -2) * (have @ need) + (have**2).sum(1)
        best = change.argmin()
        if change[best] >= 0:
            break
        need = need + np.where(inside[best], have[best], -have[best])
        inside[best] ^= True
    for stratum in wanted[have[inside].sum(0)[wanted] == 0]:
        # No group with this stratum was held out: hold out the smallest one that
        # leaves every stratum with kept examples.
        left = have[~inside].sum(0)
        spare = ~inside & (have[:, stratum] > 0) & ((have == 0) | (have < left)).all(1)
        if spare.any():
            inside[np.where(spare, have.sum(1), len(strata) + 1).argmin()] = True
    taken[[row for number in np.flatnonzero(inside) for row in bundles[number]]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)
