"""Writes recognised text into copies of ALTO or PAGE XML files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.dom import minidom
from xml.dom.minidom import Document, Element

from experiments.errors import UsageError
from experiments.prediction.alto import words_of
from experiments.prediction.lines import XML, text_files
from experiments.run import record
from lstm_jax.data import DataError

_AFTER_TEXT = ("TextStyle", "UserDefined", "Labels")  # in the order of PAGE's schema


def by_page(predictions: Sequence[dict[str, Any]]) -> dict[Path, list[dict[str, Any]]]:
    """The recognised lines of each XML file; drops predictions for images of lines."""
    pages: dict[Path, list[dict[str, Any]]] = {}
    for row in predictions:
        if "page" in row:
            pages.setdefault(Path(row["page"]), []).append(row)
    return pages


def check_out(out: Path, paths: Sequence[str | Path]) -> None:
    """Checks that the copies of XML files can be written to `--out`.

    Raises:
      UsageError: several files for one .xml; images of lines, or two XML files of the
        same name, for a folder; or a copy would overwrite its original.
    """
    folder = not out.suffix or out.is_dir()
    if not folder and out.suffix != XML:
        return
    files, given = [], [Path(path).expanduser() for path in paths]
    for path in filter(Path.exists, given):
        try:
            files += text_files([path])
        except DataError:  # reported as the prediction of this path
            continue
    pages = [file for file in files if file.suffix.lower() == XML]
    if folder and (other := next((f for f in files if f not in pages), None)):
        raise UsageError(
            f"--out={out}: a folder is for copies of ALTO or PAGE XML, and {other} has "
            "no XML; give a .txt, .jsonl, .csv or .xml file"
        )
    if not folder and pages and len(files) > 1:
        raise UsageError(
            f"--out={out}: one .xml file holds one page, but {len(files)} files are "
            f"given, such as {files[0]}; give a folder, such as "
            f"--out={out.with_suffix('')}"
        )
    targets = [out] if not folder else [out / page.name for page in pages]
    for page, target in zip(pages, targets, strict=False):
        if target.exists() and target.samefile(page):
            raise UsageError(f"--out={out} would overwrite {page}; give another path")
    names = Counter(page.name for page in pages)
    if folder and (twice := [name for name, count in names.items() if count > 1]):
        raise UsageError(
            f"--out={out}: {twice[0]} is the name of several XML files; predict each "
            "of their folders separately"
        )


def save(predictions: list[dict[str, Any]], folder: Path) -> None:
    """Writes the copies to a folder, under the names of the original XML files.

    Raises:
      DataError: a file could not be transcribed; the others have been written.
    """
    failed = None
    for file, rows in by_page(predictions).items():
        try:
            text = transcribed(file, rows)
        except DataError as error:
            failed = failed or error
            continue
        record.write_bytes(folder / file.name, text.encode())
    if failed:
        raise failed


def transcribed(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    """The XML of a page, with its text replaced by the recognised text.

    ALTO: String, SP and HYP elements of a line are replaced, with positions and
    confidences of words. PAGE: the TextEquiv of a line is replaced and its Words are
    removed, because they hold the previous text; the TextEquiv of a region becomes
    the text of its lines. Lines that were not recognised stay unchanged.

    Args:
      file: an ALTO or PAGE XML file, as `read_pages` accepts it.
      rows: predictions for its lines.

    Raises:
      DataError: two lines have the same id.
    """
    document = minidom.parse(str(file))
    page = document.documentElement.localName == "PcGts"
    lines: dict[str, Element] = {}
    found = document.getElementsByTagNameNS("*", "TextLine")
    for number, line in enumerate(found, start=1):
        name = line.getAttribute("id" if page else "ID") or str(number)
        if lines.setdefault(name, line) is not line:
            raise DataError(
                f"{file}: two TextLines have the id {name!r}; give each a unique id"
            )
    changed = set()
    for row in rows:
        if "text" in row:
            line = lines[row["line"]]
            (_into_page if page else _into_alto)(document, line, row)
            changed.add(line.parentNode)
    for region in changed if page else ():
        _into_region(document, region)
    return document.toxml(encoding="UTF-8").decode() + "\n"


def _children(element: Element, *names: str) -> list[Element]:
    return [n for n in element.childNodes if n.localName in names]


def _made(document: Document, like: Element, name: str, **attributes: Any) -> Element:
    """An empty element in the namespace of another, with its prefix."""
    prefix = f"{like.prefix}:" if like.prefix else ""
    made = document.createElementNS(like.namespaceURI, prefix + name)
    for key, value in attributes.items():
        made.setAttribute(key, str(value))
    return made


def _into_page(document: Document, line: Element, row: dict[str, Any]) -> None:
    for old in _children(line, "Word", "TextEquiv"):
        line.removeChild(old)
    _add_text(document, line, row["text"], conf=f"{row['confidence']:.3f}")


def _into_region(document: Document, region: Element) -> None:
    """Replaces the text of a region, if it has any, by the text of its lines."""
    if not _children(region, "TextEquiv"):
        return
    texts = list(_texts(region))
    for old in _children(region, "TextEquiv"):
        region.removeChild(old)
    _add_text(document, region, "\n".join(texts))


def _texts(region: Element) -> Iterator[str]:
    """The text of each line of a region, from its first TextEquiv."""
    for line in _children(region, "TextLine"):
        for equivalent in _children(line, "TextEquiv")[:1]:
            for part in _children(equivalent, "Unicode"):
                yield "".join(
                    n.data for n in part.childNodes if n.nodeType == n.TEXT_NODE
                )


def _add_text(
    document: Document, parent: Element, text: str, **attributes: str
) -> None:
    equivalent = _made(document, parent, "TextEquiv", **attributes)
    content = _made(document, parent, "Unicode")
    content.appendChild(document.createTextNode(text))
    equivalent.appendChild(content)
    after = _children(parent, *_AFTER_TEXT)
    parent.insertBefore(equivalent, after[0] if after else None)


def _into_alto(document: Document, line: Element, row: dict[str, Any]) -> None:
    for old in _children(line, "String", "SP", "HYP"):
        line.removeChild(old)
    x0, y0, _, y1 = row["box"]
    for number, word in enumerate(words_of(row)):
        left, right = (x0 + round(x) for x in word.x)
        if number:
            line.appendChild(_made(document, line, "SP"))
        place = dict(HPOS=left, VPOS=y0, WIDTH=right - left, HEIGHT=y1 - y0)
        text = dict(CONTENT=word.text, WC=f"{word.confidence:.3f}")
        line.appendChild(_made(document, line, "String", **place, **text))
