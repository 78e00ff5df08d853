"""What a data set is, and how examples are dealt out to its splits."""

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
VOID = 255  # of a mask: a pixel that counts for nothing
SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation"}


class DataError(ValueError):
    """A person's mistake, or a file that is missing or broken; complete as it reads."""


class Split(NamedTuple):
    """Examples of one split.

    Attributes:
      inputs: uint8 [N, H, W, C], 0..255; of clips uint8 [N, T, H, W, C]; of features
        float32 [N, T, F].
      targets: int32 [N], a class index, -1 where a clip of "test" has no label, or no
        clip has; or float32 [N, K], values to regress; or float32 [N, K] per clip or
        [N, T, K] per step, labels of 0 and 1 with NaN where one is not known. Masks
        are uint8 [N, H, W], of clips [N, T, H, W], a class index or 255, which counts
        for nothing. Boxes are float32 [N, M, 7], of clips [N, T, M, 7]: corners x0,
        y0, x1, y1 in pixels, x1 and y1 exclusive; the class, -1 where a row is empty;
        1 for a crowd, which is not to be found one by one; the share that is hidden.
        Texts are int32 [N, L], 1 + the index of each character, zeros follow.
      lengths: int32 [N], valid steps of each clip in 1..T, zeros follow; or columns of
        each line of text in 1..W, white follows; None: all.
    """

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray | None = None


class Dataset(NamedTuple):
    """A whole data set in memory.

    Attributes:
      name: what it was loaded as.
      splits: exactly "train", "validation" and "test".
      classes: class names in the order of their indices, or names of the K labels;
        () means regression.
      notes: lines to show to the person, such as files that were skipped.
      names: by split, the path of each example as the person wrote it, or from the
        folder on; the windows of one clip follow each other under one name. None: a
        set by name.
      groups: by split, the group of each example, such as a patient; the windows of
        one clip are in one. None: all apart.
      answers: what the targets are, "labels" (or numbers), "masks", "boxes" or
        "text"; of a text, `classes` are its characters.
      more: further splits to test on, by name, such as "unseen_fonts"; None: none.
    """

    name: str
    splits: dict[str, Split]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] | None = None
    groups: Mapping[str, tuple[str, ...]] | None = None
    answers: str = "labels"
    more: Mapping[str, Split] | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example: (H, W, C), or (T, H, W, C), or (T, F) of features."""
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


def limited(dataset: Dataset, count: int, seed: int) -> Dataset:
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
        if values is None:
            return None
        return {**values, "train": tuple(values["train"][row] for row in rows)}

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
      targets: int [N] classes (stratified) or float [N, ...] (drawn plainly).
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


def targets_of(
    source: Path, labels: Sequence[str], *, numbers: bool = True
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets and class names: regression where labels are numbers, not all whole.

    Args:
      source: what an error names.
      labels: [N], as they are written.
      numbers: False where labels are names even if they read as numbers.

    Returns:
      (int32 [N], class names), or (float32 [N, 1], ()).

    Raises:
      DataError: a label among numbers that is not finite.
    """
    values = [_number(label) for label in labels] if numbers else [None]
    if None not in values:
        if not all(map(math.isfinite, values)):
            wrong = labels[[math.isfinite(n) for n in values].index(False)]
            raise DataError(f"{source}: the label {wrong!r} is not a finite number")
        if not all(n.is_integer() for n in values):
            return np.asarray(values, np.float32)[:, None], ()
    # Whole numbers in their own order, so that class "10" follows "9".
    whole = all(label.isdecimal() for label in labels)
    classes = sorted(set(labels), key=lambda n: (int(n), n) if whole else n)
    index = {name: i for i, name in enumerate(classes)}
    return np.asarray([index[label] for label in labels], np.int32), tuple(classes)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def split_of(source: Path, row: dict[str, str], number: int) -> str | None:
    """The split that entry `number` of a table gives; None if the table gives none."""
    if "split" not in row:
        return None
    if row["split"].lower() not in SPLIT_NAMES:
        raise DataError(
            f"{source}: entry {number} has the split {row['split']!r}; wanted is "
            "train, validation (or val) or test"
        )
    return SPLIT_NAMES[row["split"].lower()]


def choose(
    source: Path,
    targets: np.ndarray,
    classes: tuple[str, ...],
    given: Sequence[str | None],
    groups: Sequence[Hashable],
    *,
    validation: float,
    seed: int,
    what: tuple[str, str],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Deal examples out as a person gave them; refuses what cannot be learned from.

    Args:
      source: what an error names.
      targets: as in `Split`.
      classes: class names of int targets, else ().
      given: [N] split of each example; None: to be dealt out.
      groups: [N] labels of examples that stay together; None among them: all apart.
      validation: share held out for validation where no split is given.
      seed: of the draw.
      what: what an example is called, ("picture", "pictures").

    Returns:
      (indices by split, notes).

    Raises:
      DataError: one class only, too few of a class, groups that cannot be dealt out.
    """
    one, many = what
    if len(classes) == 1:
        raise DataError(
            f"{source}: one class only, {classes[0]!r}; classes to tell apart are two "
            "or more"
        )
    given = [split or "train" for split in given]
    assigned = {
        name: np.flatnonzero([g == name for g in given])
        for name in SPLITS
        if name == "train" or name in given
    }
    needed = 1 + len(set(SPLITS) - set(assigned))
    strata = targets if classes else np.zeros(len(targets), np.int32)
    counts = np.bincount(strata[assigned["train"]], minlength=max(len(classes), 1))
    for name, count in zip(classes or ("",), counts, strict=True):
        if count < needed:
            table = "the table" if source.suffix.lower() == ".csv" else "it"
            which = f"class {name!r}" if classes else table
            raise DataError(
                f"{source}: {which} has too few {many} for training, {count} readable;"
                f" {needed} or more are needed"
                + (" (one for each split)" if needed > 1 else "")
            )
    apart = None in groups or len(set(groups)) == len(groups)
    chosen = deal(
        targets,
        assigned,
        validation=validation,
        seed=seed,
        groups=None if apart else groups,
    )
    for name, rows in chosen.items():
        if not len(rows):
            raise DataError(
                f"{source}: its {len(set(groups))} groups cannot be dealt out, {name} "
                "stays empty; give more and smaller groups, or a split column"
            )
    left = np.bincount(strata[chosen["train"]], minlength=len(classes))
    lacking = np.flatnonzero(left == 0)
    if len(lacking):
        raise DataError(
            f"{source}: no {one} of class {classes[lacking[0]]!r} is left to train "
            "on, since its groups went to other splits; give more groups of it, or a "
            "split column"
        )
    notes = []
    if "test" not in assigned:
        shares = ", ".join(f"{n} {len(rows)}" for n, rows in chosen.items())
        notes.append(f"no test split was given: dealt out by seed {seed} ({shares})")
    return chosen, notes
