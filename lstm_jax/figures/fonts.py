"""Fonts for characters that the default font does not have, from those installed."""

import functools
import re
import warnings
from pathlib import Path
from typing import Any

from matplotlib import font_manager, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

# their characters are placeholders, or are not what their numbers say
_NOT_TEXT = re.compile(
    "Last ?Resort|Unicode BMP Fallback|Adobe Blank|^cm[a-z]+10$|^STIX(NonUni|Size)"
)


class FallbackFigure(Figure):
    """A Figure whose texts take each character from an installed font that has it.

    A character that no installed font has is a placeholder; `missing_note` names it.
    """

    missing: str = ""

    def draw(self, renderer: Any) -> None:
        """Draws the figure, after the fonts of its texts are chosen."""
        for ax in self.findobj(Axes):  # writes the labels of the ticks
            ax.get_xticklabels(), ax.get_yticklabels()
        for text in self.findobj(Text):
            use_fallback(text, self)
        with warnings.catch_warnings():
            for character in self.missing:  # `missing_note` tells them in one line
                message = rf"Glyph {ord(character)} \("
                warnings.filterwarnings("ignore", message)
            super().draw(renderer)


def use_fallback(text: Text, figure: FallbackFigure) -> None:
    """Chooses the fonts of one text by its characters; records those missing."""
    words = text.get_text()
    if words.isascii():
        return
    families, missing = font_families(words)
    if len(families) > len(rcParams["font.family"]):
        text.set_fontfamily(list(families))
        text.set_fontweight("normal")  # few fonts of other scripts have a bold one
    if missing:
        figure.missing = "".join(sorted({*figure.missing, *missing}))


def missing_note(figure: Figure) -> str:
    """One line about characters of a drawn figure that no installed font has, or ""."""
    missing = getattr(figure, "missing", "")
    if not missing:
        return ""
    names = [c if c.isprintable() else f"U+{ord(c):04X}" for c in missing[:8]]
    shown = " ".join(names) + (" …" if len(missing) > 8 else "")
    return (
        f"No installed font has {shown}: install one that does, such as Noto Sans CJK "
        "for Chinese, Japanese and Korean."
    )


def font_families(text: str) -> tuple[tuple[str, ...], str]:
    """Font families that together have the characters of a text.

    Args:
      text: any string; white space needs no font.

    Returns:
      Matplotlib's default families and what the text needs besides them, in order of
      preference; and the characters that no installed font has.
    """
    return _families(frozenset(c for c in text if not c.isspace()))


def font_runs(text: str) -> list[tuple[str, str]]:
    """A text in parts that one font file can draw: (path, part), for Pillow.

    A character that no installed font has is □.
    """
    families, missing = font_families(text)
    paths = [_path(family) for family in families]
    runs: list[tuple[str, str]] = []
    for character in text.translate({ord(c): "□" for c in missing}):
        code = ord(character)
        path = next((p for p in paths if code in _characters(p)), paths[0])
        if runs and runs[-1][0] == path:
            path, before = runs.pop()
            character = before + character
        runs.append((path, character))
    return runs


@functools.lru_cache(maxsize=4096)
def _families(characters: frozenset[str]) -> tuple[tuple[str, ...], str]:
    families = list(rcParams["font.family"])
    left = {c for c in characters if ord(c) not in _characters(_path(families[0]))}
    if not left:
        return tuple(families), ""
    for name, path in _installed():
        found = {c for c in left if ord(c) in _characters(path)}
        if found:
            families.append(name)
            left -= found
        if not left:
            break
    return tuple(families), "".join(sorted(left))


@functools.cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Names and files of the upright fonts of usual weight, sans serif first."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():  # installed after Matplotlib's list
        if path not in known:
            try:
                manager.addfont(path)
            except Exception:  # not a font that FreeType can open
                continue
    fonts = {
        entry.name: entry.fname
        for entry in manager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular", "book")
        and Path(entry.fname).exists()
        and not _NOT_TEXT.search(entry.name)
    }
    return tuple(sorted(fonts.items(), key=lambda font: ("Sans" not in font[0], font)))


def _path(family: str) -> str:
    return font_manager.findfont(font_manager.FontProperties(family=[family]))


@functools.lru_cache(maxsize=512)
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()
