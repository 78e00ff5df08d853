"""Targets and splits as a table gives them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lstm_jax.data.dataset import SPLIT_NAMES, DataError


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
