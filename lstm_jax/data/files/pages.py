"""Text lines on page images, located by ALTO or PAGE XML files."""

import itertools
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.images import SUFFIXES, image_geometry
from lstm_jax.data.files.line_reading import Cut, Line
from lstm_jax.data.files.orientation import (
    Geometry,
    is_stored_size,
    lie_on_stored,
    notes_on_turns,
)
from lstm_jax.data.files.xml_files import parse_xml

_HEAD = 1 << 14  # bytes in which the root element is searched
_PROBED = 50  # files of a folder that are examined for being pages
_ROOT = re.compile(rb"<(?:[\w.-]+:)?(alto|PcGts)[\s/>]")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_FARTHEST = 1e7  # pixels; a coordinate beyond is a mistake
_SHOWN = 60  # characters of a name from the XML that a note shows
_BELOW = ("page", "alto")  # folders whose images may be in the parent folder


class _Found(NamedTuple):
    id: str
    text: str
    cut: Cut | None  # None: the file gives neither box nor outline


class _Page(NamedTuple):
    image: str  # file name as written in the XML
    size: tuple[int, int] | None  # (h, w) as written in the XML, pixels
    lines: list[_Found]


def is_page(path: Path) -> bool:
    """Whether a file starts like ALTO or PAGE XML."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return bool(_ROOT.search(head.replace(b"\0", b"")))  # finds UTF-16, too


def is_page_dataset(folder: Path) -> bool:
    """Whether a folder, or a folder in it, holds ALTO or PAGE XML."""
    return any(
        is_page(file)
        for way in ("*.xml", "*/*.xml")
        for file in itertools.islice(folder.glob(way), _PROBED)
    )


def read_pages(
    files: Iterable[Path], top: Path, split: str | None = None
) -> tuple[list[Line], list[str], set[Path]]:
    """Text lines of pages described by ALTO (versions 2 to 4) or PAGE XML.

    The page image has the file name that the XML gives, or else the name of the XML
    file itself. It is searched beside the XML and, if that is in a folder page/ or
    alto/, in the parent folder. A line is cropped by its outline, or else by its box.
    Its name is file and id, such as "page.xml#line_1"; its group is the page image.

    ALTO text is made of String, SP and HYP elements; if there is no SP, strings are
    joined by single spaces. PAGE text is the TextEquiv with the lowest index.

    Args:
      files: XML files.
      top: the folder to which names are relative.
      split: of all lines; None: assigned at random.

    Returns:
      (lines, including those without text; notes on what was skipped; page images).
    """
    lines, faults, owners, found = [], [], {}, []
    for file in files:
        try:
            page = _parsed(file)
        except DataError as error:
            faults.append(f"skipped {error}")
            if image := _find_image(file, ""):
                owners.setdefault(image, file)
            continue
        image = _find_image(file, page.image)
        if image is None:
            wanted = page.image or f"{file.stem}.png"
            wanted = wanted[:_SHOWN] + "…" * (len(wanted) > _SHOWN)
            faults.append(f"skipped {file}: its image {wanted!r} is not beside it")
            continue
        if (owner := owners.setdefault(image, file)) != file:
            faults.append(f"left out {file}: {owner} is of {image.name}, too")
            continue
        geometry = image_geometry(image)
        sizes = (geometry.shown, geometry.stored) if geometry else (page.size,)
        if page.size and page.size not in sizes:
            faults.append(
                f"skipped {file}: is of an image of {'x'.join(map(str, page.size))}, "
                f"but {image.name} is {'x'.join(map(str, sizes[0]))}"
            )
            continue
        if not page.lines:
            faults.append(f"left out {file}: it has no TextLine")
        found.append((file, image, page, geometry))
    turns, more = _turns(found)
    for file, image, page, geometry in found:
        name = file.relative_to(top).as_posix()
        for line in page.lines:
            label, cut = f"{file}#{line.id}", line.cut
            if cut is None:
                faults.append(f"skipped {label}: it has neither a box nor an outline")
                continue
            if image in turns:
                cut = _turned(cut, geometry)
            where, group = f"{name}#{line.id}", str(image)
            lines.append(Line(image, line.text, label, where, split, group, cut))
    return lines, [*more, *faults], set(owners)


def _turns(
    found: list[tuple[Path, Path, _Page, Geometry | None]],
) -> tuple[set[Path], list[str]]:
    """Images whose lines were located on their stored pixels, and notes."""
    facts = {
        image: is_stored_size(geometry, page.size)
        for _, image, page, geometry in found
        if geometry and geometry.orientation != 1
    }
    assumed = lie_on_stored([*facts.values()])
    stored = {k for k, fact in facts.items() if (assumed if fact is None else fact)}
    turned = [image.name for image in facts if image in stored]
    unsure = [image.name for image, fact in facts.items() if fact is None]
    return stored, notes_on_turns(turned, unsure, "lines")


def _turned(cut: Cut, geometry: Geometry) -> Cut:
    box = tuple(geometry.boxes(np.asarray(cut.box)).astype(int).tolist())
    if not cut.outline:
        return Cut(box)
    return Cut(
        box, tuple(map(tuple, geometry.points(np.asarray(cut.outline)).tolist()))
    )


def page_image(file: Path) -> Path | None:
    """The image of a page in ALTO or PAGE XML; None if either cannot be found."""
    try:
        return _find_image(file, _parsed(file).image)
    except DataError:
        return None


def page_files(image: Path) -> list[Path]:
    """ALTO and PAGE XML files of a page image: beside it, or in page/ or alto/."""
    folders = image.parent, *(image.parent / name for name in _BELOW)
    files = [folder / f"{image.stem}.xml" for folder in folders]
    return [f for f in files if is_page(f) and page_image(f) == image]


def _parsed(file: Path) -> _Page:
    if not is_page(file):
        raise DataError(f"{file}: neither ALTO nor PAGE XML")
    root = parse_xml(file)
    pages = root.findall(".//{*}Page")
    if len(pages) != 1:
        raise DataError(f"{file}: holds {len(pages)} pages; expected one in a file")
    if root.tag.endswith("PcGts"):
        lines = [
            _Found(line.get("id") or str(k), _page_text(line), _page_cut(line))
            for k, line in enumerate(pages[0].iterfind(".//{*}TextLine"), start=1)
        ]
        names = "imageHeight", "imageWidth"
        return _Page(pages[0].get("imageFilename", ""), _size(pages[0], *names), lines)
    unit = (root.findtext(".//{*}MeasurementUnit") or "pixel").strip()
    if unit != "pixel":
        raise DataError(f"{file}: its MeasurementUnit is {unit!r}; expected pixel")
    lines = [
        _Found(line.get("ID") or str(k), _alto_text(line), _alto_cut(line))
        for k, line in enumerate(pages[0].iterfind(".//{*}TextLine"), start=1)
    ]
    image = root.findtext(".//{*}sourceImageInformation/{*}fileName") or ""
    return _Page(image.strip(), _size(pages[0], "HEIGHT", "WIDTH"), lines)


def _size(page: Element, *names: str) -> tuple[int, int] | None:
    """(h, w) in pixels; None if it is not given."""
    size = [_number(page.get(name)) for name in names]
    return None if None in size else (round(size[0]), round(size[1]))


def _number(text: str | None) -> float | None:
    """A number that can be a coordinate, pixels; None if it cannot."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) <= _FARTHEST else None


