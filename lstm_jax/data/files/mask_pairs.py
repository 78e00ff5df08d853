"""Finds pairs of an image and its segmentation mask by their file names."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.file_tree import hidden, holds
from lstm_jax.data.files.images import SUFFIXES, find_images
from lstm_jax.data.files.split_names import split_folders, split_of
from lstm_jax.data.files.tables import first_few

_IMAGES = ("images", "image", "imgs", "img", "jpegimages")
_MASKS = ("masks", "mask")
_MASKS_IF_IMAGES = ("segmentationclass", "labels", "annotations")
_MARKED = re.compile(r"(.+?)[ _.-](?:mask|masks|seg|segmentation|label|gt)", re.I)
_LISTS = Path("ImageSets", "Segmentation")  # of Pascal VOC


class Pair(NamedTuple):
    """An image file and its mask."""

    image: Path
    mask: Path
    name: str
    split: str | None = None  # None: assigned at random
    group: str | None = None


class _Part(NamedTuple):
    images: Path
    masks: Path | None  # None: NAME_mask beside NAME


def base_of(stem: str) -> str | None:
    """The stem of the image to which a mask's stem belongs: NAME of NAME_mask."""
    match = _MARKED.fullmatch(stem)
    return match[1] if match else None


def mask_layout(path: Path) -> str | None:
    """A description of the images and masks in a folder or its splits; None if none."""
    for folder in (path, *split_folders(path).values()):
        if part := _part(folder):
            if part.masks is None:
                return "images NAME and masks NAME_mask"
            return f"{part.images.name}/ and {part.masks.name}/"
    return None


def find_pairs(path: Path) -> tuple[list[Pair], list[str]]:
    """Finds pairs of image and mask.

    Returns:
      (pairs, notes on files without a counterpart).

    Raises:
      DataError: there are no pairs.
    """
    pairs, alone, unused, twice, total = [], [], [], [], 0
    for split, part in _parts(path):
        images, masks = _files(part)
        splits, lists = _splits_of(part), _lists(path)
        stems = {_stem(part.images, image) for image in images}
        home = part.masks or part.images
        masks_of: dict[str, Path] = {}
        for mask in masks:
            stem = _stem(home, mask)
            if stem not in stems or part.masks is None:
                stem = base_of(stem) or stem
            if masks_of.setdefault(stem, mask) != mask:
                twice.append(f"left out {mask}: another mask has the same name")
        used: dict[str, Path] = {}
        for image in images:
            total += 1
            stem = _stem(part.images, image)
            if stem in used:
                twice.append(f"skipped {image}: {used[stem].name} has the same name")
            elif stem not in masks_of:
                name = f"{stem}.png" if part.masks else f"{stem}_mask.png"
                alone.append(f"skipped {image}: has no mask {home.name}/{name}")
            elif lists and stem not in lists:
                alone.append(f"skipped {image}: in no list of {_LISTS.as_posix()}/")
            else:
                name = image.relative_to(path).as_posix()
                own = lists.get(stem) or (splits and splits[stem.partition("/")[0]])
                pairs.append(Pair(image, masks_of[stem], name, split or own or None))
            used.setdefault(stem, image)
        unused += [
            f"left out {mask}: has no image in {part.images.name}/"
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


def _parts(path: Path) -> Iterator[tuple[str | None, _Part]]:
    if part := _part(path):
        yield None, part
        return
    for split, folder in split_folders(path).items():
        part = _part(folder)
        if part is None:
            raise DataError(
                f"{folder}: expected {folder.name}/images/ and "
                f"{folder.name}/masks/, as in the other splits"
            )
        yield split, part


def _part(path: Path) -> _Part | None:
    """The folders of images and masks in a folder; None if it has none."""
    if not path.is_dir():
        return None
    inside = {f.name.lower(): f for f in path.iterdir() if f.is_dir()}
    images = [inside[name] for name in _IMAGES if name in inside]
    masks = [inside[name] for name in _MASKS if name in inside]
    masks += [
        inside[name]
        for name in _MASKS_IF_IMAGES
        if images and name in inside and holds(inside[name], SUFFIXES, deep=True)
    ]
    if images and masks:
        for several in (images, masks):
            if len(several) > 1:
                raise DataError(
                    f"{path}: holds both {several[0].name}/ and {several[1].name}/; "
                    "keep one of them"
                )
        return _Part(images[0], masks[0])
    files = {f.stem for f in path.iterdir() if f.suffix.lower() in SUFFIXES}
    if any(base_of(stem) in files for stem in files):
        return _Part(path, None)
    return None


def _files(part: _Part) -> tuple[list[Path], list[Path]]:
    """The images and the masks of a part."""
    images = find_images(part.images)
    if part.masks is not None:
        return images, find_images(part.masks)
    stems = {_stem(part.images, file) for file in images}
    masks = {f for f in images if base_of(_stem(part.images, f)) in stems}
    return [file for file in images if file not in masks], sorted(masks)


def _splits_of(part: _Part) -> dict[str, str]:
    """The split of each folder in images/, such as images/train/; {} if not splits."""
    inside = sorted(part.images.iterdir())
    folders = [f.name for f in inside if f.is_dir() and not hidden(f.name)]
    splits = {name: split_of(name) for name in folders}
    if "train" not in splits.values() or None in splits.values():
        return {}
    return {} if holds(part.images, SUFFIXES) else splits


def _lists(path: Path) -> dict[str, str]:
    """The split of each stem in Pascal VOC's lists; {} without a list for train."""
    found: dict[str, str] = {}
    files = {split_of(f.stem): f for f in sorted((path / _LISTS).glob("*.txt"))}
    if "train" not in files:
        return {}
    for split in filter(None, files):
        text = files[split].read_text("utf-8-sig", errors="replace")
        found |= {line.strip(): split for line in text.splitlines() if line.strip()}
    return found


def _stem(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()
