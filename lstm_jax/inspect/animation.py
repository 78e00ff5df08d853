"""An animation of how a network processes one image."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lstm_jax.figures.gif import encode_gif
from lstm_jax.figures.style import COLORS, INK, ORANGE, QUIET, figure, for_text, safe
from lstm_jax.inspect.style import bare
from lstm_jax.inspect.trace import Trace, trace
from lstm_jax.inspect.trace_figure import (
    chosen,
    colors_of,
    count_from_one,
    drawable,
    faded,
    held_panels,
    likely,
    name_of,
    prediction_curves,
    read_by,
)
from lstm_jax.models.classifier import SequenceClassifier

FRAMES = 56  # maximum number of frames; a frame may cover several steps
SECONDS = 4.5  # approximate duration
GREYS, GLOWING, COLORFUL = 48, 12, 96  # entries of the palette
BARS = 10  # maximum number of bars of predictions


def trace_gif(
    model: SequenceClassifier,
    params: Any,
    image: Any,
    *,
    classes: Sequence[str] | None = None,
    target: int | None = None,
    length: int | None = None,
    shown: Any = None,
    predict: Callable[[jax.Array], jax.Array] = jax.nn.softmax,
    ms: int | None = None,
    traced: Trace | None = None,
) -> bytes:
    """An animated GIF of the predictions and the state at each step.

    Processed pixels are bright, those of the current frame orange.

    Args:
      model, params, image, classes, target, length, shown, predict, traced: as in
        `reading`.
      ms: milliseconds per frame; None: about 4.5 s in total. The last frame is shown
        for 2 s.

    Returns:
      The bytes of an animated GIF of 900 x 520 pixels.
    """
    if traced is None:
        traced = trace(
            model, params, image, length=length, predict=predict, smooth=None
        )
    time = len(traced.locations)
    picture = drawable(traced, image, shown)
    stops = np.unique(np.linspace(0, time - 1, min(time, FRAMES)).round().astype(int))
    scene = _Scene(traced, picture, classes, target)
    pages = [
        scene.draw(stop, since)
        for stop, since in zip(stops, [-1, *stops[:-1]], strict=True)
    ]
    ms = ms or int(np.clip(1000 * SECONDS / len(stops), 50, 450)) // 10 * 10
    return _gif(pages, [ms] * (len(pages) - 1) + [2000])


class _Scene:
    """A figure of which only the changing parts are redrawn for each frame."""

    def __init__(self, traced: Trace, picture, classes, target):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.traced, self.picture = traced, picture
        fig = figure(9, 5.2, pad=0.07)
        fig.get_layout_engine().set(rect=(0.01, 0.01, 0.98, 0.97))
        self.canvas = FigureCanvasAgg(fig)
        left, right = fig.add_gridspec(1, 2, width_ratios=(1, 1.55))
        left = left.subgridspec(3, 1, height_ratios=(1.75, 0.2, 1))
        right = right.subgridspec(2, 1, height_ratios=(1, 1))
        self.moving: list = []
        self._image(fig.add_subplot(left[0]))
        self._says(fig.add_subplot(left[1]), classes)
        self._bars(fig.add_subplot(left[2]), classes, target)
        self._curves(fig.add_subplot(right[0]), classes, target)
        self._state(fig.add_subplot(right[1]))
        for artist in self.moving:
            artist.set_animated(True)
        self.canvas.draw()
        self.still = self.canvas.copy_from_bbox(fig.bbox)
        self.fig = fig

    def draw(self, stop: int, since: int) -> np.ndarray:
        """RGB `[H, W, 3]` after step `stop`; `since` is the step of the last frame."""
        self._show(stop, since)
        self.canvas.restore_region(self.still)
        for artist in self.moving:
            artist.axes.draw_artist(artist)
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()

    def _image(self, ax) -> None:
        bare(ax)
        kind = self.traced.kind
        if kind == "features":
            self.image = ax.imshow(self.picture.T, aspect="auto", cmap="viridis")
        else:
            first = self.picture[0] if kind == "clip" else self.picture
            blank = np.zeros((*first.shape[:2], 3))
            self.image = ax.imshow(blank, interpolation="nearest")
        self.moving.append(self.image)

    def _says(self, ax, classes) -> None:
        bare(ax)
        width = self.traced.predictions.shape[-1]
        self.names = [name_of(k, classes) for k in range(width)]
        style = dict(fontsize=15, color=INK, weight="bold", ha="center", va="center")
        self.says = ax.text(0.5, 0.5, "", transform=ax.transAxes, **style)
        self.moving.append(self.says)

    def _bars(self, ax, classes, target) -> None:
        bare(ax)
        predictions = self.traced.predictions
        width = predictions.shape[-1]
        named = chosen(self.traced, target)
        ranked = np.argsort(-(predictions.max(0) + predictions[-1]), kind="stable")[
            :BARS
        ]
        self.bars = list(range(width)) if width <= BARS else sorted(ranked.tolist())
        colors = colors_of(named)
        places = np.arange(len(self.bars))
        shades = [colors.get(k, "#c9d0d6") for k in self.bars]
        self.rects = ax.bar(places, np.zeros(len(places)), color=shades, width=0.8)
        low, high = float(predictions.min()), float(predictions.max())
        top = 1.0 if likely(self.traced) else max(high, 1e-6)
        room = max(5 - len(places), 0) / 2  # keeps few bars slim
        ax.set(
            xlim=(-0.6 - room, len(places) - 0.4 + room),
            ylim=(min(low, 0.0), top * 1.02),
        )
        long = max(len(name_of(k, classes, 11)) for k in self.bars)
        ax.set_xticks(
            places,
            [name_of(k, classes, 11) for k in self.bars],
            fontsize=10,
            color=INK,
            rotation=0 if long * len(places) < 36 else 90,
        )
        for k, label in zip(self.bars, ax.get_xticklabels(), strict=True):
            if k == target:
                label.set(weight="bold", color=for_text(colors.get(k, INK)))
        ax.tick_params(length=0)
        self.moving += list(self.rects)

    def _curves(self, ax, classes, target) -> None:
        self.lines = prediction_curves(ax, self.traced, classes, target)
        self.data = [line.get_ydata() for line in self.lines]
        self.cursor = ax.axvline(0, color=ORANGE, linewidth=1.4)
        ax.tick_params(labelbottom=False, bottom=False)
        self.moving += [*self.lines, self.cursor]

    def _state(self, ax) -> None:
        name, values, style, _ = held_panels(self.traced)[0]
        time = len(values)
        self.values = values.T
        blank = np.full(self.values.shape, np.nan)
        self.heat = ax.imshow(blank, aspect="auto", interpolation="nearest", **style)
        ax.set(yticks=[], xlim=(-0.5, time - 0.5))
        ax.spines[:].set_color("#d5dade")
        count_from_one(ax, time)
        ax.tick_params(length=2, labelsize=9, colors=INK)
        ax.set_xlabel("step", fontsize=9, color=QUIET)
        ax.set_ylabel(f"state {safe(name)}, by unit", fontsize=9, color=INK)
        self.second = ax.axvline(0, color=ORANGE, linewidth=1.4)
        self.moving += [self.heat, self.second]

    def _show(self, stop: int, since: int) -> None:
        from lstm_jax.figures.fonts import use_fallback

        traced, picture = self.traced, self.picture
        if traced.kind == "clip":
            frame = picture[stop]
            self.image.set_data(faded(frame, np.ones(frame.shape[:2], bool)))
        elif traced.kind == "features":
            seen = np.where(np.arange(len(picture)) <= stop, 1.0, np.nan)
            self.image.set_data((picture * seen[:, None]).T)
        else:
            shape = picture.shape[:2]
            seen = read_by(traced, shape, stop)
            colored = faded(picture, seen)
            if stop < len(traced.locations) - 1:
                new = np.zeros(seen.size, bool)
                new[traced.locations[since + 1 : stop + 1].ravel()] = True
                new = new.reshape(shape)
                colored[new] = _glowing(colored[new])
            self.image.set_data(colored)
        self.says.set_text(self._words(traced.predictions[stop]))
        use_fallback(self.says, self.says.figure)
        for rect, k in zip(self.rects, self.bars, strict=True):
            rect.set_height(traced.predictions[stop, k])
        for line, values in zip(self.lines, self.data, strict=True):
            line.set_data(np.arange(stop + 1), values[: stop + 1])
        for cursor in (self.cursor, self.second):
            cursor.set_xdata([stop, stop])
        values = self.values.copy()
        values[:, stop + 1 :] = np.nan
        self.heat.set_data(values)

    def _words(self, answer: np.ndarray) -> str:
        best = int(answer.argmax())
        if len(answer) == 1:
            return f"{answer[0]:.4g}"
        percent = f"  {100 * answer[best]:.0f} %" if likely(self.traced) else ""
        return self.names[best] + percent


def _glowing(colors: np.ndarray) -> np.ndarray:
    """RGB in [0, 1], tinted orange."""
    return 0.45 * colors + 0.55 * np.array([213, 94, 0]) / 255


def _gif(pages: list[np.ndarray], durations: list[int]) -> bytes:
    """Frames `[H, W, 3]` and their milliseconds as a GIF with one palette.

    Greys and the colours of the predictions have reserved palette entries.
    """
    from PIL import Image

    sample = np.concatenate([pages[len(pages) // 2], pages[-1]])
    found = Image.fromarray(sample).quantize(COLORFUL).getpalette()[: 3 * COLORFUL]
    ours = [int(c[k : k + 2], 16) for c in (*COLORS, ORANGE) for k in (1, 3, 5)]
    ramp = 255 * _glowing(np.linspace(0, 1, GLOWING)[:, None].repeat(3, 1))
    ours += ramp.round().astype(int).ravel().tolist()
    greys = np.linspace(0, 255, GREYS).round().astype(int).repeat(3).tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(greys + ours + found)
    frames = [
        Image.fromarray(page).quantize(palette=palette, dither=Image.Dither.NONE)
        for page in pages
    ]
    return encode_gif(frames, durations)
