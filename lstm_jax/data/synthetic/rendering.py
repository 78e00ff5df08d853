"""Text lines, drawn offline to look like scans.

Each line is a function of (seed, split, index) and the list of fonts.
"""

import io
import re

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from lstm_jax.data.synthetic.fonts import Font, face, has_latin
from lstm_jax.data.synthetic.texts import as_printed, line_text

HEIGHT = 32  # height of a line, pixels
SPLITS = ("train", "test", "unseen_fonts")


def draw(
    text: str, font: Font, rng: np.random.Generator, around: tuple[str, ...] = ()
) -> np.ndarray:
    """Draws a text line, uint8 [32, W], dark on light.

    The augmentation varies the baseline of characters, slant, rotation, crop, blur,
    background brightness, noise, and binarization.

    Args:
      text: of the line.
      font: of all text.
      rng: source of randomness.
      around: empty, or the texts of the line above, the line below, and one on the back
        of the page: parts of them appear at the edges or show through, as in lines
        cropped from a book page; letters may be cut off, and words are spaced as in a
        justified line.
    """
    drawn = face(font.path, int(rng.integers(28, 38)))
    ascent, descent = drawn.getmetrics()
    margin, base = int(ascent), int(1.3 * ascent)
    spacing, as_set = rng.uniform(0, 1.5), rng.random() < 0.6
    parts = [text] if as_set else list(text)  # as one string: with kerning
    gap = 1.0
    if around and rng.random() < 0.5:  # justified
        gap = rng.uniform(0.7, 2.2)
        parts = re.split("( )", text) if as_set else parts
    advances = [
        drawn.getlength(part) * (gap if part == " " else 1) + spacing for part in parts
    ]
    width = int(sum(advances)) + 2 * margin
    canvas = Image.new("L", (width, base + 2 * int(descent) + 4))
    pen, x = ImageDraw.Draw(canvas), float(margin)
    tops = rng.normal(0, rng.uniform(0, 0.9), len(parts))
    for part, top, advance in zip(parts, tops, advances, strict=True):
        pen.text((x, base + top), part, 255, drawn, anchor="ls")
        x += advance
    shear = _shear(canvas, base, rng)
    canvas = _transformed(canvas, shear)
    box = _box(canvas, base, ascent, descent, rng)
    if around:
        others = Image.new("L", canvas.size)
        pen, pitch = ImageDraw.Draw(others), rng.uniform(1, 1.3) * (ascent + descent)
        for words, below in zip(around, (-pitch, pitch), strict=False):
            start = margin - rng.uniform(0, 2 * margin)
            pen.text((start, base + below), words, 255, drawn, anchor="ls")
        canvas = ImageChops.lighter(canvas, _transformed(others, shear))
        box = _as_torn(box, canvas, ascent, descent, rng)
        if rng.random() < 0.4:
            back = Image.new("L", canvas.size)
            at = margin, base + rng.uniform(-0.5, 0.5) * ascent
            ImageDraw.Draw(back).text(at, around[2], 255, drawn, anchor="ls")
            back = back.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            back = back.filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 2)))
            through = rng.uniform(0.05, 0.4)
            canvas = ImageChops.lighter(canvas, back.point(lambda v: v * through))
    canvas = _cut(canvas, box, rng)
    return _printed(np.asarray(canvas, np.float32) / 255, rng)


def _shear(canvas: Image.Image, base: int, rng: np.random.Generator) -> tuple:
    upright = rng.random() < 0.4
    slant = 0.0 if upright else rng.uniform(-0.03, 0.2)
    tilt, middle = rng.uniform(-0.008, 0.008), canvas.width / 2
    return 1, slant, -slant * base, tilt, 1, -tilt * middle


def _transformed(canvas: Image.Image, shear: tuple) -> Image.Image:
    return canvas.transform(
        canvas.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR
    )


def _box(
    canvas: Image.Image,
    base: int,
    ascent: int,
    descent: int,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """The crop of the line, with some background around it."""
    left, highest, right, lowest = canvas.getbbox() or (0, base - 8, 8, base)
    sides = rng.integers(1, 8, 2)
    above, below = rng.integers(0, 8, 2)
    if rng.random() < 0.3:  # tight around the ink, as in manual crops
        above, below = (above + 1) // 2, (below + 1) // 2
        top, bottom = min(highest, base - int(0.75 * ascent)), max(lowest, base)
    else:
        top, bottom = base - ascent, base + descent
    return (
        max(left - int(sides[0]), 0),
        max(top - int(above), 0),
        min(right + 1 + int(sides[1]), canvas.width),
        min(bottom + int(below), canvas.height),
    )


def _as_torn(
    box: tuple[int, int, int, int],
    canvas: Image.Image,
    ascent: int,
    descent: int,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Shifts the crop, so that it includes parts of other lines or cuts off its own."""
    left, top, right, bottom = box
    top -= round(rng.uniform(-0.12, 0.3) * ascent)
    bottom += round(rng.uniform(-0.5, 0.9) * descent)
    return left, max(top, 0), right, min(bottom, canvas.height)


def _cut(
    canvas: Image.Image, box: tuple[int, int, int, int], rng: np.random.Generator
) -> Image.Image:
    """The crop, scaled to 32 pixels height."""
    canvas = canvas.crop(box)
    if rng.random() < 0.1:  # bleeding ink
        wide = canvas.filter(ImageFilter.MaxFilter(3))
        canvas = Image.blend(canvas, wide, rng.uniform(0.2, 0.6))
    stretched = canvas.width * rng.uniform(0.88, 1.12)
    columns = max(round(stretched * HEIGHT / canvas.height), 8)
    canvas = canvas.resize((columns, HEIGHT), Image.Resampling.BILINEAR)
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))


def _printed(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Composes ink in [0, 1] on paper, uint8."""
    height, width = ink.shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    down, across, wave = rng.uniform(-14, 14, 3)
    paper = rng.uniform(185, 255) + down * y + across * x
    paper = paper + wave * np.sin(x * rng.uniform(2, 9) + rng.uniform(0, 6))
    dark = rng.uniform(0, 90)
    page = paper + (dark - paper) * ink
    page += rng.uniform(0, 10) * rng.standard_normal(ink.shape, np.float32)
    if rng.random() < 0.1:  # binarized
        page = np.where(page < (paper + dark) / 2, 0, 255)
    return np.clip(np.round(page), 0, 255).astype(np.uint8)


def line(
    split: str, index: int, fonts: list[Font], *, paged: float = 0.0
) -> tuple[np.ndarray, str, Font]:
    """Text line number `index` of a split.

    Args:
      split: one of `SPLITS`.
      index: at least 0.
      fonts: of the split, from `fonts_of`.
      paged: probability of neighbouring lines; above 0, the text also contains
        characters of `fonts.LATIN`, if the font has them.

    Returns:
      (uint8 [32, W], text, font).
    """
    rng = np.random.default_rng([0, SPLITS.index(split), index])
    family = rng.choice(sorted({font.family for font in fonts}))
    styles = [font for font in fonts if font.family == family]
    font = styles[int(rng.integers(len(styles)))]
    text, around = line_text(rng, split), ()
    if paged and rng.random() < paged:
        around = tuple(line_text(rng, split) for _ in range(3))
    if paged and has_latin(font):
        text = as_printed(text, rng)
    return draw(text, font, rng, around), text, font


def line_file(
    split: str, fonts: list[Font], paged: float, index: int
) -> tuple[bytes, str, Font]:
    """As `line`, with the image as bytes of a PNG file."""
    image, text, font = line(split, index, fonts, paged=paged)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", compress_level=1)
    return file.getvalue(), text, font
