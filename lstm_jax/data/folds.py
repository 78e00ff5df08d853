"""The k folds of cross-validation, dealt by scikit-learn's splitters."""

import inspect
from typing import Any

import numpy as np

from lstm_jax.data.dataset import DataError, Dataset, Split, deal

_POOL = ("train", "validation")  # what is dealt into folds, in this order


def deal_folds(
    dataset: Dataset, folds: int, *, validation: float, seed: int
) -> list[dict[str, np.ndarray]]:
    """Indices of the three splits of every fold; "test" of fold k is fold k.

    They count the pool: the examples of "train", then those of "validation". Classes
    are stratified, and no group is in two splits: StratifiedKFold, GroupKFold,
    StratifiedGroupKFold or KFold, shuffled by `seed`.

    Args:
      dataset: its "test" is not looked at.
      folds: at least 2.
      validation: share carved out of the other folds, in (0, 1), for "validation".
      seed: of both draws.

    Returns:
      For each fold sorted int64 indices for "train", "validation" and "test".

    Raises:
      DataError: too few examples of a class, or too few groups, for so many folds.
    """
    targets = np.concatenate([dataset.splits[name].targets for name in _POOL])
    groups = _pooled(dataset.groups)
    if groups is not None and len(set(groups)) == len(groups):
        groups = None
    classes = dataset.classes if targets.ndim == 1 else ()
    _check(dataset.name, targets, classes, groups, folds)
    splitter = _splitter(bool(classes), groups is not None, folds, seed)
    strata = targets if classes else np.zeros(len(targets), np.int32)
    labels = None if groups is None else np.asarray(groups)
    dealt = []
    for rest, held in splitter.split(strata, strata, labels):
        assigned = {"train": rest, "test": held}
        dealt.append(
            deal(targets, assigned, validation=validation, seed=seed, groups=groups)
        )
    for number, rows in enumerate(dealt):
        _check_fold(f"{dataset.name}: fold {number} of {folds}", rows, targets, classes)
    return dealt


def take_fold(
    dataset: Dataset, folds: int, fold: int, *, validation: float, seed: int
) -> Dataset:
    """The data set with fold `fold`, from 0, as "test", the others as the rest.

    The data set's own "test" is left out. Arguments and errors as in `deal_folds`; the
    examples are copied into memory.
    """
    dealt = deal_folds(dataset, folds, validation=validation, seed=seed)[fold]
    names, groups = _pooled(dataset.names), _pooled(dataset.groups)

    def listed(values: tuple | None) -> dict[str, tuple] | None:
        if values is None:
            return None
        return {name: tuple(values[i] for i in rows) for name, rows in dealt.items()}

    note = (
        f"fold {fold} of 0 to {folds - 1} is tested on; the test split of "
        f"{dataset.name}, {len(dataset.splits['test'].inputs):,} examples, stays "
        "untouched"
    )
    return dataset._replace(
        splits={name: _taken(dataset, rows) for name, rows in dealt.items()},
        notes=(*dataset.notes, note),
        names=listed(names),
        groups=listed(groups),
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
    groups: tuple | None,
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
