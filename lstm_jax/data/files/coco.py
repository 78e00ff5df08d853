"""Your own images with bounding boxes: COCO JSON files."""

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.boxes import table
from lstm_jax.data.cache import cached
from lstm_jax.data.dataset import LARGEST, SCENE_SIZE, SPLITS, DataError, Dataset, Split
from lstm_jax.data.files.folders import decode_each
from lstm_jax.data.files.images import Head
from lstm_jax.data.files.limits import FOLLOW, is_inside, printable
from lstm_jax.data.files.orientation import (
    Geometry,
    is_stored_size,
    lie_on_stored,
    notes_on_turns,
)
from lstm_jax.data.files.placement import place_image
from lstm_jax.data.files.read_options import ReadOptions
from lstm_jax.data.files.split_names import SPELLINGS, split_folders
from lstm_jax.data.files.tables import fingerprint, with_groups
from lstm_jax.data.files.yolo import find_yolo, images_of, read_yolo
from lstm_jax.data.splits import assign_splits, by_split
from lstm_jax.targets import CLASS, COLUMNS

_FORMAT = 3  # version of the cached arrays; increase it when decoding changes
_LARGEST_FILE = 1 << 30  # bytes of JSON; COCO itself, 118,287 images, takes 0.45 GB
_SINGLE = ("annotations.json", "_annotations.coco.json")
_PARTS = re.compile(rf"instances_({'|'.join(SPELLINGS)}|default)\d*\.json")
_ROUNDING = 0.01  # pixels that a box may exceed the image without a note


class _Image(NamedTuple):
    path: Path
    name: str
    size: tuple[int, int] | None  # (H, W) as the JSON file says
    split: str | None  # None: assigned at random
    group: str


class _Box(NamedTuple):
    image: int
    category: Any  # an id
    corners: tuple[float, float, float, float]  # x0, y0, x1, y1 in the file's pixels
    crowd: bool
    file: str
    number: int  # of the annotation in its file


class _Read(NamedTuple):
    images: list[_Image]
    boxes: list[_Box]
    categories: dict[Any, dict]  # by id
    faults: Counter  # number of boxes by kind of fault
    first: dict[str, str]  # description of the first box of each kind of fault


def find_coco(path: Path) -> dict[str | None, Path]:
    """COCO files by split; {} if there are none. The split None means unassigned.

    These are: FILE.json itself; annotations.json or _annotations.coco.json in a folder;
    annotations/instances_train.json, _val and _test (a year may follow), or
    instances_default.json; or _annotations.coco.json or annotations.json in train/,
    valid/ and test/.

    Raises:
      DataError: two files of one split, or no file for training.
    """
    if path.is_file():
        return {None: path} if path.suffix.lower() == ".json" else {}
    for name in _SINGLE:
        if (path / name).is_file():
            return {None: path / name}
    found: dict[str | None, Path] = {}
    for file in sorted((path / "annotations").glob("instances_*.json")):
        if match := _PARTS.fullmatch(file.name.lower()):
            split = SPELLINGS.get(match[1])
            if split in found:
                raise DataError(
                    f"{path}: {found[split].name} and {file.name} are both for "
                    f"{split}; keep one"
                )
            found[split] = file
    if not found:
        for split, folder in split_folders(path).items():
            for name in _SINGLE:
                if (folder / name).is_file():
                    found.setdefault(split, folder / name)
    if found and not found.keys() & {None, "train"}:
        files = ", ".join(file.name for file in found.values())
        raise DataError(f"{path}: has no boxes to train on, only {files}")
    return found


