"""The types `Dataset` and `Split`, and checks that all loaders share."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
LARGEST = 8 << 30  # maximum size of the decoded images, bytes
SCENE_SIZE = 64  # default side, pixels, for images with masks or boxes of mixed sizes


class DataError(ValueError):
    """A user error, or a missing or broken file; the message is complete."""


def check_size(source: object, size: int, what: str, limit: int, remedy: str) -> None:
    """Raises DataError if `size` bytes of `what` exceed `limit` bytes."""
    if size > limit:
        raise DataError(
            f"{source}: {size / 2**30:.0f} GiB of {what}, over the limit of "
            f"{limit >> 30} GiB for decoded data; {remedy}"
        )


LARGE, REDUCED = 128, 96  # longer sides of images, pixels; see `common_size`


def common_size(
    known: tuple | None,
    size: int | None,
    fallback: int,
    what: str,
    notes: list[str],
    *,
    reduce: bool = False,
) -> tuple[int, int]:
    """The (H, W), in pixels, to which all images are resized.

    Args:
      known: (H, W) if all images have the same size; None, or (None, None), if not.
      size: side of the square that the user asked for, pixels; None: not given.
      fallback: side of the square if sizes differ and `size` is None, pixels.
      what: describes what differs in size, for the note.
      notes: a line is appended unless images keep their size, or `size` is given.
      reduce: whether a known size of which a side exceeds `LARGE` is scaled until that
        has `REDUCED` pixels: training on large images takes hours on a CPU.
    """
    if size:
        return size, size
    if known and None not in known:
        if not reduce or max(known) <= LARGE:
            return known
        height, width = (max(1, round(n * REDUCED / max(known))) for n in known)
        notes.append(
            f"images of {known[0]}x{known[1]} resized to {height}x{width}, so that "
            "training is short (--data.size=N for another)"
        )
        return height, width
    notes.append(
        f"{what}: all resized to {fallback}x{fallback} (--data.size=N for another)"
    )
    return fallback, fallback


class Split(NamedTuple):
    """Examples of one split.

    Attributes:
      inputs: images uint8 [N, H, W, C], 0..255; clips uint8 [N, T, H, W, C]; features
        float32 [N, T, F].
      targets: depends on `Dataset.target_type` and the labels.
        Classes: int32 [N], class indices; -1 marks a clip without a label, allowed in
        "test" or if no clip has one.
        Regression: float32 [N, K].
        Multi-label: float32, 0 or 1, [N, K] per clip or [N, T, K] per step; NaN marks
        an unknown label.
        Masks: uint8 [N, H, W], of clips [N, T, H, W], class indices; 255 is ignored.
        Boxes: float32 [N, M, 7], of clips [N, T, M, 7]: corners x0, y0, x1, y1 in
        pixels (x1, y1 exclusive); class index, -1 for an empty row; 1 for a crowd
        region, which need not be detected; the occluded fraction, 0 to 1.
        Text: int32 [N, L], 1 + character index, padded with 0.
      lengths: int32 [N], valid steps of each clip in 1..T (the rest is 0), or valid
        columns of each text line in 1..W (the rest is white, 255); None: all valid.
    """

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray | None = None


class Dataset(NamedTuple):
    """A whole data set in memory.

    Attributes:
      name: the name, folder or file that it was loaded from.
      splits: exactly "train", "validation" and "test".
      classes: class names in index order, or the names of the K labels; () for
        regression.
      notes: lines to show to the user, such as skipped files.
      names: by split, the path of each example, as written in a table or relative to
        the folder; windows of one clip are adjacent and share a name. None: a data
        set loaded by name.
      groups: by split, the group of each example, such as a patient; windows of one
        clip share a group. None: each example is its own group.
      target_type: "labels" (classes, numbers or multi-label), "masks", "boxes" or
        "text"; for "text", `classes` holds the characters.
      depth: bits from which images of more than 8 bits were scaled; None: there are
        none, or it is not known.
      fit: how images were given one shape, as in `read_image`.
      more: additional test splits by name, such as "unseen_fonts"; None: none.
    """

    name: str
    splits: dict[str, Split]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] | None = None
    groups: Mapping[str, tuple[str, ...]] | None = None
    target_type: str = "labels"
    more: Mapping[str, Split] | None = None
    depth: int | None = None
    fit: str = "squash"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example: (H, W, C); clips (T, H, W, C); features (T, F)."""
        return self.splits["train"].inputs.shape[1:]
