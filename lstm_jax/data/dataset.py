"""What a data set is, and what its readers share."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation"}
LARGEST = 8 << 30  # bytes of decoded images
SCENE_SIZE = 64  # pixels a side, where images with masks or boxes differ in size


class DataError(ValueError):
    """A person's mistake, or a file that is missing or broken; complete as it reads."""


def check_size(source: object, size: int, what: str, most: int, remedy: str) -> None:
    """Refuses more bytes of `what` than are held decoded."""
    if size > most:
        raise DataError(
            f"{source}: {size / 2**30:.0f} GiB of {what}, over the {most >> 30} GiB "
            f"that are held decoded; {remedy}"
        )


def sides(
    known: tuple | None, size: int | None, fallback: int, told: str, notes: list[str]
) -> tuple[int, int]:
    """(H, W) that all are resized to.

    Args:
      known: the one (H, W) that all have; None, or of None, where they differ.
      size: side of a square that a person wants.
      fallback: side of a square where nothing else is given.
      told: what has several sizes, for the notes.
      notes: gets a line where the fallback is taken.
    """
    if size:
        return size, size
    if known and None not in known:
        return known
    notes.append(
        f"{told}: all resized to {fallback}x{fallback} (--data.size=N for another)"
    )
    return fallback, fallback


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
      target_type: what the targets are, "labels" (or numbers), "masks", "boxes" or
        "text"; of a text, `classes` are its characters.
      more: further splits to test on, by name, such as "unseen_fonts"; None: none.
    """

    name: str
    splits: dict[str, Split]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] | None = None
    groups: Mapping[str, tuple[str, ...]] | None = None
    target_type: str = "labels"
    more: Mapping[str, Split] | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example: (H, W, C), or (T, H, W, C), or (T, F) of features."""
        return self.splits["train"].inputs.shape[1:]
