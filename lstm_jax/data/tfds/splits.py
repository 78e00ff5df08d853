"""The prepared splits of a tfds set."""

from collections.abc import Iterator
from typing import Any

from lstm_jax.data.dataset import SPLITS, DataError


def numbers_of(builder: Any, label: str, notes: list[str]) -> dict[str, int]:
    """Number of examples in train, validation and test; notes other splits.

    Raises:
      DataError: there is no train split.
    """
    numbers = {s: i.num_examples for s, i in builder.info.splits.items()}
    if not numbers.get("train"):
        raise DataError(f"{label}: has no train split, only {', '.join(numbers)}")
    if other := [s for s in numbers if s not in SPLITS]:
        notes.append(f"not used: the split {', '.join(other)}")
    return {split: numbers[split] for split in SPLITS if numbers.get(split)}


def read_blocks(source: Any, size: int = 256) -> Iterator[tuple[int, Any]]:
    """Yields (index, example); reading in blocks is four times as fast."""
    for start in range(0, len(source), size):
        block = range(start, min(start + size, len(source)))
        yield from zip(block, source.__getitems__(block), strict=True)
