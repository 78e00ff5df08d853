"""Pictures of answers with a place: masks and boxes on what the network saw."""

import io

import numpy as np

from lstm_jax.tasks.boxes import CLASS
from lstm_jax.tasks.detection import SURE

PALETTE = np.array(
    [
        *((0, 0, 0), (230, 97, 1), (94, 160, 255), (0, 158, 115), (240, 228, 66)),
        *((204, 121, 167), (86, 180, 233), (213, 94, 0), (178, 223, 138)),
        *((202, 178, 214), (251, 154, 153), (255, 255, 153), (141, 211, 199)),
    ],
    np.uint8,
)
TRUE = (255, 255, 255)


def color(label: int) -> tuple[int, int, int]:
    """Of a class; classes above 12 share colours with others."""
    last = len(PALETTE) - 1
    return tuple(map(int, PALETTE[label if label <= last else 1 + (label - 1) % last]))


def png(picture: np.ndarray) -> bytes:
    """A picture uint8 [H, W, 3] as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask [h, w] as [H, W], each pixel the nearest."""
    from PIL import Image

    image = Image.fromarray(np.asarray(mask, np.uint8))
    return np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST))


def mask_png(mask: np.ndarray) -> bytes:
    """A mask [H, W] as a PNG with a palette: its pixels are the classes."""
    from PIL import Image

    image = Image.fromarray(np.asarray(mask, np.uint8))
    image.putpalette(np.array([color(k) for k in range(256)], np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def with_mask(picture: np.ndarray, mask: np.ndarray, scale: int = 4) -> np.ndarray:
    """A picture [H, W, C] under the colours of its classes, uint8 [s H, s W, 3]."""
    canvas = _canvas(picture, scale)
    mask = np.asarray(mask).repeat(scale, 0).repeat(scale, 1)
    inside = (mask > 0) & (mask != 255)
    paint = np.array([color(int(k)) for k in range(256)], np.float64)[mask]
    mixed = 0.35 * canvas + 0.65 * paint
    return np.where(inside[..., None], np.rint(mixed).astype(np.uint8), canvas)


def with_boxes(
    picture: np.ndarray, boxes, classes, *, truth=None, scale: int = 4
) -> np.ndarray:
    """A picture [H, W, C] with boxes and their names, uint8 [s H, s W, 3].

    Args:
      picture: uint8.
      boxes: [Q, 6], corners in pixels, score, class; those of a score of 0.5 or more
        are drawn.
      classes: names.
      truth: [M, 7] as `data.Split` has boxes, drawn white and thin; None: not known.
      scale: a pixel becomes a square of scale x scale.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(_canvas(picture, scale))
    pen = ImageDraw.Draw(image)
    for row in () if truth is None else truth:
        if row[CLASS] >= 0:
            pen.rectangle([*_edges(row[:4], scale)], outline=TRUE, width=1)
    for row in boxes:
        if row[4] >= SURE:
            label = int(row[5])
            x0, y0, x1, y1 = _edges(row[:4], scale)
            pen.rectangle([x0, y0, x1, y1], outline=color(label + 1), width=2)
            name = str(classes[label])
            y = y0 - 11 if y0 >= 11 else y0 + 2
            pen.text((x0 + 2, y), name, fill=color(label + 1))
    return np.asarray(image)


def _edges(corners, scale):
    x0, y0, x1, y1 = (float(v) * scale for v in corners)
    return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)


def _canvas(picture, scale):
    picture = np.asarray(picture, np.uint8)
    if picture.shape[-1] != 3:
        picture = np.rint(picture.mean(-1, keepdims=True)).astype(np.uint8)
    rgb = np.broadcast_to(picture, (*picture.shape[:2], 3))
    return np.ascontiguousarray(rgb.repeat(scale, 0).repeat(scale, 1))


def drawn(task: str, picture, answer, classes, *, truth=None, scale: int = 4):
    """A picture, or the frames of a clip, with the answers of a task drawn on it."""
    if np.ndim(picture) == 4:
        truth = [None] * len(picture) if truth is None else truth
        return np.stack(
            [
                drawn(task, p, a, classes, truth=t, scale=scale)
                for p, a, t in zip(picture, answer, truth, strict=True)
            ]
        )
    if task == "segmentation":
        return with_mask(picture, answer, scale)
    return with_boxes(picture, answer, classes, truth=truth, scale=scale)


def gif(pages: np.ndarray, ms: int = 200) -> bytes:
    """Pictures uint8 [T, H, W, 3] as an animated GIF, in a loop."""
    from PIL import Image

    images = [Image.fromarray(page).quantize(255) for page in pages]
    file = io.BytesIO()
    options = dict(save_all=True, append_images=images[1:], duration=ms, loop=0)
    images[0].save(file, format="GIF", **options)
    return file.getvalue()


def sheet(rows, *, title: str):
    """Pictures in rows, each row under a heading.

    Args:
      rows: [(heading, [(picture uint8 [H, W, 3], caption), ...]), ...].
      title: above all.

    Returns:
      A Figure.
    """
    from lstm_jax.look import INK, QUIET, figure, safe

    across = max(len(pictures) for _, pictures in rows)
    fig = figure(0.3 + 1.9 * across, 0.5 + 2.45 * len(rows), pad=0.04)
    fig.suptitle(title, color=INK, fontsize=12)
    parts = fig.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (heading, pictures) in zip(parts, rows, strict=True):
        part.suptitle(heading, color=QUIET, fontsize=10, x=0.01, ha="left")
        axes = part.subplots(1, across, squeeze=False)[0]
        for ax in axes:
            ax.set_axis_off()
        for ax, (picture, caption) in zip(axes, pictures, strict=False):
            ax.imshow(picture, interpolation="nearest")
            ax.set_title(safe(caption, 28), fontsize=9, color=INK)
    return fig


def bars(values, title: str):
    """Shares by name as bars across, in the order given; None has no bar."""
    from lstm_jax.look import BLUE, INK, figure, safe, tidy

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


def precision_recall(curves):
    """Precision at the 101 recalls of COCO, for thresholds of IoU.

    Args:
      curves: [10, 101], for 0.50, 0.55 … 0.95, means over classes.
    """
    from lstm_jax.look import COLORS, INK, figure, tidy
    from lstm_jax.tasks.precision import RECALLS, THRESHOLDS

    fig = figure(7.6, 4.8)
    ax = fig.add_subplot()
    tidy(ax)
    for number, at in enumerate((0, 5, 8)):
        label = f"{curves[at].mean():.3f}  IoU {THRESHOLDS[at]:.2f}"
        ax.plot(RECALLS, curves[at], color=COLORS[number], label=label, linewidth=2)
    ax.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    ax.set_title("Precision at each recall, mean over classes", color=INK)
    ax.legend(
        title="average precision",
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        frameon=False,
        alignment="left",
    )
    return fig
