"""Your own images with segmentation masks: a folder with images/ and masks/."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lstm_jax.data.cache import cached, new_array
from lstm_jax.data.dataset import (
    LARGEST,
    SCENE_SIZE,
    DataError,
    Dataset,
    Split,
)
from lstm_jax.data.files.folders import decode_each
from lstm_jax.data.files.images import Head, decode_mask, probe
from lstm_jax.data.files.mask_colors import NAMES, Classes, read_classes
from lstm_jax.data.files.mask_pairs import Pair, find_pairs
from lstm_jax.data.files.orientation import (
    Geometry,
    is_stored_size,
    lie_on_stored,
    notes_on_turns,
)
from lstm_jax.data.files.placement import Placement, place_image
from lstm_jax.data.files.read_options import ReadOptions
from lstm_jax.data.files.tables import fingerprint, with_groups
from lstm_jax.data.splits import assign_splits, by_split
from lstm_jax.targets import VOID

_FORMAT = 3  # version of the cached arrays; increase it when decoding changes


def load_masks(path: Path, root: Path, options: ReadOptions) -> Dataset:
    """Load images/ and masks/, or those in train/, val/ and test/.

    Also JPEGImages/ and SegmentationClass/, with the lists of Pascal VOC if they are
    there; images/train/ and masks/train/; and NAME_mask.png beside NAME.jpg.

    An image and its mask have the same name, apart from the suffix, and the same size.
    A mask is a grey or palette image whose pixels are class indices, or has three equal
    channels of them; 255 is ignored. Masks in colours need lines NAME R G B in
    classes.txt, or a colour table of CamVid or CVAT.
    The lines of classes.txt name the classes; without it they are "background", "1",
    "2" and so on up to the largest index that occurs. If masks hold only 0 and 255,
    and classes.txt names two classes or is missing, 255 is class 1, "object".

    Images and masks that cannot be read or have no counterpart, and masks whose size
    differs from their image, are skipped and reported in `notes`. A mask of an image
    with an EXIF orientation is turned with it, unless its size is that of the upright
    image or it has an orientation of its own.

    Args:
      path: the folder.
      root: the cache folder.
      options: without a size, the common one, or 64 if sizes differ; masks are resized
        by nearest neighbour, and 255 beside a letterboxed one.

    Returns:
      The Dataset; targets are uint8 [N, H, W], class indices or 255.

    Raises:
      DataError: no images, none with a mask, too few examples, only one class, a
        class index not in classes.txt, or mask values that are not class indices.
    """
    size, group = options.size, options.group
    pairs, notes = find_pairs(path)
    pairs = with_groups(path, pairs, group)
    known = read_classes(path)
    files = [[str(f), *fingerprint(f)] for p in pairs for f in (p.image, p.mask)]
    arrays, facts = cached(
        root,
        f"{path.name}-masks-{size}" if size else f"{path.name}-masks",
        [_FORMAT, size, options.fit, known, files],
        lambda folder: _decode_all(path, pairs, known, options, folder),
    )
    kept = np.asarray(facts["kept"])
    pairs = [pairs[i] for i in kept]
    images, masks = arrays["images"][: len(pairs)], arrays["masks"]
    draw = dict(validation=options.validation, seed=options.seed, inputs=images)
    chosen, more = assign_splits(path, pairs, "image", **draw)
    splits = {name: Split(images[i], masks[kept[i]]) for name, i in chosen.items()}
    named = by_split([pair.name for pair in pairs], chosen)
    groups = by_split([pair.group for pair in pairs] if group else None, chosen)
    notes = (*notes, *facts["notes"], *more)
    classes = tuple(facts["classes"])
    return Dataset(
        path.name,
        splits,
        classes,
        notes,
        named,
        groups,
        target_type="masks",
        depth=facts["depth"],
        fit=facts["fit"],
    )


def _decode_all(
    source: Path,
    pairs: list[Pair],
    known: Classes,
    options: ReadOptions,
    folder: Path,
) -> dict:
    """Decodes images.npy and masks.npy; masks are indexed like `pairs`."""
    names = known.names

    def beside(
        shape: tuple[int, int, int], heads: list[Head | None], fit: str
    ) -> Callable:
        masks = new_array(folder / "masks.npy", np.uint8, (len(pairs), *shape[:2]))
        on_stored, more = _on_stored(pairs, heads)
        turns.extend(more)

        def read(number: int) -> list[int]:
            geometry, stored = heads[number].geometry, on_stored.get(number)
            mask = _read_mask(pairs[number].mask, geometry, stored, known)
            values = np.unique(mask).tolist()
            placed[number] = placement = place_image(mask.shape, shape[:2], fit)
            nearest = Image.Resampling.NEAREST
            masks[number] = placement.image(Image.fromarray(mask), nearest, VOID)
            return values

        return read

    turns: list[str] = []
    placed: dict[int, Placement] = {}
    facts = decode_each(
        source,
        [pair.image for pair in pairs],
        options,
        folder,
        beside,
        fallback=SCENE_SIZE,
        largest=LARGEST,
    )
    by_mask = facts.pop("found")
    values = sorted({value for found in by_mask for value in found})
    notes, classes = facts["notes"], names
    notes += turns
    black_and_white = values == [0, VOID] and not known.colors
    if black_and_white and (names is None or len(names) == 2):
        classes = names or ["background", "object"]
        notes.append(
            f"masks hold only 0 and 255: 255 is the class {classes[1]!r} here, not "
            "ignored; with the classes 0 and 1, 255 is ignored"
        )
        masks = np.lib.format.open_memmap(folder / "masks.npy", "r+")
        for number in facts["kept"]:
            x0, y0, x1, y1 = placed[number].target  # the border of a letterbox stays
            mask = masks[number, y0:y1, x0:x1]
            mask[mask == VOID] = 1
        masks.flush()
    elif names is None:
        classes = _default_names(source, [v for v in values if v != VOID])
    else:
        for number, found in zip(facts["kept"], by_mask, strict=True):
            if beyond := [v for v in found if len(names) <= v < VOID]:
                raise DataError(
                    f"{pairs[number].mask}: a pixel is {beyond[0]}, but {NAMES} names "
                    f"{len(names)} classes, 0 to {len(names) - 1}; 255 is ignored"
                )
    return facts | {"classes": classes}


def _on_stored(
    pairs: list[Pair], heads: list[Head | None]
) -> tuple[dict[int, bool], list[str]]:
    """Whether the masks of images with an EXIF orientation lie on the stored pixels.

    Returns:
      ({index of the pair: whether}, notes). A mask that has an orientation of its own
      is upright once that is applied.
    """
    facts: dict[int, bool | None] = {}
    for number, head in enumerate(heads):
        if head and head.geometry.orientation != 1:
            mask = probe(pairs[number].mask)
            if mask and mask.geometry.orientation == 1:
                facts[number] = is_stored_size(head.geometry, mask.size)
    assumed = lie_on_stored([*facts.values()])
    found = {k: assumed if fact is None else fact for k, fact in facts.items()}
    turned = [pairs[k].name for k, stored in found.items() if stored]
    unsure = [pairs[k].name for k, fact in facts.items() if fact is None]
    return found, notes_on_turns(turned, unsure, "masks")


def _read_mask(
    path: Path, geometry: Geometry, on_stored: bool | None, known: Classes
) -> np.ndarray:
    """An upright mask, uint8 [h, w]; checks that it has the size of its image.

    Args:
      path: the file.
      geometry: of the image.
      on_stored: whether the mask lies on the stored pixels of the image.
      known: the classes of classes.txt.
    """
    size = geometry.shown
    try:
        with open(path, "rb") as file:
            mask = decode_mask(file, None, str(path), known)
        if on_stored:
            mask = np.ascontiguousarray(geometry.pixels(mask))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if mask.shape != size:
        h, w = mask.shape
        raise DataError(f"{path}: is {h}x{w}, but its image is {size[0]}x{size[1]}")
    return mask


def _default_names(source: Path, values: list[int]) -> list[str]:
    """Names of the classes 0 to max(values); refuses mostly unused indices."""
    if len(values) < 2:
        only = values[0] if values else VOID
        raise DataError(
            f"{source}: one class only, every pixel of its masks is {only}; "
            "segmentation needs two classes or more"
        )
    classes = values[-1] + 1
    if 2 * len(values) < classes:
        few = ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")
        raise DataError(
            f"{source}: its masks hold the values {few}, most classes below "
            f"{values[-1]} do not occur; number the pixels 0, 1, 2 and so on, or name "
            f"all classes in {source.name}/{NAMES}, a line each"
        )
    return ["background", *map(str, range(1, classes))]
