"""Checks the number of examples per class, before and after decoding."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data.dataset import SPLITS, DataError

_TRAIN = (None, "train")  # missing splits are drawn from these


def check_counts(
    source: Path,
    items: Sequence[Any],
    what: str,
    targets: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Checks that there are enough training examples, for each class if there are any.

    Args:
      source: the data set's path, for errors.
      items: [N], each with its `split`; None: assigned at random.
      what: the word for an example, such as "image".
      targets: class indices, int [N], -1 if unknown; only with `classes`.
      classes: class names.

    Raises:
      DataError: only one class, or too few examples.
    """
    if len(classes) == 1:
        raise DataError(
            f"{source}: one class only, {classes[0]!r}; expected two or more"
        )
    given = {item.split or "train" for item in items}
    needed = 1 + len(set(SPLITS) - given - {"train"})
    trained = np.asarray([item.split in _TRAIN for item in items], bool)
    strata = np.asarray(targets) if len(classes) else np.zeros(len(items), int)
    counts = np.bincount(strata[trained & (strata >= 0)], minlength=len(classes) or 1)
    for index, (name, count) in enumerate(zip(classes or ("",), counts, strict=True)):
        if count >= needed or (classes and not (strata == index).any()):
            continue
        if classes and not count:
            where = Counter(items[i].split for i in np.flatnonzero(strata == index))
            found = " and ".join(f"{split} ({n})" for split, n in where.items())
            raise DataError(
                f"{source}: class {name!r} has too few {what}s for training, 0 "
                f"readable: it occurs only in {found}; add {what}s of it to train, or "
                "leave it out with --data.min-per-class=1"
            )
        table = "the table" if source.suffix.lower() in (".csv", ".tsv") else "it"
        which = f"class {name!r}" if classes else table
        splits = " (one for each split)" if needed > 1 else ""
        remedy = f"; or --data.min-per-class={needed} leaves it out" if classes else ""
        raise DataError(
            f"{source}: {which} has too few {what}s for training, {count} readable; "
            f"{needed} or more are needed{splits}{remedy}"
        )


def large_classes(
    source: Path, items: Sequence[Any], what: str, minimum: int | None
) -> tuple[list[int], list[str]]:
    """Leaves out classes with few training examples.

    Args:
      source: the data set's path, for errors.
      items: [N], each with its `label` ("": unknown) and `split`.
      what: the word for an example, such as "image".
      minimum: the least number of training examples; None: all classes are kept.

    Returns:
      (indices of the items that are kept, notes).

    Raises:
      DataError: no class is large enough.
    """
    every = list(range(len(items)))
    if minimum is None:
        return every, []
    counts = Counter({item.label: 0 for item in items if item.label})
    counts.update(item.label for item in items if item.split in _TRAIN and item.label)
    small = sorted(label for label, count in counts.items() if count < minimum)
    if not small:
        return every, []
    shown = ", ".join(f"{label!r} ({counts[label]})" for label in small[:8])
    more = f" and {len(small) - 8} more" if small[8:] else ""
    kinds = "1 class" if len(small) == 1 else f"{len(small)} classes"
    note = f"left out {kinds} with fewer than {minimum} training {what}s: {shown}{more}"
    kept = [k for k in every if items[k].label not in small]
    if not any(items[k].label for k in kept):
        raise DataError(
            f"{source}: no class has {minimum} training {what}s; give a smaller "
            "--data.min-per-class"
        )
    return kept, [note]