def load_coco(path: Path, root: Path, options: ReadOptions) -> Dataset:
    """Load the images and boxes that COCO JSON files list, or labels of YOLO.

    An image's `file_name` is searched beside the JSON file and in images/; for
    annotations/instances_train2017.json also in train2017/. Category ids may have
    gaps: classes are ordered by id. Images without boxes are kept.

    Skipped and reported in `notes`: images that cannot be read, or whose size differs
    from the JSON file's; boxes outside their image, without area, with NaN, or of an
    unknown category or image. Boxes partly outside are clipped. Boxes of an image with
    an EXIF orientation are turned with it if the JSON file states the size of the
    stored pixels.

    Args:
      path: a JSON file, or a folder in which `find_coco` or `find_yolo` finds some.
      root: the cache folder.
      options: without a size, the common one, or 64 if sizes differ; boxes are scaled
        with the images. `follow_outside` loads images outside of the folder, which
        `file_name` can lead to by `..` or an absolute path.

    Returns:
      The Dataset; targets are float32 [N, M, 7], boxes as in `Split`; M is the largest
      number of boxes in one image.

    Raises:
      DataError: a file is not JSON, too large, or lacks a key; it names an image
        outside of its folder; no readable image, too few of them, or no box.
    """
    size, group = options.size, options.group
    files = find_coco(path) or find_yolo(path)
    if not files:
        raise DataError(
            f"{path}: no boxes; expected a COCO file, {path.name}/annotations.json, "
            "with images beside it or in images/"
        )
    read = _Read([], [], {}, Counter(), {})
    for split in (None, *SPLITS):
        if split in files:
            _read_file(files[split], split, path, read, options.follow_outside)
    names, notes = _classes(path, read)
    entries = with_groups(path, read.images, group)
    if not entries:
        raise DataError(f"{path}: no images; the list 'images' is empty")
    if not read.boxes:
        why = _faults(read) or ["the list 'annotations' is empty"]
        raise DataError(f"{path}: no box to train on; {'; '.join(why)}")
    arrays, facts = cached(
        root,
        f"{path.name}-boxes-{size}" if size else f"{path.name}-boxes",
        [
            _FORMAT,
            size,
            options.fit,
            [[str(p.path), *fingerprint(p.path), p.size] for p in entries],
        ],
        lambda folder: decode_each(
            path,
            [entry.path for entry in entries],
            options,
            folder,
            lambda _, heads, fit: (
                lambda number: _placement(entries[number], heads[number])
            ),
            fallback=SCENE_SIZE,
            largest=LARGEST,
        ),
    )
    kept = facts["kept"]
    geometries, turns = _geometries(entries, facts)
    shape = arrays["images"].shape[1:3]
    targets = _tables(path, read, kept, geometries, shape, facts["fit"], list(names))
    entries = [entries[i] for i in kept]
    images = arrays["images"][: len(kept)]
    draw = dict(validation=options.validation, seed=options.seed, inputs=images)
    chosen, more = assign_splits(path, entries, "image", **draw)
    splits = {name: Split(images[i], targets[i]) for name, i in chosen.items()}
    if not (splits["train"].targets[..., CLASS] >= 0).any():
        raise DataError(f"{path}: no box in a training image")
    named = by_split([entry.name for entry in entries], chosen)
    groups = by_split([e.group for e in entries] if group else None, chosen)
    notes = (*notes, *facts["notes"], *turns, *_faults(read), *more)
    classes = tuple(names.values())
    return Dataset(
        path.name,
        splits,
        classes,
        notes,
        named,
        groups,
        target_type="boxes",
        depth=facts["depth"],
        fit=facts["fit"],
    )


def _drop_segmentation(entry: dict) -> dict:
    """Segmentations are most of a file, and are not used."""
    entry.pop("segmentation", None)
    return entry


