"""How examples are divided into splits and folds, and subsets of them."""

import inspect
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data.counts import check_counts
from lstm_jax.data.dataset import SPLITS, DataError, Dataset, Split
from lstm_jax.data.holdout import stratified_holdout
from lstm_jax.data.similarity import copy_groups, joined_groups

_POOL = ("train", "validation")  # what is split into folds, in this order


def split_indices(
    targets: np.ndarray,
    assigned: dict[str, np.ndarray],
    *,
    validation: float,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, np.ndarray]:
    """Indices of the three splits; those not assigned are taken from "train".

    A test split takes a fifth of it.

    Args:
      targets: int [N] classes (stratified) or float [N, ...] (drawn plainly).
      assigned: indices by split name; "train" is there.
      validation: share of the examples in "train" as it is assigned, in (0, 1).
      seed: of the draw.
      groups: [N] labels of examples that stay together; None: all apart.

    Returns:
      Sorted int64 indices by name for "train", "validation" and "test".
    """
    assigned = dict(assigned)
    strata = targets if targets.ndim == 1 else np.zeros(len(targets), np.int32)
    total = len(assigned["train"])
    # Test first, with a seed of its own: the share of validation cannot move it.
    for number, (name, share) in enumerate((("test", 0.2), ("validation", validation))):
        if name not in assigned:
            pool = assigned["train"]
            kept, taken = stratified_holdout(
                strata[pool],
                min(max(round(share * total), 1), len(pool)),
                np.random.default_rng([seed, number]),
                None if groups is None else [groups[i] for i in pool],
            )
            assigned["train"], assigned[name] = pool[kept], pool[taken]
    return {name: assigned[name] for name in SPLITS}


