"""Lines of text on whole pages, where ALTO or PAGE XML says that they are."""

import itertools
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.images import SUFFIXES, picture_size
from lstm_jax.data.files.line_reading import Cut, Line

_HEAD = 1 << 14  # bytes in which the outermost element is found
_LOOKED_AT = 50  # files of a folder, to tell whether it holds pages
_ROOT = re.compile(rb"<(?:[\w.-]+:)?(alto|PcGts)[\s/>]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BELOW = ("page", "alto")  # folders whose pictures may lie one higher


class _Found(NamedTuple):
    id: str
    text: str
    cut: Cut | None  # None: neither box nor outline


class _Page(NamedTuple):
    picture: str  # as the file names it
    size: tuple[int, int] | None  # [h, w] as the file says
    lines: list[_Found]


def is_page(path: Path) -> bool:
    """Whether a file starts as ALTO or PAGE XML does."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return bool(_ROOT.search(head.replace(b"\0", b"")))  # UTF-16, too


def is_page_dataset(folder: Path) -> bool:
    """Whether a folder, or one in it, holds ALTO or PAGE XML."""
    return any(
        is_page(file)
        for way in ("*.xml", "*/*.xml")
        for file in itertools.islice(folder.glob(way), _LOOKED_AT)
    )


def read_pages(
    files: Iterable[Path], top: Path, split: str | None = None
) -> tuple[list[Line], list[str], set[Path]]:
    """Every line of text on pages that ALTO (2 to 4) or PAGE XML describes.

    A page's picture has the name that its file gives, or else that of the file itself,
    and lies beside it; where the file is in a folder page/ or alto/, also one higher.
    A line is cut out by its outline, else by its box. Its name is that of the file and
    its id, "page.xml#line_1", its group the picture.

    The text of ALTO is that of String, SP and HYP; without any SP, one space is between
    strings. The text of PAGE is that of the TextEquiv of the lowest index.

    Args:
      files: XML files.
      top: the folder that names start from.
      split: of all of them; None: to be dealt out.

    Returns:
      (lines, also those without a text; what was skipped; pictures of pages).
    """
    lines, faults, owners = [], [], {}
    for file in files:
        name = file.relative_to(top).as_posix()
        try:
            page = _parsed(file)
        except DataError as error:
            faults.append(f"skipped {error}")
            if picture := _picture(file, ""):
                owners.setdefault(picture, file)
            continue
        picture = _picture(file, page.picture)
        if picture is None:
            wanted = page.picture or f"{file.stem}.png"
            faults.append(f"skipped {file}: its picture {wanted!r} is not beside it")
            continue
        if (owner := owners.setdefault(picture, file)) != file:
            faults.append(f"left out {file}: {owner} is of {picture.name}, too")
            continue
        size = picture_size(picture)
        if size and page.size and size != page.size:
            faults.append(
                f"skipped {file}: is of a picture of {'x'.join(map(str, page.size))}, "
                f"but {picture.name} is {'x'.join(map(str, size))}"
            )
            continue
        if not page.lines:
            faults.append(f"left out {file}: it has no TextLine")
        for found in page.lines:
            label = f"{file}#{found.id}"
            if found.cut is None:
                faults.append(f"skipped {label}: has neither a box nor an outline")
                continue
            where = f"{name}#{found.id}"
            group = str(picture)
            line = Line(picture, found.text, label, where, split, group, found.cut)
            lines.append(line)
    return lines, faults, set(owners)


class _Tree(ElementTree.TreeBuilder):
    def doctype(self, *_: str | None) -> None:
        raise DataError("it has a DOCTYPE, whose entities are not resolved: remove it")


def _parsed(file: Path) -> _Page:
    if not is_page(file):
        raise DataError(f"{file}: neither ALTO nor PAGE XML")
    try:
        parser = ElementTree.XMLParser(target=_Tree())
        root = ElementTree.fromstring(file.read_bytes(), parser)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: not a readable XML file ({reason})") from error
    pages = root.findall(".//{*}Page")
    if len(pages) != 1:
        raise DataError(f"{file}: holds {len(pages)} pages; wanted is one in a file")
    if root.tag.endswith("PcGts"):
        lines = [
            _Found(line.get("id") or str(k), _page_text(line), _page_cut(line))
            for k, line in enumerate(pages[0].iterfind(".//{*}TextLine"), start=1)
        ]
        names = "imageHeight", "imageWidth"
        return _Page(pages[0].get("imageFilename", ""), _size(pages[0], *names), lines)
    unit = (root.findtext(".//{*}MeasurementUnit") or "pixel").strip()
    if unit != "pixel":
        raise DataError(f"{file}: its MeasurementUnit is {unit!r}; wanted is pixel")
    lines = [
        _Found(line.get("ID") or str(k), _alto_text(line), _alto_cut(line))
        for k, line in enumerate(pages[0].iterfind(".//{*}TextLine"), start=1)
    ]
    picture = root.findtext(".//{*}sourceImageInformation/{*}fileName") or ""
    return _Page(picture.strip(), _size(pages[0], "HEIGHT", "WIDTH"), lines)


def _size(page: Element, *names: str) -> tuple[int, int] | None:
    """(h, w) in pixels; None where it is not told."""
    size = [_number(page.get(name)) for name in names]
    return None if None in size else (round(size[0]), round(size[1]))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _picture(file: Path, name: str) -> Path | None:
    """The picture of a page by the name that its file gives, or by its own."""
    name = name.replace("\\", "/").rpartition("/")[2]
    folders = [file.parent]
    if file.parent.name.lower() in _BELOW:
        folders.append(file.parent.parent)
    suffixes = sorted(SUFFIXES)
    names = [file.stem + s for s in (*suffixes, *map(str.upper, suffixes))]
    names = [name, *names] if name else names
    places = (folder / each for each in names for folder in folders)
    return next((p for p in places if p.is_file() and p != file), None)


def _cut(points: list[tuple[float, float]]) -> Cut | None:
    if len(points) < 3:
        return None
    xs, ys = zip(*points, strict=True)
    corners = math.floor(min(xs)), math.floor(min(ys))
    return Cut((*corners, math.ceil(max(xs)), math.ceil(max(ys))), tuple(points))


def _points(text: str | None) -> list[tuple[float, float]]:
    """Numbers "x,y x,y" or "x y x y" as pairs."""
    values = [float(n) for n in _NUMBER.findall(text or "")]
    return list(zip(values[::2], values[1::2], strict=False))


def _page_cut(line: Element) -> Cut | None:
    coords = line.find("{*}Coords")
    if coords is None:
        return None
    # Until 2010 points were elements of their own.
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
        elif kind == "HYP":  # at the end, a soft hyphen is to be seen
            text += content.replace("\u00ad", "-") or "-"
    return text