def _parsed(file: Path) -> dict[str, list[dict]]:
    """The lists images, annotations and categories of a file."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise DataError(
                f"{file}: {file.stat().st_size / 2**30:.1f} GiB of JSON, over the "
                f"{_LARGEST_FILE >> 30} GiB limit; leave out outlines "
                "(segmentation), or list fewer images"
            )
        text = file.read_text("utf-8-sig")
        found = json.loads(text, object_hook=_drop_segmentation)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except RecursionError as error:
        raise DataError(f"{file}: not readable JSON (too deeply nested)") from error
    except DataError:
        raise
    except ValueError as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, json.JSONDecodeError) and not text[error.pos :].strip():
            reason = f"ends too early, {reason}"
        raise DataError(f"{file}: not readable JSON ({reason})") from error
    for key in ("images", "annotations", "categories"):
        entries = found.get(key) if isinstance(found, dict) else None
        if not isinstance(entries, list):
            has = (
                ", ".join(list(found)[:6])
                if isinstance(found, dict)
                else "no JSON object"
            )
            raise DataError(
                f"{file}: no list {key!r}, found {has or 'nothing'}; a COCO file has "
                "the lists images, annotations and categories"
            )
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise DataError(f"{file}: {key}[{number}] is not an object")
    return found


def _read_file(
    file: Path, split: str | None, path: Path, read: _Read, follow_outside: bool
) -> None:
    """Adds the contents of a file to `read`."""
    found = read_yolo(file, path) if file.is_dir() else _parsed(file)
    for number, entry in enumerate(found["categories"]):
        where = f"{file}: categories[{number}]"
        key, name = _id(entry, "id", where), _value(entry, "name", where, str)
        known = read.categories.setdefault(key, entry)
        if known["name"] != name:
            raise DataError(
                f"{where} is {name!r} with the id {key}, which was {known['name']!r} "
                "before"
            )
    rows: dict[Any, int] = {}
    folders = [images_of(file)] if file.is_dir() else _image_folders(file, path)
    for number, entry in enumerate(found["images"]):
        where = f"{file}: images[{number}]"
        key, name = _id(entry, "id", where), _value(entry, "file_name", where, str)
        if key in rows:
            raise DataError(f"{where} has the id {key} of an earlier one")
        if not printable(name):
            raise DataError(f"{where}: file_name {name[:60]!r} is not a file name")
        rows[key] = len(read.images)
        sides = entry.get("height"), entry.get("width")
        size = sides if all(type(s) is int and s > 0 for s in sides) else None
        place = _placed(name, folders, follow_outside)
        if place is None:
            raise DataError(
                f"{where}: file_name {name[:60]!r} leads outside of the data set's "
                f"folder; {FOLLOW} allows that"
            )
        read.images.append(_Image(place, name, size, split, str(place)))
    for number, entry in enumerate(found["annotations"]):
        where = f"{file}: annotations[{number}]"
        image, category = (_id(entry, k, where) for k in ("image_id", "category_id"))
        box = _value(entry, "bbox", where, list)
        if len(box) != 4 or not all(type(v) in (int, float) for v in box):
            raise DataError(
                f"{where}: bbox is {str(box)[:60]}, expected [x, y, width, height]"
            )
        try:
            x, y, w, h = map(float, box)
        except OverflowError:
            x = y = w = h = math.inf
        key = "bbox"
        if image not in rows:
            fault, key = "with an image_id that is not listed", "image_id"
        elif category not in read.categories:
            fault, key = "with a category_id that is not listed", "category_id"
        elif not all(map(math.isfinite, (x, y, w, h))):
            fault = "with NaN or infinity"
        elif w <= 0 or h <= 0:
            fault = "without area"
        else:
            corners, crowd = (x, y, x + w, y + h), bool(entry.get("iscrowd"))
            read.boxes.append(
                _Box(rows[image], category, corners, crowd, file.name, number)
            )
            continue
        detail = f"{key} {str(entry[key])[:60]}"
        _note_fault(read, fault, file.name, number, detail)


def _id(entry: dict, key: str, where: str) -> Any:
    return _value(entry, key, where, (int, str))


def _value(entry: dict, key: str, where: str, kind: Any) -> Any:
    if key not in entry:
        raise DataError(f"{where} has no {key!r}")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "a string", list: "a list"}
        raise DataError(
            f"{where}: {key} is {str(value)[:40]}, expected "
            f"{names.get(kind, 'an integer')}"
        )
    return value


def _image_folders(file: Path, path: Path) -> list[Path]:
    """Folders in which a file's images may be, the most likely first."""
    match = _PARTS.fullmatch(file.name.lower())
    if match:
        homes = [file.parent.parent, file.parent]
    else:
        homes = [file.parent, path if path.is_dir() else file.parent]
    folders = [folder for home in homes for folder in (home, home / "images")]
    if match:
        part = file.stem[len("instances_") :]
        inside = [folder / name for name in (part, match[1]) for folder in folders]
        folders = inside + folders
    return folders


def _placed(name: str, folders: list[Path], follow_outside: bool) -> Path | None:
    """The path of an image; if it does not exist, the most likely path.

    Returns None if it would be outside of the data set's folder.
    """
    name = name.replace("\\", "/")
    short = name.rpartition("/")[2]
    places = [folder / n for n in dict.fromkeys((name, short)) for folder in folders]
    allowed = [
        place
        for place in places
        if follow_outside or any(is_inside(place, folder) for folder in folders)
    ]
    for place in allowed:
        if os.path.isfile(place):  # False for impossible names, too
            return place
    return places[0] if places[0] in allowed else None


def _classes(path: Path, read: _Read) -> tuple[dict[Any, str], list[str]]:
    """Class names by id, in the order of ids, without unused supercategories."""
    categories, notes = dict(read.categories), []
    if not categories:
        raise DataError(f"{path}: no classes; the list 'categories' is empty")
    used = {box.category for box in read.boxes}
    groups = {entry.get("supercategory") for entry in categories.values()}
    for key, entry in read.categories.items():
        # Roboflow lists the supercategory of all classes as a class with the id 0.
        top = entry.get("supercategory") in (None, "none", "")
        if top and key not in used and entry["name"] in groups:
            del categories[key]
            notes.append(
                f"{entry['name']!r} is a supercategory without boxes: left out"
            )
    order = sorted(categories, key=lambda key: (isinstance(key, str), key))
    names = {key: categories[key]["name"] for key in order}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        ids = ", ".join(str(key) for key in order if names[key] == twice[0])
        raise DataError(f"{path}: the categories {ids} have the same name {twice[0]!r}")
    return names, notes


