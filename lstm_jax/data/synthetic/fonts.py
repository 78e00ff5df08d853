"""Fonts for drawing text lines, from Python packages and from the system."""

import functools
import importlib.metadata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFont

SYMBOLS = "".join(map(chr, range(32, 127)))  # 95 characters, including the space
# Letters of western European languages, and typographic marks: 75.
LATIN = (
    "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒ" + "‘’“”„–—«»¡¿£€§°"
)
_NOWHERE = "\U000e0fff"  # a code point that no font has
# The first comes with Matplotlib, so it is always installed.
HELD_OUT = "STIXGeneral", "Lato"
_THIN = "Thin", "Hairline", "ExtraLight", "Extra Light", "UltraLight"
_TELLING = "adghqruwyDFGJLQRSUVW"  # letters whose shapes identify a Latin font
_MODELS = "DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "STIXGeneralItalic.ttf"
_LIKE = (
    0.25  # correlation with a model: of 268 Latin fonts 0.31 or more, of others 0.19
)


class Font(NamedTuple):
    """A font file and the font's name, such as "DejaVu Sans", "Bold"."""

    path: str
    family: str
    style: str

    @property
    def name(self) -> str:
        return f"{self.family} {self.style}"


def find_fonts(where: str = "matplotlib") -> list[Font]:
    """Fonts that contain all `SYMBOLS`, sorted by name, one file per name.

    Excluded are the thinnest fonts, which blurring would erase, and Matplotlib's
    cm*.ttf, whose codes are TeX's instead of Unicode's.

    Args:
      where: "matplotlib" for the fonts that it ships, the same on every machine; "all"
        also for the system's fonts and those of Python packages called font-* or
        ttf-*, which `pip install lstm_jax[fonts]` installs.
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
    """Files that `find_fonts` examines; it opens each, which takes seconds."""
    files = _of_matplotlib()
    if where == "all":
        from matplotlib.font_manager import findSystemFonts

        files += [*_packaged(), *sorted(map(Path, findSystemFonts()))]
    return files


def is_held_out(font: Font) -> bool:
    """Whether a font's typeface is reserved for the split unseen_fonts."""
    face = font.family.split()[0]
    return face in HELD_OUT or zlib.crc32(face.encode()) % 4 == 0


def fonts_of(split: str, fonts: list[Font]) -> list[Font]:
    """The fonts used in a split."""
    return [font for font in fonts if is_held_out(font) == (split == "unseen_fonts")]


@functools.lru_cache(maxsize=1024)
def face(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Loads a font at a size in pixels."""
    return ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=1024)
def has_latin(font: Font) -> bool:
    """Whether a font has a distinct shape for every character of `LATIN` but one."""
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
    """Whether a font has a distinct shape for nearly every symbol.

    Missing symbols all show the same empty box. Fonts of pictograms or of other
    alphabets put their own shapes where Latin letters belong.
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
    """The letters `_TELLING`, each scaled to 16x16, with mean 0 and norm 1."""
    font, shapes = ImageFont.truetype(file, 40), []
    for letter in _TELLING:
        mask = font.getmask(letter)
        image = Image.frombytes("L", mask.size, bytes(mask))
        pixels = np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.float64)
        pixels = pixels - pixels.mean()
        shapes.append(pixels / max(float(np.linalg.norm(pixels)), 1e-9))
    return np.stack(shapes)