def _find_image(file: Path, name: str) -> Path | None:
    """The page image: named `name`, or else like the XML file; None if not found."""
    name = name.replace("\\", "/").rpartition("/")[2]
    folders = [file.parent]
    if file.parent.name.lower() in _BELOW:
        folders.append(file.parent.parent)
    suffixes = sorted(SUFFIXES)
    names = [file.stem + s for s in (*suffixes, *map(str.upper, suffixes))]
    names = [name, *names] if name else names
    places = (folder / each for each in names for folder in folders)
    # `os.path.isfile` is False for impossible names, where Path.is_file may raise.
    return next((p for p in places if os.path.isfile(p) and p != file), None)


def _cut(points: list[tuple[float, float]]) -> Cut | None:
    if len(points) < 3:
        return None
    xs, ys = zip(*points, strict=True)
    corners = math.floor(min(xs)), math.floor(min(ys))
    return Cut((*corners, math.ceil(max(xs)), math.ceil(max(ys))), tuple(points))


def _points(text: str | None) -> list[tuple[float, float]]:
    """Parses "x,y x,y" or "x y x y" into pairs; [] if a number is not a coordinate."""
    values = [_number(n) for n in _NUMBER.findall(text or "")]
    if None in values:
        return []
    return list(zip(values[::2], values[1::2], strict=False))


def _page_cut(line: Element) -> Cut | None:
    coords = line.find("{*}Coords")
    if coords is None:
        return None
    # Before the 2010 schema, points were elements of their own.
    points = [
        (_number(point.get("x")), _number(point.get("y")))
        for point in coords.iterfind("{*}Point")
    ]
    points = [point for point in points if None not in point]
    return _cut(_points(coords.get("points")) or points)


def _page_text(line: Element) -> str:
    def order(equivalent: Element) -> float:
        index = _number(equivalent.get("index"))
        return math.inf if index is None else index

    found = min(line.iterfind("{*}TextEquiv"), key=order, default=None)
    return "" if found is None else found.findtext("{*}Unicode") or ""


def _alto_cut(line: Element) -> Cut | None:
    polygon = line.find("{*}Shape/{*}Polygon")
    if polygon is not None and (cut := _cut(_points(polygon.get("POINTS")))):
        return cut
    names = ("HPOS", "VPOS", "WIDTH", "HEIGHT")
    x, y, w, h = (_number(line.get(name)) for name in names)
    if None in (x, y, w, h):
        return None
    return Cut((math.floor(x), math.floor(y), math.ceil(x + w), math.ceil(y + h)))


def _alto_text(line: Element) -> str:
    parts = [(part.tag.rpartition("}")[2], part.get("CONTENT", "")) for part in line]
    between = "" if any(kind == "SP" for kind, _ in parts) else " "
    text = ""
    for kind, content in parts:
        if kind == "String":
            text += between * bool(text) + content
        elif kind == "SP":
            text += " "
        elif kind == "HYP":  # at the end of a line a soft hyphen is visible
            text += content.replace("\u00ad", "-") or "-"
    return text
