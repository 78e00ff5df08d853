"""Figures of predicted frames: a strip over time, errors over time, a GIF."""

import numpy as np

from lstm_jax.figures.gif import encode_gif
from lstm_jax.figures.style import (
    BLUE,
    INK,
    ORANGE,
    QUIET,
    figure,
    legend_beside,
    tidy,
)
from lstm_jax.figures.visualization import canvas, to_uint8

COLUMNS = 20  # maximum number of frames of a clip in a strip, approximately


def frame_strip(clips, *, total: int):
    """Clips over time: input frames, true frames and predicted frames.

    Args:
      clips: rows (caption, clip [T, H, W, C], predicted [h, H, W, C]) with pixels in
        [0, 1]; predictions are drawn below the last h frames of the clip.
      total: number of clips that these were chosen from.

    Returns:
      A Figure. One or two channels are drawn grey (their mean), three as RGB. Of long
      clips only every second frame is shown, or every third, and so on.
    """
    from matplotlib.patches import Rectangle

    length, height, width = clips[0][1].shape[:3]
    seen = length - len(clips[0][2])
    every = -(-length // COLUMNS)
    shown = [*range(seen - 1, -1, -every)][::-1] + [*range(seen, length, every)]
    # In dots; frames are scaled by integers if they fit.
    room = min(1400 // len(shown), 128, 160 * width // height)
    wide = width * (room // width) if room >= width else room
    tall = round(wide * height / width)
    gap, pause, head, foot, left, right = 3, 9, 30, 62, 62, 96
    across = len(shown) * (wide + gap) - gap + pause
    block = 24 + 2 * tall + gap
    down = head + len(clips) * (block + 10) + foot
    full = max(left + across + right, 520)  # at least the width of the caption
    fig = figure(full / 100, down / 100)
    fig.set_layout_engine("none")  # positions are in dots
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, full), ylim=(down, 0))
    ax.set_axis_off()
    x = {}
    for column, frame in enumerate(shown):
        x[frame] = left + column * (wide + gap) + (pause if frame >= seen else 0)

    def draw(frame, x, y):
        picture = to_uint8(frame)
        # extent, with y downwards: left, right, bottom, top
        ax.imshow(
            picture,
            extent=(x, x + wide, y + tall, y),
            cmap="gray",
            vmin=0,
            vmax=255,
            aspect="auto",
        )
        edge = Rectangle((x, y), wide, tall, fill=False, lw=0.6, ec="#c3cad1")
        ax.add_patch(edge)

    small = dict(fontsize=9, color=QUIET)
    end = left + across
    for row, (caption, clip, predicted) in enumerate(clips):
        top = head + row * (block + 10)
        ax.text(left, top + 15, caption, ha="left", va="center", **small)
        y = top + 24
        for frame in shown:
            draw(clip[frame], x[frame], y)
            if frame >= seen:
                draw(predicted[frame - seen], x[frame], y + tall + gap)
        middle = dict(va="center", fontsize=10)
        ax.text(left - 8, y + tall / 2, "input", ha="right", color=INK, **middle)
        ax.text(end + 8, y + tall / 2, "true", color=INK, **middle)
        below = y + 1.5 * tall + gap
        ax.text(end + 8, below, "predicted", color=BLUE, weight="bold", **middle)
    base = down - foot + 4
    for frame in shown:
        place = x[frame] + wide / 2
        color = BLUE if frame >= seen else QUIET
        ax.text(place, base, str(frame + 1), ha="center", fontsize=9, color=color)
    ax.text(left - 8, base, "frame", ha="right", **small)
    number = f"{len(clips)} of {total:,} clips" if total > 1 else "the only clip"
    note = f"{number}; error: squared, summed over the pixels of a frame"
    ax.text(left, base + 30, note, fontsize=9, color=QUIET)
    title = dict(fontsize=12, color=INK, va="center")
    ax.text(left, 18, "Predicted frames", ha="left", **title)
    return fig


def error_over_time(errors, *, first: int):
    """Squared error of each predicted frame.

    Args:
      errors: {"network" or a baseline's name: [h]}, squared errors summed over a frame.
      first: number of the first predicted frame, counted from 1.

    Returns:
      A Figure.
    """
    from matplotlib.ticker import MaxNLocator

    styles = {
        "network": dict(color=BLUE, linewidth=2.6, marker="o", markersize=5, zorder=4),
        "copy last frame": dict(color=ORANGE, linestyle=(0, (5, 1.5)), marker="s"),
        "mean frame": dict(color="#117733", linestyle=(0, (3, 1.5)), marker="^"),
        "all zeros": dict(color="#777777", linestyle=(0, (1, 1.5)), marker="D"),
    }
    fig = figure(8.6, 4.6)
    ax = fig.add_subplot()
    tidy(ax)
    for name in sorted(errors, key=lambda name: -np.mean(errors[name])):
        values = np.asarray(errors[name], np.float64)
        frames = first + np.arange(len(values))
        style = dict(linewidth=1.6, markersize=4) | styles[name]
        ax.plot(frames, values, label=f"{values.mean():.4g}  {name}", **style)
    ax.set_ylim(0, 1.06 * max(map(np.max, errors.values())) or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("frame")
    ax.set_ylabel("squared error, sum over a frame")
    ax.set_title("Error of each predicted frame", color=INK)
    legend_beside(ax, "mean over frames").get_title().set_color(QUIET)
    return fig


def forecast_gif(inputs, true, predicted, *, scale: int = 4, ms: int = 120) -> bytes:
    """A looping animation: true frames on the left, predicted ones on the right.

    The right border is grey while the network receives input frames, shown on both
    sides, and orange from the first predicted frame on.

    Args:
      inputs: [S, H, W, C], input frames; uint8, or float in [0, 1].
      true: [h, H, W, C], the frames that follow; None if unknown: the animation then
        shows only the prediction.
      predicted: [h, H, W, C].
      scale: magnification, an integer.
      ms: milliseconds per frame, a multiple of 10; the last frame is shown six times as
        long.

    Returns:
      The bytes of an animated GIF. Three channels are RGB, else their mean is grey.
    """
    alone = true is None
    true = predicted if alone else true
    inputs, true, predicted = (np.asarray(x) for x in (inputs, true, predicted))
    same = true.ndim == 4 and true.shape == predicted.shape
    if not same or inputs.shape[1:] != true.shape[1:] or not len(true):
        raise ValueError(
            f"forecast_gif: inputs {inputs.shape}, true {true.shape} and predicted "
            f"{predicted.shape}; expected [S, H, W, C], [h, H, W, C] twice, h >= 1"
        )
    if scale < 1 or ms < 10:
        raise ValueError(
            f"forecast_gif: scale={scale} and ms={ms}; expected >= 1 and >= 10"
        )
    triples = [(x, x, _SEEN) for x in inputs]
    triples += [(a, b, _PREDICTED) for a, b in zip(true, predicted, strict=True)]
    pages = []
    for left, right, color in triples:
        left, right = _framed(left, scale, _SEEN), _framed(right, scale, color)
        space = np.full((len(left), 2 * max(3, scale), 3), 255, np.uint8)
        pages.append(right if alone else np.concatenate([left, space, right], 1))
    return encode_gif(pages, [ms] * (len(pages) - 1) + [6 * ms])


_SEEN, _PREDICTED = (154, 163, 173), (213, 94, 0)  # colours of the borders


def _framed(frame, scale, color):
    """A frame enlarged by `scale`, with a border: uint8 [h, w, 3]."""
    inner, edge = canvas(np.atleast_3d(to_uint8(frame)), scale), max(3, scale)
    page = np.empty((inner.shape[0] + 2 * edge, inner.shape[1] + 2 * edge, 3), np.uint8)
    page[:] = color
    page[edge:-edge, edge:-edge] = inner
    return page
