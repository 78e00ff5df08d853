"""Copies of examples in a data set: within a split, across splits, and their labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.dataset import SPLITS, Dataset
from lstm_jax.data.similarity import COMPARED, HASHED, Copies, connected, find_copies

LEARNED = "train or validation"  # splits for training and for model selection
# Pairs of a split and the splits that must not contain its examples.
ACROSS = (("test", LEARNED), ("validation", "train"))
LISTED = 20  # pairs that are listed by name
_NAMES = {"train": "training", LEARNED: "training or validation"}  # in messages


class Pair(NamedTuple):
    """Two examples, each as (split, name, label), that are copies."""

    one: tuple[str, str, str]
    other: tuple[str, str, str]
    identical: bool


class Duplicates(NamedTuple):
    """Counts and lists of the copies in a data set.

    Attributes:
      noun: the word for an example: "image", "clip" or "line".
      sizes: number of examples by split.
      identical: number of examples of split a that also occur in split b, by (a, b);
        b may be "train or validation" for the test split. For (a, a), the number of
        examples that repeat an earlier one.
      near: the same for nearly identical examples that are not identical.
      contradictions: number of pairs of copies with different labels.
      contradicting: the first 20 of these pairs.
      across: number of pairs of copies in different splits.
      leaks: the first 20 of these pairs.
      skipped: a sentence if copies, or nearly identical ones, were not searched for;
        otherwise "".
    """

    noun: str
    sizes: dict[str, int]
    identical: dict[tuple[str, str], int]
    near: dict[tuple[str, str], int]
    contradictions: int
    contradicting: tuple[Pair, ...]
    across: int
    leaks: tuple[Pair, ...]
    skipped: str

    def lines(self) -> list[str]:
        """Messages on the copies, one line each; [] if no copies were found."""
        found = []
        for one, other in ACROSS:
            same, near = self.identical[one, other], self.near[one, other]
            what = f"{self.sizes[one]:,} {_NAMES.get(one, one)} {self.noun}s are"
            if one == "test" and not self._leaks("test", "validation"):
                other = "train"
            where = f"to {_NAMES.get(other, other)} {self.noun}s"
            more = f"; {near:,} more are nearly identical" if near else ""
            if same:
                found.append(f"{same:,} of {what} identical {where}{more}")
            elif near:
                found.append(f"{near:,} of {what} nearly identical {where}")
        for name, size in self.sizes.items():
            same, near = self.identical[name, name], self.near[name, name]
            if same or near:
                kinds = [f"{same:,} copies"] * bool(same)
                kinds += [f"{near:,} near copies"] * bool(near)
                found.append(
                    f"{' and '.join(kinds)} of other {_NAMES.get(name, name)} "
                    f"{self.noun}s among {size:,}"
                )
        if self.contradictions:
            one, other, _ = self.contradicting[0]
            many = self.contradictions > 1
            pairs, have = ("pairs", "have") if many else ("pair", "has")
            found.append(
                f"{self.contradictions:,} {pairs} of identical or nearly identical "
                f"{self.noun}s {have} different labels{', such as' if many else ':'} "
                f"{_told(one)} and {_told(other)}"
            )
        return found + [self.skipped] * bool(self.skipped)

    def _leaks(self, one: str, other: str) -> int:
        return self.identical[one, other] + self.near[one, other]

    def leaked(self, one: str) -> float:
        """Share of leaked examples of "test" or "validation", in 0..1.

        These are copies of training examples or, for "test", of training or
        validation examples.
        """
        (pair,) = (pair for pair in ACROSS if pair[0] == one)
        return self._leaks(*pair) / max(self.sizes[one], 1)

    def counts(self) -> dict[str, Any]:
        """The counts as JSON values: `{"identical": {"test in train": 45, …}, …}`."""

        def plain(table):
            named = {
                f"{one} in {other}" if one != other else f"within {one}": count
                for (one, other), count in table.items()
            }
            return {name: count for name, count in named.items() if count}

        return {
            "identical": plain(self.identical),
            "nearly_identical": plain(self.near),
            "contradicting_pairs": self.contradictions,
            "skipped": self.skipped or None,
        }


def find_duplicates(dataset: Dataset) -> Duplicates:
    """Counts and lists copies in a data set, as `find_copies` finds them."""
    splits = [dataset.splits[name] for name in SPLITS]
    sizes = {name: len(dataset.splits[name].inputs) for name in SPLITS}
    text = dataset.target_type == "text"
    noun = "line" if text else ("image" if splits[0].inputs.ndim == 4 else "clip")
    copies = find_copies([split.inputs for split in splits])
    size = sum(split.inputs.nbytes for split in splits) / 2**30
    skipped, of_images = "", splits[0].inputs.dtype == np.uint8
    if copies is None:
        count, none = sum(sizes.values()), np.zeros((0, 2), np.int64)
        copies = Copies(np.arange(count), none, False)
        skipped = (
            f"duplicates were not searched for: {size:.1f} GiB of {noun}s, over the "
            f"limit of {HASHED >> 30} GiB"
        )
    elif of_images and not copies.compared:
        skipped = (
            f"only identical {noun}s were searched for, not nearly identical ones: "
            f"{size:.1f} GiB, over the limit of {COMPARED / 2**30:.1f} GiB"
        )
    ends = np.cumsum([0, *sizes.values()])
    kinds = {name: copies.first[ends[k] : ends[k + 1]] for k, name in enumerate(SPLITS)}
    kinds[LEARNED] = copies.first[: ends[2]]
    identical, near = {}, {}
    for pair in (*ACROSS, ("test", "train"), ("test", "validation")):
        identical[pair], near[pair] = _across(*map(kinds.get, pair), copies.near)
    for name in SPLITS:
        identical[name, name], near[name, name] = _within(kinds[name], copies.near)
    split_of = np.repeat(np.arange(len(SPLITS)), [*sizes.values()])

    def about(number: int) -> tuple[str, str, str]:
        name = SPLITS[split_of[number]]
        row = int(number - ends[split_of[number]])
        known = dataset.names[name][row] if dataset.names else f"{noun} {row}"
        return name, known, _label(dataset, dataset.splits[name].targets[row])

    later = np.flatnonzero(copies.first != np.arange(len(copies.first)))
    same = np.stack([copies.first[later], later], 1)
    named = text or (splits[0].targets.ndim == 1 and bool(dataset.classes))

    def target(number: int) -> np.ndarray:
        split = dataset.splits[SPLITS[split_of[number]]]
        return split.targets[number - ends[split_of[number]]]

    # Boxes and masks of nearly identical images may differ by a pixel, so only class
    # and text labels of these are compared.
    pairs = [(pair, True) for pair in same.tolist()]
    pairs += [(pair, False) for pair in copies.near.tolist()]
    contradicting = [
        (pair, identical)
        for pair, identical in pairs
        if (identical or named) and _contradict(*map(target, pair), text)
    ]
    leaks = [each for each in pairs if len(set(split_of[each[0]])) > 1]

    def listed(found: list) -> tuple[Pair, ...]:
        return tuple(Pair(*map(about, pair), how) for pair, how in found[:LISTED])

    return Duplicates(
        noun,
        sizes,
        identical,
        near,
        len(contradicting),
        listed(contradicting),
        len(leaks),
        listed(leaks),
        skipped,
    )


def _across(one: np.ndarray, other: np.ndarray, near: np.ndarray) -> tuple[int, int]:
    """Counts examples of one split with identical, or only near, copies in another.

    Args:
      one, other: `Copies.first` of the examples of the two splits.
      near: `Copies.near`.
    """
    same = np.isin(one, other)
    partners = [near[np.isin(near[:, 1 - k], other), k] for k in (0, 1)]
    close = np.isin(one, np.concatenate(partners)) & ~same
    return int(same.sum()), int(close.sum())


def _within(one: np.ndarray, near: np.ndarray) -> tuple[int, int]:
    """Numbers of identical and of nearly identical copies within a split.

    The first example of each group of copies is not counted.
    """
    kinds = np.unique(one)
    inside = near[np.isin(near, kinds).all(1)]
    groups = connected(len(kinds), np.searchsorted(kinds, inside))
    return len(one) - len(kinds), len(kinds) - len(np.unique(groups))


def _contradict(one: np.ndarray, other: np.ndarray, text: bool) -> bool:
    """Whether two targets differ; unknown values (-1, NaN) are ignored."""
    one, other = np.atleast_1d(one), np.atleast_1d(other)
    if text:
        one, other = np.trim_zeros(one, "b"), np.trim_zeros(other, "b")
    if one.shape != other.shape:
        return text
    if one.dtype.kind == "i":
        known = (one >= 0) & (other >= 0)
    else:
        known = ~(np.isnan(one) | np.isnan(other))
    return bool((one != other)[known].any())


def _label(dataset: Dataset, target: np.ndarray) -> str:
    """The label of a target as text; "" if it is unknown or has no text form."""
    if dataset.target_type == "text":
        return "".join(dataset.classes[k - 1] for k in target if k)
    if target.ndim == 0 and dataset.classes:
        return dataset.classes[target] if target >= 0 else ""
    if target.shape == (1,):
        return f"{target[0]:g}"
    return ""


def _told(example: Sequence[str]) -> str:
    split, name, label = example
    return f"{name} ({label!r}, {split})" if label else f"{name} ({split})"
