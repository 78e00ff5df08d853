"""Reads boxes in the format of Pascal VOC: Annotations/NAME.xml for NAME.jpg."""

import contextlib
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.file_tree import hidden
from lstm_jax.data.files.images import SUFFIXES
from lstm_jax.data.files.split_names import one_each, split_folders, split_of
from lstm_jax.data.files.tables import first_few
from lstm_jax.data.files.xml_files import parse_xml, read_bounded

_IMAGES = ("jpegimages", "images", "image", "imgs", "img")
_HEAD = 1 << 12  # bytes in which the root element is searched
_ROOT = re.compile(rb"<annotation[\s>]")
_ZERO = re.compile(rb"<[xy]min>\s*0+(\.0*)?\s*</")
_LISTS = Path("ImageSets", "Main")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def find_voc(path: Path) -> dict[str | None, Path]:
    """Folders or lists of XML files by split; the key None: split at random.

    These are Annotations/ beside JPEGImages/ or images/, with the lists of
    ImageSets/Main/ if they are there, or XML files beside their images; or such folders
    in train/, valid/ and test/. {}: none found.
    """
    if not path.is_dir():
        return {}
    if _files(path):
        lists = sorted((path / _LISTS).glob("*.txt"))
        found = one_each(path, [(split_of(file.stem), file) for file in lists])
        return found if "train" in found else {None: path}
    parts = split_folders(path)
    return {split: folder for split, folder in parts.items() if _files(folder)}


def read_voc(part: Path, top: Path) -> dict[str, list]:
    """Reads the images and boxes of a split into the structure of COCO.

    Pixels are counted from 1, and boxes include their last one, unless a box of the
    data set begins at 0. Difficult objects become crowd regions, which need not be
    detected.

    Args:
      part: a folder, or a list of ImageSets/Main/.
      top: the folder of the data set.

    Returns:
      As `read_coco`, and "notes" on files that were left out.
    """
    home = _home(part, top)
    files, notes = _files(home), []
    images = _beside(home)
    if part.is_file():
        wanted = _listed(part)
        if unknown := sorted(wanted - {file.stem for file in files}):
            notes.append(f"{part}: {len(unknown)} names without XML: {unknown[0]}")
        lists = sorted((top / _LISTS).glob("*.txt"))
        known = set().union(*(_listed(f) for f in lists if split_of(f.stem)))
        rest = [file for file in files if file.stem not in known]
        if rest and split_of(part.stem) == "train":
            notes.append(f"left out {len(rest)} XML files in no list: {rest[0]}")
        files = [file for file in files if file.stem in wanted]
    else:
        bare = sorted(images.keys() - {file.stem for file in files})
        lines = [f"left out {images[stem]}: has no {stem}.xml" for stem in bare]
        notes += first_few(lines, "left out {} more images without XML")
    found, faults = [], []
    for file in files:
        try:
            found.append((file, _parsed(file)))
        except DataError as error:
            faults.append(f"skipped {error}")
    notes += first_few(faults, "skipped {} more XML files")
    parts = find_voc(top)
    first = _first_pixel({_home(one, top) for one in parts.values()})
    if first == 0 and part == next(iter(parts.values())):
        notes.append(f"{top}: a box begins at 0, so pixels are counted from 0, not 1")
    entries, boxes = [], []
    for key, (file, (name, size, objects)) in enumerate(found):
        image = images.get(file.stem)
        name = image.name if image else name or f"{file.stem}.jpg"
        entries.append({"id": key, "file_name": name} | size)
        for label, (x0, y0, x1, y1), difficult in objects:
            x, y = x0 - first, y0 - first
            box = {"image_id": key, "category_id": label, "iscrowd": difficult}
            boxes.append(box | {"bbox": [x, y, x1 - x, y1 - y]})
    labels = sorted({box["category_id"] for box in boxes})
    categories = [{"id": label, "name": label} for label in labels]
    return dict(images=entries, annotations=boxes, categories=categories, notes=notes)


def voc_folders(part: Path, top: Path) -> list[Path]:
    """Folders in which the images of a split may be."""
    home = _home(part, top)
    return [*_image_folders(home), home]


def _home(part: Path, top: Path) -> Path:
    """The folder of a split: the data set's folder for a list."""
    return top if part.is_file() else part


def _first_pixel(folders: set[Path]) -> int:
    """0 if a box in one of the folders begins at 0, else 1."""
    for file in (file for folder in folders for file in _files(folder)):
        with contextlib.suppress(DataError):  # told when the file is read
            if _ZERO.search(read_bounded(file)):
                return 0
    return 1


def _files(folder: Path) -> list[Path]:
    """XML files of Pascal VOC in a folder, or in Annotations/ in it."""
    inside = [f for f in _inside(folder) if f.name.lower() == "annotations"]
    homes = inside if inside and _image_folders(folder) else [folder]
    files = [f for home in homes for f in _inside(home) if f.suffix.lower() == ".xml"]
    return files if any(_is_voc(file) for file in files[:3]) else []


def _is_voc(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            return bool(_ROOT.search(opened.read(_HEAD)))
    except OSError:
        return False


def _image_folders(folder: Path) -> list[Path]:
    inside = {f.name.lower(): f for f in _inside(folder) if f.is_dir()}
    return [inside[name] for name in _IMAGES if name in inside]


def _beside(home: Path) -> dict[str, Path]:
    """The images of a folder by stem."""
    folders = _image_folders(home) or [home]
    files = [f for folder in folders for f in _inside(folder)]
    return {f.stem: f for f in files if f.suffix.lower() in SUFFIXES}


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if not hidden(f.name))
    except OSError:
        return []


def _listed(file: Path) -> set[str]:
    """The names in a list; a number may follow each."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable text ({error})") from error
    return {line.split()[0] for line in lines if line.strip()}


def _parsed(file: Path) -> tuple[str, dict[str, int], list[tuple]]:
    """(name of the image, its size, (label, corners, whether difficult) of objects)."""
    root = parse_xml(file)
    if root.tag != "annotation":
        raise DataError(f"{file}: its root is {root.tag[:40]}; expected annotation")
    sides = {key: _integer(root.findtext(f"size/{key}")) for key in ("height", "width")}
    size = sides if all(sides.values()) else {}
    objects = []
    for number, entry in enumerate(root.findall("object")):
        where = f"{file}: object {number}"
        label = (entry.findtext("name") or "").strip()
        if not label:
            raise DataError(f"{where} has no name")
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append((label, _corners(entry, where), difficult))
    return (root.findtext("filename") or "").strip(), size, objects


def _corners(entry: Element, where: str) -> tuple[float, ...]:
    texts = [entry.findtext(f"bndbox/{side}") for side in _SIDES]
    try:
        return tuple(float(text or "") for text in texts)
    except ValueError:
        shown = ", ".join(str(text)[:20] for text in texts)
        raise DataError(
            f"{where}: bndbox is {shown}; expected the numbers {', '.join(_SIDES)}"
        ) from None


def _integer(text: str | None) -> Any:
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else None