def assign_splits(
    source: Path,
    items: Sequence[Any],
    what: str,
    targets: np.ndarray | None = None,
    classes: tuple[str, ...] = (),
    *,
    validation: float,
    seed: int,
    inputs: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Splits examples; those without a split are assigned at random, stratified.

    Identical and nearly identical inputs stay together, unless too few differ.

    Args:
      source: the data set's path, for errors.
      items: [N], each with its `split`, or None to assign it, and its `group`, whose
        examples stay together; None in any group: no groups.
      what: the name of one example, such as "image".
      targets: class indices, stratified; only with `classes`.
      classes: class names.
      validation, seed: as in `load`.
      inputs: [N, ...], what copies are found among; None: copies are not looked for.

    Returns:
      (indices by split, notes).

    Raises:
      DataError: one class only, too few of a class, or groups that cannot be split.
    """
    check_counts(source, items, what, targets, classes)
    given = [item.split or "train" for item in items]
    groups = [item.group for item in items]
    assigned = {
        name: np.flatnonzero([g == name for g in given])
        for name in SPLITS
        if name == "train" or name in given
    }
    strata = targets if classes else np.zeros(len(items), np.int32)
    own = None if None in groups else groups
    free = inputs is not None and set(SPLITS) > set(assigned)
    copies = copy_groups([inputs]) if free else None
    joined, apart = (joined_groups(own, c, len(items)) for c in (copies, None))

    def deal(labels: Sequence[Hashable] | None) -> dict[str, np.ndarray]:
        draw = dict(validation=validation, seed=seed, groups=labels)
        found = split_indices(strata, assigned, **draw)
        _check_splits(source, what, found, strata, classes, labels)
        return found

    try:
        chosen = deal(joined)
    except DataError:
        if joined == apart:
            raise
        chosen = deal(apart)
    notes = []
    if "test" not in assigned:
        shares = ", ".join(f"{n} {len(rows)}" for n, rows in chosen.items())
        notes.append(f"no test split was given: random split, seed {seed} ({shares})")
    return chosen, notes


def _check_splits(
    source: Path,
    what: str,
    rows: dict[str, np.ndarray],
    strata: np.ndarray,
    classes: tuple[str, ...],
    groups: Sequence[Hashable] | None,
) -> None:
    """Refuses an empty split, and a class that is not trained on."""
    for name, indices in rows.items():
        if not len(indices):
            raise DataError(
                f"{source}: its {len(set(groups or ()))} groups cannot be split, "
                f"{name} stays empty; give more and smaller groups, or a split column"
            )
    left = np.bincount(strata[rows["train"]], minlength=len(classes))
    lacking = np.flatnonzero(left == 0)
    if len(lacking):
        raise DataError(
            f"{source}: no {what} of class {classes[lacking[0]]!r} is left to train "
            "on, since its groups went to other splits; give more groups of it, or a "
            "split column"
        )


def by_split(
    values: Sequence | None, rows: Mapping[str, np.ndarray]
) -> dict[str, tuple] | None:
    """What is known of each example, such as its name, by split; None of None."""
    if values is None:
        return None
    return {name: tuple(values[k] for k in indices) for name, indices in rows.items()}


def subset(dataset: Dataset, count: int, seed: int) -> Dataset:
    """The same with `count` training examples at most, of each class in proportion.

    Shares are rounded by largest remainder, but no class is left out.

    Raises:
      DataError: fewer than one of each class.
    """
    split = dataset.splits["train"]
    if count >= len(split.inputs):
        return dataset
    one_class = split.targets.ndim != 1
    strata = np.zeros(len(split.targets), int) if one_class else split.targets
    classes = len(np.unique(strata))
    if count < classes:
        raise DataError(
            f"{dataset.name}: {count} training examples are fewer than its "
            f"{classes} classes; raise the limit"
        )
    strata = np.unique(strata, return_inverse=True)[1]
    need = _shares(np.bincount(strata), count)
    order = np.random.default_rng(seed).permutation(len(strata))
    each = (order[strata[order] == k][:n] for k, n in enumerate(need))
    rows = np.sort(np.concatenate([*each]))
    taken = Split(*(None if part is None else part[rows] for part in split))

    def kept(values):
        return values and values | by_split(values["train"], {"train": rows})

    return dataset._replace(
        splits={**dataset.splits, "train": taken},
        names=kept(dataset.names),
        groups=kept(dataset.groups),
    )


def _shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """`count` in proportion to `sizes`, no more than these, and no less than 1."""
    exact = sizes * (count / sizes.sum())
    need = np.maximum(np.floor(exact).astype(np.int64), 1)
    while need.sum() != count:
        if need.sum() < count:
            need[np.where(need < sizes, exact - need, -np.inf).argmax()] += 1
        else:
            need[np.where(need > 1, need - exact, -np.inf).argmax()] -= 1
    return need


def split_folds(
    dataset: Dataset, folds: int, *, validation: float, seed: int
) -> list[dict[str, np.ndarray]]:
    """Indices of the three splits of every fold; "test" of fold k is fold k.

    They count the pool: the examples of "train", then those of "validation". Classes
    are stratified, and no group is in two splits: StratifiedKFold, GroupKFold,
    StratifiedGroupKFold or KFold, shuffled by `seed`. Copies stay together like a
    group, unless too few examples differ.

    Args:
      dataset: its "test" is not looked at.
      folds: at least 2.
      validation: fraction of the other folds for "validation", in (0, 1).
      seed: of both draws.

    Returns:
      For each fold sorted int64 indices for "train", "validation" and "test".

    Raises:
      DataError: too few examples of a class, or too few groups, for so many folds.
    """
    targets = np.concatenate([dataset.splits[name].targets for name in _POOL])
    copies = copy_groups([dataset.splits[name].inputs for name in _POOL])
    own = _pooled(dataset.groups)
    joined, apart = (joined_groups(own, c, len(targets)) for c in (copies, None))
    options = dict(validation=validation, seed=seed)
    try:
        return _assign_folds(dataset, targets, joined, folds, **options)
    except DataError:
        if joined == apart:
            raise
    return _assign_folds(dataset, targets, apart, folds, **options)


def _assign_folds(
    dataset: Dataset,
    targets: np.ndarray,
    groups: Sequence[Hashable] | None,
    folds: int,
    **options,
) -> list[dict[str, np.ndarray]]:
    classes = dataset.classes if targets.ndim == 1 else ()
    _check(dataset.name, targets, classes, groups, folds)
    splitter = _splitter(bool(classes), groups is not None, folds, options["seed"])
    strata = targets if classes else np.zeros(len(targets), np.int32)
    labels = None if groups is None else np.asarray(groups)
    chosen = []
    for rest, held in splitter.split(strata, strata, labels):
        assigned = {"train": rest, "test": held}
        chosen.append(split_indices(targets, assigned, groups=groups, **options))
    for number, rows in enumerate(chosen):
        _check_fold(f"{dataset.name}: fold {number} of {folds}", rows, targets, classes)
    return chosen


def select_fold(
    dataset: Dataset, folds: int, fold: int, *, validation: float, seed: int
) -> Dataset:
    """The data set with fold `fold`, from 0, as "test", the others as the rest.

    The data set's own "test" is left out. Arguments and errors as in `split_folds`; the
    examples are copied into memory.
    """
    chosen = split_folds(dataset, folds, validation=validation, seed=seed)[fold]
    note = (
        f"fold {fold} of 0 to {folds - 1} is tested on; the test split of "
        f"{dataset.name}, {len(dataset.splits['test'].inputs):,} examples, stays "
        "untouched"
    )
    return dataset._replace(
        splits={name: _taken(dataset, rows) for name, rows in chosen.items()},
        notes=(*dataset.notes, note),
        names=by_split(_pooled(dataset.names), chosen),
        groups=by_split(_pooled(dataset.groups), chosen),
    )


def _pooled(by_split: Any) -> tuple | None:
    if by_split is None:
        return None
    return tuple(value for name in _POOL for value in by_split[name])


def _taken(dataset: Dataset, rows: np.ndarray) -> Split:
    """Examples of the pool, which is never held as a whole."""
    first, second = (dataset.splits[name] for name in _POOL)
    early = rows < len(first.inputs)

    def taken(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
        if a is None:
            return None
        out = np.empty((len(rows), *a.shape[1:]), a.dtype)
        out[early] = a[rows[early]]
        out[~early] = b[rows[~early] - len(a)]
        return out

    return Split._make(map(taken, first, second))


def _splitter(stratified: bool, grouped: bool, folds: int, seed: int) -> Any:
    from sklearn import model_selection as kinds  # a second, for who has folds

    if stratified:
        kind = kinds.StratifiedGroupKFold if grouped else kinds.StratifiedKFold
    else:
        kind = kinds.GroupKFold if grouped else kinds.KFold
    options = dict(shuffle=True, random_state=seed)
    if "shuffle" not in inspect.signature(kind).parameters:  # GroupKFold before 1.6
        options = {}
    return kind(folds, **options)


def _check(
    name: str,
    targets: np.ndarray,
    classes: tuple[str, ...],
    groups: Sequence[Hashable] | None,
    folds: int,
) -> None:
    """Refuses more folds than there are examples, of a class too, or groups."""
    counts = {"training and validation together": len(targets)}
    if classes:
        each = np.bincount(targets, minlength=len(classes))
        counts |= {f"class {c!r}": n for c, n in zip(classes, each, strict=True) if n}
    what, least = min(counts.items(), key=lambda item: item[1])
    if least < folds:
        raise DataError(
            f"{name}: folds={folds}, but {what} has {least} examples besides the test "
            "split; every fold wants one: give fewer folds, or more examples"
        )
    if groups is not None and len(set(groups)) < folds:
        raise DataError(
            f"{name}: folds={folds}, but there are {len(set(groups))} groups besides "
            "the test split, which stay whole; give fewer folds, or smaller groups"
        )


def _check_fold(
    where: str,
    rows: dict[str, np.ndarray],
    targets: np.ndarray,
    classes: tuple[str, ...],
) -> None:
    empty = [name for name, indices in rows.items() if not len(indices)]
    if empty:
        raise DataError(
            f"{where}: its groups leave {empty[0]} empty; give fewer folds, or more "
            "and smaller groups"
        )
    lost = np.setdiff1d(targets, targets[rows["train"]]) if classes else ()
    if len(lost):
        raise DataError(
            f"{where}: no example of class {classes[lost[0]]!r} is left to train on, "
            "since its groups are in other splits; give more groups of it"
        )
