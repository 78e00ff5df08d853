"""Your own images with segmentation masks: a folder with images/ and masks/."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lstm_jax.data.cache import cached, new_array
from lstm_jax.data.dataset import (
    LARGEST,
    SCENE_SIZE,
    SPLIT_NAMES,
    DataError,
    Dataset,
    Split,
)
from lstm_jax.data.files.folders import decode_each
from lstm_jax.data.files.images import Head, decode_mask, find_images, probe
from lstm_jax.data.files.orientation import (
    Geometry,
    is_stored_size,
    lie_on_stored,
    notes_on_turns,
)
from lstm_jax.data.files.tables import fingerprint, first_few
from lstm_jax.data.splits import assign_splits, by_split
from lstm_jax.targets import VOID

_FORMAT = 2  # version of the cached arrays; increase it when decoding changes
_NAMES = "classes.txt"
FOLDERS = SPLIT_NAMES | {"valid": "validation"}


class _Pair(NamedTuple):
    image: Path
    mask: Path
    name: str
    split: str | None = None  # None: assigned at random
    group: None = None


def is_mask_dataset(path: Path) -> bool:
    """Whether a folder, or its folder train/, holds images/ and masks/."""
    return any(_halves(part) for part in (path, *split_folders(path).values()))


def load_masks(
    path: Path, root: Path, *, size: int | None, validation: float, seed: int
) -> Dataset:
    """Load images/ and masks/, or those in train/, val/ and test/.

    An image and its mask have the same name, apart from the suffix, and the same size.
    A mask is a grey or palette image whose pixels are class indices; 255 is ignored.
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
      size: as in `load`; masks are resized by nearest neighbour. None: the common
        size, or 64 if sizes differ.
      validation, seed: as in `load`.

    Returns:
      The Dataset; targets are uint8 [N, H, W], class indices or 255.

    Raises:
      DataError: no images, none with a mask, too few examples, only one class, a
        class index not in classes.txt, or mask values that are not class indices.
    """
    pairs, notes = _pairs(path)
    names = _class_names(path)
    files = [[str(f), *fingerprint(f)] for p in pairs for f in (p.image, p.mask)]
    arrays, facts = cached(
        root,
        f"{path.name}-masks-{size}" if size else f"{path.name}-masks",
        [_FORMAT, size, names, files],
        lambda folder: _decode_all(path, pairs, names, size, folder),
    )
    kept = np.asarray(facts["kept"])
    pairs = [pairs[i] for i in kept]
    chosen, more = assign_splits(path, pairs, "image", validation=validation, seed=seed)
    images, masks = arrays["images"], arrays["masks"]
    splits = {name: Split(images[i], masks[kept[i]]) for name, i in chosen.items()}
    named = by_split([pair.name for pair in pairs], chosen)
    notes = (*notes, *facts["notes"], *more)
    classes = tuple(facts["classes"])
    return Dataset(
        path.name,
        splits,
        classes,
        notes,
        named,
        target_type="masks",
        depth=facts["depth"],
    )


def split_folders(path: Path) -> dict[str, Path]:
    """Folders named train, val (valid, validation) or test, by split; {} without train.

    Raises:
      DataError: two folders are of the same split.
    """
    if not path.is_dir():
        return {}
    found: dict[str, Path] = {}
    for folder in sorted(path.iterdir()):
        split = FOLDERS.get(folder.name.lower())
        if split is None or not folder.is_dir():
            continue
        if split in found:
            raise DataError(
                f"{path}: holds both {found[split].name} and {folder.name}; keep one"
            )
        found[split] = folder
    return found if "train" in found else {}


def _halves(path: Path) -> tuple[Path, Path] | None:
    if not path.is_dir():
        return None
    inside = {f.name.lower(): f for f in path.iterdir() if f.is_dir()}
    halves = inside.get("images"), inside.get("masks")
    return halves if all(halves) else None


def _pairs(path: Path) -> tuple[list[_Pair], list[str]]:
    """Pairs of image and mask, and notes on files without a counterpart."""
    parts: dict[str | None, tuple[Path, Path]] = {}
    if halves := _halves(path):
        parts[None] = halves
    else:
        for split, folder in split_folders(path).items():
            halves = _halves(folder)
            if halves is None:
                raise DataError(
                    f"{folder}: expected {folder.name}/images/ and "
                    f"{folder.name}/masks/, as in the other splits"
                )
            parts[split] = halves
    pairs, alone, unused, twice, total = [], [], [], [], 0
    for split, (images, masks) in parts.items():
        masks_of: dict[str, Path] = {}
        for mask in find_images(masks):
            if masks_of.setdefault(_stem(masks, mask), mask) != mask:
                twice.append(f"left out {mask}: another mask has its name")
        used: dict[str, Path] = {}
        for image in find_images(images):
            total += 1
            stem = _stem(images, image)
            if stem in used:
                twice.append(f"skipped {image}: {used[stem].name} has its name, too")
            elif stem not in masks_of:
                alone.append(f"skipped {image}: has no mask {masks.name}/{stem}.png")
            else:
                name = image.relative_to(path).as_posix()
                pairs.append(_Pair(image, masks_of[stem], name, split))
            used.setdefault(stem, image)
        unused += [
            f"left out {mask}: has no image in {images.name}/"
            for stem, mask in masks_of.items()
            if stem not in used
        ]
    if not total:
        raise DataError(
            f"{path}: no images with masks; expected {path.name}/images/NAME.jpg "
            f"and {path.name}/masks/NAME.png"
        )
    if not pairs:
        raise DataError(
            f"{path}: none of its {total} images has a mask; the first: "
            f"{alone[0].removeprefix('skipped ')}"
        )
    notes = [
        *first_few(alone, "skipped {} more images without a mask"),
        *first_few(unused, "left out {} more masks without an image"),
        *first_few(twice, "left out {} more files whose name is taken"),
    ]
    return pairs, notes


def _stem(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _class_names(path: Path) -> list[str] | None:
    """Lines of classes.txt; None if the file does not exist."""
    file = path / _NAMES
    if not file.is_file():
        return None
    try:
        names = [n.strip() for n in file.read_text("utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable text ({error})") from error
    if not 2 <= len(names) <= VOID:
        raise DataError(f"{file}: names {len(names)} classes; expected 2 to {VOID}")
    if "" in names:
        raise DataError(f"{file}: line {names.index('') + 1} is empty; name the class")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: names {twice[0]!r} twice")
    return names


def _decode_all(
    source: Path,
    pairs: list[_Pair],
    names: list[str] | None,
    size: int | None,
    folder: Path,
) -> dict:
    """Decodes images.npy and masks.npy; masks are indexed like `pairs`."""

    def beside(shape: tuple[int, int, int], heads: list[Head | None]) -> Callable:
        masks = new_array(folder / "masks.npy", np.uint8, (len(pairs), *shape[:2]))
        on_stored, more = _on_stored(pairs, heads)
        turns.extend(more)

        def read(number: int) -> list[int]:
            geometry = heads[number].geometry
            mask = _read_mask(pairs[number].mask, geometry, on_stored.get(number))
            values = np.unique(mask).tolist()
            if mask.shape != shape[:2]:
                image = Image.fromarray(mask)
                mask = image.resize(shape[1::-1], Image.Resampling.NEAREST)
            masks[number] = mask
            return values

        return read

    turns: list[str] = []
    facts = decode_each(
        source,
        [pair.image for pair in pairs],
        size,
        folder,
        beside,
        fallback=SCENE_SIZE,
        largest=LARGEST,
    )
    by_mask = facts.pop("found")
    values = sorted({value for found in by_mask for value in found})
    notes, classes = facts["notes"], names
    notes += turns
    if values == [0, VOID] and (names is None or len(names) == 2):
        classes = names or ["background", "object"]
        notes.append(
            f"masks hold only 0 and 255: 255 is the class {classes[1]!r} here, not "
            "ignored; with the classes 0 and 1, 255 is ignored"
        )
        masks = np.lib.format.open_memmap(folder / "masks.npy", "r+")
        for mask in masks:
            mask[mask == VOID] = 1
        masks.flush()
    elif names is None:
        classes = _default_names(source, [v for v in values if v != VOID])
    else:
        for number, found in zip(facts["kept"], by_mask, strict=True):
            if beyond := [v for v in found if len(names) <= v < VOID]:
                raise DataError(
                    f"{pairs[number].mask}: a pixel is {beyond[0]}, but {_NAMES} names "
                    f"{len(names)} classes, 0 to {len(names) - 1}; 255 is ignored"
                )
    return facts | {"classes": classes}


def _on_stored(
    pairs: list[_Pair], heads: list[Head | None]
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


def _read_mask(path: Path, geometry: Geometry, on_stored: bool | None) -> np.ndarray:
    """An upright mask, uint8 [h, w]; checks that it has the size of its image.

    Args:
      path: the file.
      geometry: of the image.
      on_stored: whether the mask lies on the stored pixels of the image.
    """
    size = geometry.shown
    try:
        with open(path, "rb") as file:
            mask = decode_mask(file, None, str(path))
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
            f"all classes in {source.name}/{_NAMES}, a line each"
        )
    return ["background", *map(str, range(1, classes))]
