"""Lists the images and boxes of a data set, in any of the formats of boxes."""

import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.coco import coco_folders, find_coco, read_coco
from lstm_jax.data.files.limits import FOLLOW, is_inside, printable
from lstm_jax.data.files.voc import find_voc, read_voc, voc_folders
from lstm_jax.data.files.yolo import find_yolo, read_yolo, yolo_folders


class BoxFormat(NamedTuple):
    """A format of files with boxes.

    Attributes:
      name: for messages; {file} is one of the files.
      find: path -> files or folders by split; {} if there are none.
      read: (one of them, the data set's folder) -> lists "images", "annotations" and
        "categories" as in COCO, and optionally "notes".
      folders: (one of them, the data set's folder) -> where its images may be.
    """

    name: str
    find: Callable[[Path], dict[str | None, Path]]
    read: Callable[[Path, Path], dict[str, list]]
    folders: Callable[[Path, Path], list[Path]]


_FORMATS = (
    BoxFormat("boxes ({file})", find_coco, read_coco, coco_folders),
    BoxFormat("boxes of YOLO (labels/*.txt)", find_yolo, read_yolo, yolo_folders),
    BoxFormat("boxes of Pascal VOC (*.xml)", find_voc, read_voc, voc_folders),
)


class ListedImage(NamedTuple):
    path: Path
    name: str
    size: tuple[int, int] | None  # (H, W) as the JSON file says
    split: str | None  # None: assigned at random
    group: str


class ListedBox(NamedTuple):
    image: int
    category: Any  # an id
    corners: tuple[float, float, float, float]  # x0, y0, x1, y1 in the file's pixels
    crowd: bool
    file: str
    number: int  # of the annotation in its file


class Listing(NamedTuple):
    images: list[ListedImage]
    boxes: list[ListedBox]
    categories: dict[Any, dict]  # by id
    faults: Counter  # number of boxes by kind of fault
    first: dict[str, str]  # description of the first box of each kind of fault
    notes: list[str]


def find_boxes(path: Path) -> tuple[BoxFormat | None, dict[str | None, Path]]:
    """The format of the boxes in a folder or file, and its files by split.

    Returns:
      (None, {}) if there are none.
    """
    for form in _FORMATS:
        if files := form.find(path):
            return form, files
    return None, {}


def name_of_boxes(path: Path) -> str | None:
    """A description of the boxes in a folder or file; None if there are none."""
    form, files = find_boxes(path)
    return form and form.name.format(file=next(iter(files.values())).name)


def read_list(
    form: BoxFormat,
    file: Path,
    split: str | None,
    path: Path,
    read: Listing,
    follow_outside: bool,
) -> None:
    """Adds the contents of a file to `read`."""
    found = form.read(file, path)
    read.notes.extend(found.get("notes", ()))
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
    folders = form.folders(file, path)
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
        read.images.append(ListedImage(place, name, size, split, str(place)))
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
                ListedBox(rows[image], category, corners, crowd, file.name, number)
            )
            continue
        detail = f"{key} {str(entry[key])[:60]}"
        note_fault(read, fault, file.name, number, detail)


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


def classes_of(path: Path, read: Listing) -> tuple[dict[Any, str], list[str]]:
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


def note_fault(read: Listing, fault: str, file: str, number: int, detail: str) -> None:
    read.faults[fault] += 1
    read.first.setdefault(fault, f"annotations[{number}] of {file}, {detail}")


def fault_lines(read: Listing) -> list[str]:
    """One line for each kind of fault, with the number of boxes."""
    lines = []
    for fault, count in read.faults.items():
        boxes = "1 box" if count == 1 else f"{count:,} boxes"
        how = f"skipped {boxes} {fault}" if fault else f"clipped {boxes} at the border"
        lines.append(f"{how}; the first: {read.first[fault]}")
    return lines
