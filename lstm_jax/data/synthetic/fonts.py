"""Fonts to draw lines of text with: those inside Python packages, and the system's."""

import functools
import importlib.metadata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFont

SYMBOLS = "".join(map(chr, range(32, 127)))  # 95, the space among them
# Of western Europe's languages, and the marks of its printers: 75.
LATIN = (
    "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒ" + "‘’“”„–—«»¡¿£€§°"
)
_NOWHERE = "\U000e0fff"  # stands for nothing
# The first comes with Matplotlib, so that one always is.
HELD_OUT = "STIXGeneral", "Lato"
_THIN = "Thin", "Hairline", "ExtraLight", "Extra Light", "UltraLight"
_TELLING = "adghqruwyDFGJLQRSUVW"  # which other alphabets draw otherwise
_MODELS = "DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "STIXGeneralItalic.ttf"
_LIKE = (
    0.25  # correlation with a model: of 268 Latin fonts 0.31 or more, of others 0.19
)


class Font(NamedTuple):
    """A font's file, and its name: "DejaVu Sans", "Bold"."""

    path: str
    family: str
    style: str

    @property
    def name(self) -> str:
        return f"{self.family} {self.style}"


def find_fonts(where: str = "matplotlib") -> list[Font]:
    """Fonts that can draw all symbols, by name, one file of each.

    Left out are the thinnest, which a blur leaves nothing of, and those that Matplotlib
    calls cm*.ttf, whose codes are TeX's, not Unicode's.

    Args:
      where: "matplotlib" for those that it brings, the same everywhere; "all" for those
        of Python packages called font-something or ttf-something, too, which
        `pip install lstm_jax[fonts]` brings, and of the system.
    """
    known = [_shapes(_matplotlib(name)) for name in _MODELS]
    found: dict[str, Font] = {}
    for file in font_files(where):
        try:
            family, style = ImageFont.truetype(file, 24).getname()
        except (OSError, ValueError):
            continue
        font = Font(str(file), str(family), str(style))
        thin = any(word in font.name for word in _THIN)
        if font.name not in found and not thin and _is_latin(file, known):
            found[font.name] = font
    return [found[name] for name in sorted(found)]


def font_files(where: str) -> list[Path]:
    """Files in which `find_fonts` looks; it opens each, which takes seconds."""
    files = _of_matplotlib()
    if where == "all":
        from matplotlib.font_manager import findSystemFonts

        files += [*_packaged(), *sorted(map(Path, findSystemFonts()))]
    return files


def is_held_out(font: Font) -> bool:
    """Whether a font is of the split unseen_fonts, with all others of its typeface."""
    face = font.family.split()[0]
    return face in HELD_OUT or zlib.crc32(face.encode()) % 4 == 0


def fonts_of(split: str, fonts: list[Font]) -> list[Font]:
    """Those that a split is drawn with."""
    return [font for font in fonts if is_held_out(font) == (split == "unseen_fonts")]


@functools.lru_cache(maxsize=1024)
def face(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font's file at a size in pixels."""
    return ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=1024)
def has_latin(font: Font) -> bool:
    """Whether a font has a shape of its own for each of `LATIN`, or for all but one."""
    drawn = face(font.path, 32)
    shapes = {(mask.size, bytes(mask)) for mask in map(drawn.getmask, LATIN)}
    nothing = drawn.getmask(_NOWHERE)
    return len(shapes - {(nothing.size, bytes(nothing))}) >= len(LATIN) - 1


def _matplotlib(name: str) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", name)


def _of_matplotlib() -> list[Path]:
    files = sorted(_matplotlib("").glob("*.ttf"))
    return [file for file in files if not file.name.startswith("cm")]


def _packaged() -> Iterator[Path]:
    packages = {d.name.lower(): d for d in importlib.metadata.distributions() if d.name}
    for name in sorted(packages):
        if name.startswith(("font-", "font_", "ttf-", "ttf_")):
            files = packages[name].files or ()
            fonts = (file for file in files if file.suffix in (".ttf", ".otf"))
            yield from sorted(Path(file.locate()) for file in fonts)


def _is_latin(file: Path, known: list[np.ndarray]) -> bool:
    """Whether a font has a shape of its own for each symbol, or for all but a few.

    A symbol that is not there gives an empty box, the same for all; and fonts of
    pictures, or of other alphabets, put them where Latin letters should be.
    """
    try:
        font = ImageFont.truetype(file, 32)
        drawn = {(mask.size, bytes(mask)) for mask in map(font.getmask, SYMBOLS[1:])}
        if len(drawn) < len(SYMBOLS) - 3:
            return False
        shapes = _shapes(file)
        return any((shapes * one).sum((1, 2)).mean() > _LIKE for one in known)
    except (OSError, ValueError):
        return False


def _shapes(file: Path) -> np.ndarray:
    """Telling letters, each in its own box of 16x16, of mean 0 and norm 1."""
    font, shapes = ImageFont.truetype(file, 40), []
    for letter in _TELLING:
        mask = font.getmask(letter)
        image = Image.frombytes("L", mask.size, bytes(mask))
        pixels = np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.float64)
        pixels = pixels - pixels.mean()
        shapes.append(pixels / max(float(np.linalg.norm(pixels)), 1e-9))
    return np.stack(shapes)
