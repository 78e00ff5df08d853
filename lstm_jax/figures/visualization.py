"""Masks and boxes drawn on images, and grids of images."""

import io

import numpy as np

from lstm_jax.figures.style import BLUE, INK, QUIET, figure, safe, text_color, tidy
from lstm_jax.targets import CLASS, VOID

PALETTE = np.array(
    [
        *((0, 0, 0), (230, 97, 1), (94, 160, 255), (0, 158, 115), (240, 228, 66)),
        *((204, 121, 167), (86, 180, 233), (213, 94, 0), (178, 223, 138)),
        *((202, 178, 214), (251, 154, 153), (255, 255, 153), (141, 211, 199)),
    ],
    np.uint8,
)
TRUE = (255, 255, 255)
LETTERS = 12  # smallest height of a label's letters, pixels
_SMALL = 192  # images whose shorter side is below are magnified, pixels


def magnification(size: tuple[int, int]) -> int:
    """The integer factor by which an image of (H, W) is enlarged so that labels on it
    are legible; 1 unless its shorter side is below 192 pixels."""
    return -(-_SMALL // max(min(_SMALL, *size), 1))


def class_color(label: int) -> tuple[int, int, int]:
    """RGB colour of a class; colours repeat from class 13 on."""
    last = len(PALETTE) - 1
    return tuple(map(int, PALETTE[label if label <= last else 1 + (label - 1) % last]))


def encode_png(image) -> bytes:
    """An image, uint8 [H, W, 3] or a Pillow image, encoded as PNG."""
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, format="PNG")
    return file.getvalue()


def encode_mask(mask: np.ndarray) -> bytes:
    """A mask [H, W] as a palette PNG whose pixel values are class indices."""
    from PIL import Image

    image = Image.fromarray(np.asarray(mask, np.uint8))
    image.putpalette(np.array([class_color(k) for k in range(256)], np.uint8).tobytes())
    return encode_png(image)


def overlay_mask(
    image: np.ndarray, mask: np.ndarray, scale: int = 4, *, classes=None
) -> np.ndarray:
    """Overlays an image, or each frame of a clip, with the colours of its classes.

    Args:
      image: uint8 [H, W, C] or [T, H, W, C].
      mask: class indices [H, W] or [T, H, W]; 0 and 255 are transparent.
      scale: s, integer magnification.
      classes: class names, written on their pixels with the share that these have of
        the image; None: not written.

    Returns:
      uint8 [s H, s W, 3] or [T, s H, s W, 3].
    """
    if np.ndim(image) == 4:
        frames = zip(image, mask, strict=True)
        return np.stack([overlay_mask(p, m, scale, classes=classes) for p, m in frames])
    clear, labels = canvas(image, scale), np.asarray(mask)
    mask = labels.repeat(scale, 0).repeat(scale, 1)
    for label in np.unique(labels):
        if 0 < label < VOID:
            inside = mask == label
            mixed = 0.35 * clear[inside] + 0.65 * np.array(class_color(int(label)))
            clear[inside] = np.rint(mixed).astype(np.uint8)
    return clear if classes is None else _named(clear, labels, classes, scale)


def _named(image, mask, classes, scale: int):
    """Writes the name and the share of each class on one of its pixels."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(image)
    pen = ImageDraw.Draw(image)
    for label in np.unique(mask):
        if 0 < label < min(len(classes), VOID):
            ys, xs = np.nonzero(mask == label)
            middle = np.abs(ys - ys.mean()) + np.abs(xs - xs.mean())
            at = int(middle.argmin())
            words = f"{classes[label]} {100 * len(ys) / mask.size:.1f} %"
            color = class_color(int(label))
            _label(pen, words, xs[at] * scale, ys[at] * scale, color, image.size)
    return np.asarray(image)


def overlay_boxes(
    image: np.ndarray, boxes, classes, *, truth=None, scale: int = 4
) -> np.ndarray:
    """Draws boxes with class names and scores on an image, or on each frame of a clip.

    Args:
      image: uint8 [H, W, C] or [T, H, W, C].
      boxes: [Q, 6] or [T, Q, 6], corners in pixels, score, class; only boxes with a
        score of at least 0.5 are drawn.
      classes: class names.
      truth: [M, 7] or [T, M, 7], boxes as in `data.Split`, drawn thin and white; None:
        unknown.
      scale: s, integer magnification.

    Returns:
      uint8 [s H, s W, 3] or [T, s H, s W, 3].
    """
    if np.ndim(image) == 4:
        truth = [None] * len(image) if truth is None else truth
        frames = zip(image, boxes, truth, strict=True)
        return np.stack(
            [overlay_boxes(p, b, classes, truth=t, scale=scale) for p, b, t in frames]
        )
    from PIL import Image, ImageDraw

    from lstm_jax.metrics.boxes import SCORE_THRESHOLD

    image = Image.fromarray(canvas(image, scale))
    pen = ImageDraw.Draw(image)
    for row in () if truth is None else truth:
        if row[CLASS] >= 0:
            pen.rectangle([*_edges(row[:4], scale)], outline=TRUE, width=1)
    drawn = [row for row in boxes if row[4] >= SCORE_THRESHOLD]
    for row in drawn:
        color = class_color(int(row[5]) + 1)
        width = max(2, round(min(image.size) / 250))
        pen.rectangle([*_edges(row[:4], scale)], outline=color, width=width)
    for row in drawn:  # above all boxes
        if name := str(classes[int(row[5])]):
            x0, y0, *_ = _edges(row[:4], scale)
            color = class_color(int(row[5]) + 1)
            _label(pen, f"{name} {row[4]:.2f}", x0, y0, color, image.size)
    return np.asarray(image)


def _label(pen, text: str, x: float, y: float, color, size: tuple[int, int]) -> None:
    """Text on a plate of a colour above a corner, or below it at the image's edge."""
    from PIL import ImageFont

    from lstm_jax.figures.fonts import font_runs

    letters = max(LETTERS, round(min(size) / 40))
    runs = [(ImageFont.truetype(path, letters), part) for path, part in font_runs(text)]
    wide = round(sum(font.getlength(part) for font, part in runs)) + 4
    tall = round(letters * 4 / 3)
    x = max(min(round(x), size[0] - wide), 0)
    y = round(y - tall if y >= tall else max(y, 0))
    pen.rectangle([x, y, x + wide - 1, y + tall - 1], fill=color)
    ink = text_color([c / 255 for c in color])
    x += 2
    for font, part in runs:
        pen.text((x, y + letters), part, fill=ink, font=font, anchor="ls")
        x += font.getlength(part)


