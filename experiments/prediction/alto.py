"""Recognised lines as files: plain text and ALTO XML."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from experiments.terminal import printable
from lstm_jax import data

ALTO = "http://www.loc.gov/standards/alto/ns-v4#"


def as_text(predictions: Sequence[dict[str, Any]]) -> str:
    """One line of text for each image, in order; empty for an unreadable file."""
    return "".join(row.get("text", "") + "\n" for row in predictions)


def _words(characters: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Characters grouped into words, split at spaces."""
    words: list[list[dict[str, Any]]] = [[]]
    for one in characters:
        if one["character"] == " ":
            words.append([])
        else:
            words[-1].append(one)
    return [word for word in words if word]


class Word(NamedTuple):
    """A recognised word: its text, confidence, and first and last column in pixels."""

    text: str
    confidence: float
    x: tuple[float, float]


def words_of(prediction: dict[str, Any]) -> list[Word]:
    """Words of a line in reading order."""
    words = _words(prediction["characters"])
    read = [data.logical("".join(one["character"] for one in w)) for w in words]
    written = prediction["text"].split()
    if sorted(written) == sorted(read) and written != read:
        words, read = words[::-1], read[::-1]  # from right to left
    return [
        Word(
            text,
            float(np.mean([one["confidence"] for one in word])),
            (word[0]["x"][0], word[-1]["x"][1]),
        )
        for text, word in zip(read, words, strict=True)
    ]


def as_alto(predictions: Sequence[dict[str, Any]]) -> str:
    """ALTO 4 XML with one page of one line for each image.

    Args:
      predictions: as `predict` returns them.
    """
    ElementTree.register_namespace("", ALTO)
    root = ElementTree.Element(f"{{{ALTO}}}alto")

    def add(parent, name: str, text: str | None = None, **attributes: Any):
        made = ElementTree.SubElement(parent, f"{{{ALTO}}}{name}")
        made.text = text
        for key, value in attributes.items():
            made.set(key, f"{value:.3f}" if isinstance(value, float) else str(value))
        return made

    described = add(root, "Description")
    add(described, "MeasurementUnit", "pixel")
    source = add(described, "sourceImageInformation")
    layout = add(root, "Layout")
    for number, row in enumerate(predictions):
        add(source, "fileIdentifier", printable(row["path"]))
        page = add(layout, "Page", ID=f"page_{number}", PHYSICAL_IMG_NR=number + 1)
        if "error" in row:
            continue
        width, high = row["size"]
        place = dict(HPOS=0, VPOS=0, WIDTH=width, HEIGHT=high)
        page.set("WIDTH", str(width))
        page.set("HEIGHT", str(high))
        block = add(add(page, "PrintSpace"), "TextBlock", ID=f"block_{number}")
        line = add(block, "TextLine", ID=f"line_{number}", **place)
        for number_of_word, word in enumerate(words_of(row)):
            if number_of_word:
                add(line, "SP")
            left, right = word.x
            place = dict(HPOS=left, VPOS=0, WIDTH=right - left, HEIGHT=high)
            add(line, "String", CONTENT=word.text, WC=word.confidence, **place)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"