def _placement(image: _Image, head: Head) -> list:
    """[[H, W] as stored, orientation, whether boxes lie on the stored pixels or None].

    Raises:
      DataError: the JSON file states another size.
    """
    geometry = head.geometry
    if image.size and image.size not in (geometry.stored, geometry.shown):
        h, w = image.size
        raise DataError(
            f"{image.path}: is {head.size[0]}x{head.size[1]}, but its entry has height "
            f"{h} and width {w}; its boxes would be misplaced"
        )
    return [*geometry, is_stored_size(geometry, image.size)]


def _geometries(
    entries: list[_Image], facts: dict
) -> tuple[list[tuple[Geometry, bool]], list[str]]:
    """Of each image that was read its geometry and whether its boxes lie on the stored
    pixels; and notes.
    """
    known = [(Geometry(tuple(s), o), fact) for s, o, fact in facts["found"]]
    turns = [fact for geometry, fact in known if geometry.orientation != 1]
    assumed = lie_on_stored(turns)
    names = [entries[k].name for k in facts["kept"]]
    found = [(g, assumed if fact is None else fact) for g, fact in known]
    turned = [n for n, (_, stored) in zip(names, found, strict=True) if stored]
    unsure = [n for n, (_, fact) in zip(names, known, strict=True) if fact is None]
    return found, notes_on_turns(turned, unsure, "boxes")


def _tables(
    path: Path,
    read: _Read,
    kept: list[int],
    geometries: list[tuple[Geometry, bool]],
    size: tuple[int, int],
    fit: str,
    ids: list,
) -> np.ndarray:
    """Boxes of the images that were read, in resized pixels, float32 [N, M, 7]."""
    row_of = {number: row for row, number in enumerate(kept)}
    numbers = {key: k for k, key in enumerate(ids)}
    rows: list[list[tuple]] = [[] for _ in row_of]
    for box in read.boxes:
        row = row_of.get(box.image)
        if row is None:
            continue
        geometry, stored = geometries[row]
        full = np.asarray(geometry.shown[::-1] * 2, np.float64)  # w, h, w, h
        corners = np.asarray(box.corners)
        if stored:
            corners = geometry.boxes(corners)
        inside = np.clip(corners, 0, full)
        placed = place_image(geometry.shown, size, fit).boxes(inside)
        edge = np.tile(size[::-1], 2)
        x0, y0, x1, y1 = np.float32(np.clip(placed, 0, edge))
        clipped = np.abs(inside - corners).max() > _ROUNDING
        empty = x1 <= x0 or y1 <= y0
        if clipped or empty:
            fault = "outside the image" if empty else ""
            x, y, right, low = (float(f"{c:g}") for c in corners)
            detail = f"bbox {[x, y, right - x, low - y]} in {full[1]:g}x{full[0]:g}"
            _note_fault(read, fault, box.file, box.number, detail)
        if empty:
            continue
        rows[row].append((x0, y0, x1, y1, numbers[box.category], box.crowd))
    if not any(rows):
        raise DataError(f"{path}: no box to train on; {'; '.join(_faults(read))}")
    most = max(map(len, rows))
    total = len(rows) * most * COLUMNS * 4
    if total > LARGEST:
        raise DataError(
            f"{path}: one image has {most:,} boxes; an array of that many for each of "
            f"{len(rows):,} images takes {total / 2**30:.0f} GiB; leave the image out"
        )
    targets = np.zeros((len(rows), most, COLUMNS), np.float32)
    for number, found in enumerate(rows):
        values = np.asarray(found, np.float64).reshape(-1, 6)
        boxes, labels, crowd = values[:, :4], values[:, 4], values[:, 5]
        targets[number] = table(boxes, labels, most, crowd=crowd)
    return targets


def _note_fault(read: _Read, fault: str, file: str, number: int, detail: str) -> None:
    read.faults[fault] += 1
    read.first.setdefault(fault, f"annotations[{number}] of {file}, {detail}")


def _faults(read: _Read) -> list[str]:
    """One line for each kind of fault, with the number of boxes."""
    lines = []
    for fault, count in read.faults.items():
        boxes = "1 box" if count == 1 else f"{count:,} boxes"
        how = f"skipped {boxes} {fault}" if fault else f"clipped {boxes} at the border"
        lines.append(f"{how}; the first: {read.first[fault]}")
    return lines
