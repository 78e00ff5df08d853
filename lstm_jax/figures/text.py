"""Figures for text recognition."""

from collections.abc import Sequence

import numpy as np

from lstm_jax.figures.style import BLUE, INK, ORANGE, QUIET, figure, safe, tidy

_WIDE = 9.0  # width of the widest line, inches


def confusion_figure(report: dict):
    """Bar chart of the most frequent confusions of a report."""
    rows = report["confusions"][::-1]
    fig = figure(5.6, 1.6 + 0.26 * max(len(rows), 2))
    ax = fig.add_subplot()
    tidy(ax)
    names = [f"{_shown(row['true'])} → {_shown(row['read'])}" for row in rows]
    ax.barh(range(len(rows)), [row["count"] for row in rows], color=BLUE)
    ax.set_yticks(range(len(rows)), names)
    ax.set_xlabel("times", color=INK)
    cer = report["cer"]
    summary = (
        "no characters" if cer is None else f"character error rate {100 * cer:.2f} %"
    )
    ax.set_title(f"True → read, {summary}", loc="left", color=INK)
    return fig


def lines_figure(
    images: Sequence[np.ndarray],
    true: Sequence[str],
    predictions: np.ndarray,
    steps: Sequence[int],
    alphabet: Sequence[str],
    *,
    title: str,
):
    """Text lines with the recognized characters below their positions.

    Errors are coloured. The true text is shown if it differs; a small v marks a
    character that was missed.

    Args:
      images: one per line, uint8 [H, W] with individual W.
      true: the true text of each line.
      predictions: rows of the task's predictions, [N, T, 4].
      steps: number of steps of each line.
      alphabet: characters by label, beginning with label 1.
      title: of the figure.

    Returns:
      A Figure.
    """
    from lstm_jax.metrics.edit_distance import align

    widest = max((image.shape[1] for image in images), default=1)
    scale = _WIDE / widest  # inches per pixel
    rows = [image.shape[0] * scale + 0.5 for image in images]
    fig = figure(_WIDE + 0.3, sum(rows) + 0.5, pad=0.02)
    fig.set_layout_engine("none")
    whole = sum(rows) + 0.5
    fig.text(0.15 / (_WIDE + 0.3), 1 - 0.3 / whole, title, color=INK, fontsize=12)
    top = whole - 0.5
    for image, text, prediction, count, row in zip(
        images, true, predictions, steps, rows, strict=True
    ):
        high, wide = image.shape
        top -= row
        box = 0.15, top + 0.42, wide * scale, high * scale
        sides = (_WIDE + 0.3, whole) * 2
        ax = fig.add_axes([v / w for v, w in zip(box, sides, strict=True)])
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto")
        ax.axis("off")
        said = prediction[prediction[:, 0] != 0]
        read = "".join(alphabet[int(label) - 1] for label in said[:, 0])
        centres = (said[:, 2] + said[:, 3]) / 2 * wide / max(int(count), 1)
        _written(ax, align(text, read).pairs, centres, high + 0.11 / scale)
        if text != read:
            summary = f"true: {safe(text, 90)}"
            below = high + 0.28 / scale
            ax.text(
                0, below, summary, color=QUIET, fontsize=9, va="center", clip_on=False
            )
    return fig


def _written(ax, pairs, centres, y: float) -> None:
    """Draws the recognized characters, each at its position."""
    at = 0
    font = dict(ha="center", va="center", fontsize=9, clip_on=False)
    for true, read in pairs:
        if read is None:  # between the ones before and after
            around = centres[max(at - 1, 0) : at + 1]
            x = float(np.mean(around)) if len(around) else 0.0
            ax.text(x, y, "v", color=ORANGE, **font | dict(fontsize=7))
            continue
        wrong = true != read
        shown = read if read.isprintable() else "?"
        shown = "_" if wrong and read == " " else shown
        colour = ORANGE if wrong else INK
        weight = "bold" if wrong else "normal"
        ax.text(centres[at], y, safe(shown, 2), color=colour, fontweight=weight, **font)
        at += 1


def _shown(character: str) -> str:
    """A visible form of a character, in an installed font."""
    from lstm_jax.figures.fonts import font_families

    names = {"": "(none)", " ": "(space)"}
    if character in names:
        return names[character]
    printable = character.strip() and character.isprintable()
    seen = printable and not font_families(character)[1]
    return safe(character) if seen else f"U+{ord(character[0]):04X}"
