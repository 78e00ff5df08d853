"""Splits, cross-validation folds and subsets of examples."""

import inspect
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data.counts import check_counts
from lstm_jax.data.dataset import SPLITS, DataError, Dataset, Split
from lstm_jax.data.holdout import stratified_holdout
from lstm_jax.data.similarity import copy_groups, joined_groups

_POOL = ("train", "validation")  # the splits that folds are made from, in this order
_COPIES_APART = (
    "too few {what}s differ to keep copies in one split: a {what} and its copy may be "
    "in different splits, which makes test metrics look better than they are"
)


def split_indices(
    targets: np.ndarray,
    assigned: dict[str, np.ndarray],
    *,
    validation: float,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, np.ndarray]:
    """Indices of the three splits; missing splits are drawn from "train".

    A missing test split gets a fifth of the assigned "train".

    Args:
      targets: int [N] classes (stratified) or float [N, ...] (not stratified).
      assigned: indices by split name; it has "train".
      validation: share of the assigned "train" for validation, in (0, 1).
      seed: seed of the draws.
      groups: [N] labels of examples that stay together; None: no groups.

    Returns:
      Sorted int64 indices by name for "train", "validation" and "test".
    """
    assigned = dict(assigned)
    strata = targets if targets.ndim == 1 else np.zeros(len(targets), np.int32)
    total = len(assigned["train"])
    # Test is drawn first and with its own seed, so that it does not depend on the share
    # of validation.
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
    """Assigns examples to splits; missing splits are drawn at random, stratified.

    Identical and nearly identical inputs stay in one split, unless too few examples
    differ for that.

    Args:
      source: the data set's path, for errors.
      items: [N], each with `split`, None to assign it here, and `group`, the label of
        examples that stay together; if any group is None, there are no groups.
      what: the word for an example, such as "image".
      targets: class indices, for stratification; only with `classes`.
      classes: class names.
      validation, seed: as in `load`.
      inputs: [N, ...], searched for copies; None: copies are not searched for.

    Returns:
      (indices by split, notes).

    Raises:
      DataError: only one class, too few examples of a class, or groups that cannot be
        split.
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

    notes = []
    try:
        chosen = deal(joined)
    except DataError:
        if joined == apart:
            raise
        chosen = deal(apart)
        notes.append(_COPIES_APART.format(what=what))
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
    """Raises DataError for an empty split, or a class without training examples."""
    for name, indices in rows.items():
        if not len(indices):
            raise DataError(
                f"{source}: its {len(set(groups or ()))} groups cannot be split, "
                f"{name} is empty; give more and smaller groups, or a split column"
            )
    left = np.bincount(strata[rows["train"]], minlength=len(classes))
    lacking = np.flatnonzero(left == 0)
    if len(lacking):
        raise DataError(
            f"{source}: no {what} of class {classes[lacking[0]]!r} is left to train "
            "on, because its groups are in other splits; give more groups of it, or a "
            "split column"
        )


def by_split(
    values: Sequence | None, rows: Mapping[str, np.ndarray]
) -> dict[str, tuple] | None:
    """Values of each example, such as its name, by split; None if `values` is None."""
    if values is None:
        return None
    return {name: tuple(values[k] for k in indices) for name, indices in rows.items()}


def subset(dataset: Dataset, count: int, seed: int) -> Dataset:
    """The data set with at most `count` training examples, in proportion by class.

    Shares are rounded by largest remainder; each class keeps at least one example.

    Raises:
      DataError: `count` is less than the number of classes.
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
    """Divides `count` in proportion to `sizes`; each share is from 1 to its size."""
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
    """Indices of the three splits for every fold; "test" of fold k is fold k.

    Indices refer to the examples of "train" followed by those of "validation". Classes
    are stratified, and no group is in two splits: this uses scikit-learn's
    StratifiedKFold, GroupKFold, StratifiedGroupKFold or KFold, shuffled by `seed`.
    Copies stay together like a group, unless too few examples differ for that.

    Args:
      dataset: its "test" is not used.
      folds: number of folds, at least 2.
      validation: fraction of the other folds for "validation", in (0, 1).
      seed: seed of both draws.

    Returns:
      For each fold sorted int64 indices for "train", "validation" and "test".

    Raises:
      DataError: too few examples of a class, or too few groups, for so many folds.
    """
    return _split_folds(dataset, folds, validation=validation, seed=seed)[0]


def _split_folds(
    dataset: Dataset, folds: int, **options
) -> tuple[list[dict[str, np.ndarray]], tuple[str, ...]]:
    """The folds of `split_folds`, and notes."""
    targets = np.concatenate([dataset.splits[name].targets for name in _POOL])
    copies = copy_groups([dataset.splits[name].inputs for name in _POOL])
    own = _pooled(dataset.groups)
    joined, apart = (joined_groups(own, c, len(targets)) for c in (copies, None))
    try:
        return _assign_folds(dataset, targets, joined, folds, **options), ()
    except DataError:
        if joined == apart:
            raise
    chosen = _assign_folds(dataset, targets, apart, folds, **options)
    return chosen, (_COPIES_APART.format(what="example"),)


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
    """The data set with fold `fold` (from 0) as "test", and the other folds as "train"
    and "validation".

    The data set's own "test" is not used. Arguments and errors as in `split_folds`; the
    examples are copied into memory.
    """
    options = dict(validation=validation, seed=seed)
    each, notes = _split_folds(dataset, folds, **options)
    chosen = each[fold]
    note = (
        f"fold {fold} of 0 to {folds - 1} is the test split; the test split of "
        f"{dataset.name}, {len(dataset.splits['test'].inputs):,} examples, is not used"
    )
    return dataset._replace(
        splits={name: _taken(dataset, rows) for name, rows in chosen.items()},
        notes=(*dataset.notes, *notes, note),
        names=by_split(_pooled(dataset.names), chosen),
        groups=by_split(_pooled(dataset.groups), chosen),
    )


def _pooled(by_split: Any) -> tuple | None:
    if by_split is None:
        return None
    return tuple(value for name in _POOL for value in by_split[name])


def _taken(dataset: Dataset, rows: np.ndarray) -> Split:
    """Examples of "train" followed by "validation", without concatenating the two."""
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
    from sklearn import model_selection as kinds  # takes 1 s, only needed for folds

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
    """Raises DataError for more folds than examples, examples of a class, or groups."""
    counts = {"training and validation together": len(targets)}
    if classes:
        each = np.bincount(targets, minlength=len(classes))
        counts |= {f"class {c!r}": n for c, n in zip(classes, each, strict=True) if n}
    what, least = min(counts.items(), key=lambda item: item[1])
    if least < folds:
        raise DataError(
            f"{name}: folds={folds}, but {what} has {least} examples besides the test "
            "split; every fold needs one: give fewer folds, or more examples"
        )
    if groups is not None and len(set(groups)) < folds:
        raise DataError(
            f"{name}: folds={folds}, but there are {len(set(groups))} groups "
            "besides the test split; give fewer folds, or smaller groups"
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
            "because its groups are in other splits; give more groups of it"
        )