def _edges(corners, scale):
    x0, y0, x1, y1 = (float(v) * scale for v in corners)
    return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)


def canvas(image, scale: int):
    """An image uint8 [H, W, C] enlarged by the integer `scale`, as RGB."""
    image = np.asarray(image, np.uint8)
    if image.shape[-1] != 3:
        image = np.rint(image.mean(-1, keepdims=True)).astype(np.uint8)
    rgb = np.broadcast_to(image, (*image.shape[:2], 3))
    return np.ascontiguousarray(rgb.repeat(scale, 0).repeat(scale, 1))


def to_uint8(frame):
    """A frame [H, W, C], uint8 or in [0, 1], as uint8 [H, W], or [H, W, 3] if RGB."""
    if frame.dtype != np.uint8:
        frame = np.rint(np.clip(np.float32(frame), 0, 1) * 255).astype(np.uint8)
    if frame.shape[-1] == 3:
        return frame
    return np.rint(frame.mean(-1)).astype(np.uint8)


def image_rows(rows, *, title: str):
    """Rows of images, each with a heading.

    Args:
      rows: [(heading, [(image uint8 [H, W, 3], caption), ...]), ...].
      title: of the figure.

    Returns:
      A Figure.
    """
    across = max(len(images) for _, images in rows)
    fig = figure(0.3 + 1.9 * across, 0.5 + 2.45 * len(rows), pad=0.04)
    fig.suptitle(title, color=INK, fontsize=12)
    parts = fig.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (heading, images) in zip(parts, rows, strict=True):
        part.suptitle(heading, color=QUIET, fontsize=10, x=0.01, ha="left")
        axes = part.subplots(1, across, squeeze=False)[0]
        for ax in axes:
            ax.set_axis_off()
        for ax, (image, caption) in zip(axes, images, strict=False):
            ax.imshow(image, interpolation="nearest")
            ax.set_title(safe(caption, 28), fontsize=9, color=INK)
    return fig


def bar_chart(values, title: str):
    """Horizontal bars of fractions by name, in the given order; None has no bar."""
    names = list(values)
    fig = figure(6.4, 0.9 + 0.27 * len(names))
    ax = fig.add_subplot()
    tidy(ax)
    heights = [values[name] or 0.0 for name in names]
    ax.barh(range(len(names)), heights, color=BLUE, height=0.7)
    for place, name in enumerate(names):
        value = values[name]
        words = "does not occur" if value is None else f"{value:.3f}"
        ax.text((value or 0.0) + 0.01, place, words, va="center", fontsize=9, color=INK)
    ax.set_yticks(range(len(names)), [safe(name) for name in names])
    ax.set(xlim=(0, 1.12), title=title)
    ax.invert_yaxis()
    return fig


def image_grid(images, captions, *, title: str):
    """A grid of images with captions.

    Args:
      images: uint8 [N, H, W, C]; one or two channels are drawn grey (their mean),
        three as RGB.
      captions: N texts; line breaks are kept.
      title: of the figure.

    Returns:
      A Figure.
    """
    across = min(len(images), 6)
    down = -(-len(images) // across)
    lines = max(caption.count("\n") + 1 for caption in captions)
    height, width = images.shape[1:3]
    tall = float(np.clip(1.45 * height / width, 0.6, 3.0)) + 0.2 * lines
    fig = figure(0.4 + 1.8 * across, 0.6 + (tall + 0.15) * down)
    fig.suptitle(title, color=INK)
    axes = fig.subplots(down, across, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, image, caption in zip(axes, images, captions, strict=False):
        ax.imshow(to_uint8(image), cmap="gray", vmin=0, vmax=255)
        text = "\n".join(safe(line, 26) for line in caption.split("\n"))
        ax.set_title(text, fontsize=9, color=INK)
    return fig
