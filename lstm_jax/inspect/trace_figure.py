"""A figure of how a network processes one image."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lstm_jax.figures.style import (
    COLORS,
    INK,
    ORANGE,
    QUIET,
    figure,
    for_text,
    safe,
    tidy,
)
from lstm_jax.inspect.gates import in_order
from lstm_jax.inspect.style import bare, order_of, visible
from lstm_jax.inspect.trace import Trace, trace
from lstm_jax.models.classifier import SequenceClassifier

NAMED = 6  # outputs that are coloured and labelled; the others are grey
THUMBNAILS = 10  # maximum number of frames of a clip that are shown
PAPER = 0.93  # grey value of pixels that are not processed yet


def trace_figure(
    model: SequenceClassifier,
    params: Any,
    image: Any,
    *,
    classes: Sequence[str] | None = None,
    target: int | None = None,
    length: int | None = None,
    shown: Any = None,
    predict: Callable[[jax.Array], jax.Array] = jax.nn.softmax,
    smooth: int = 16,
    traced: Trace | None = None,
):
    """Shows how a network processes one image: input, state and prediction over time.

    Left: the image, faint where it had not been processed when the prediction became
    final, and the saliency map (see `Trace.saliency`). Right, over the steps: the
    prediction so far (see `Trace.predictions`), the input, and the state and gates of
    the top layer, with units sorted by when they change.

    Args:
      model, params, image, length, predict, smooth: as in `trace`.
      classes: names of the outputs.
      target: the true class, if known.
      shown: the image for display, in uint8 or in [0, 1].
      traced: the result of `trace` for this image, if already computed.

    Returns:
      A Figure.
    """
    if traced is None:
        traced = trace(
            model, params, image, length=length, predict=predict, smooth=smooth
        )
    picture = drawable(traced, image, shown)
    time = len(traced.locations)
    panels = held_panels(traced)
    tall = [2.3, 0.9, *(panel[3] for panel in panels)]
    fig = figure(12.5, max(sum(tall) + 1.4, 7.0), pad=0.07)
    fig.suptitle(
        title(traced, classes, target), fontsize=14, color=INK, x=0.02, ha="left"
    )
    left, right = fig.add_gridspec(1, 2, width_ratios=(1, 2.5))
    left = left.subgridspec(2, 1)
    _picture(fig.add_subplot(left[0]), traced, picture)
    _saliency(fig.add_subplot(left[1]), traced, picture)
    rows = right.subgridspec(len(tall), 1, height_ratios=tall, hspace=0.04)
    axes = [fig.add_subplot(row) for row in rows]
    prediction_curves(axes[0], traced, classes, target)
    _input(axes[1], traced, picture)
    for ax, (name, values, style, _) in zip(axes[2:], panels, strict=True):
        drawn = ax.imshow(values.T, aspect="auto", interpolation="nearest", **style)
        ax.set(yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
        bar = fig.colorbar(drawn, cax=ax.inset_axes([1.012, 0.04, 0.012, 0.92]))
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9, length=2, colors=QUIET)
    for ax in axes:
        ax.set_xlim(-0.5, time - 0.5)
        if settled(traced):
            ax.axvline(traced.decided, color=ORANGE, linewidth=1.2, zorder=5)
        ax.spines[:].set_visible(ax is axes[0])
        ax.tick_params(labelbottom=ax is axes[-1], length=2, labelsize=9, colors=INK)
    axes[0].spines[["top", "right"]].set_visible(False)
    for ax in axes[:-1]:
        ax.tick_params(bottom=False)
    count_from_one(axes[-1], time)
    axes[-1].set_xlabel("step", color=INK)
    return fig


def drawable(traced: Trace, image: Any, shown: Any = None) -> np.ndarray:
    """Features `[T, F]` as they are, images and clips as `visible` draws them."""
    return np.asarray(image) if traced.kind == "features" else visible(image, shown)


def count_from_one(ax, time: int) -> None:
    """Ticks of a step axis that counts from 1."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(8, integer=True, min_n_ticks=1).tick_values(1, max(time, 2))
    ticks = np.unique([tick for tick in (1, *ticks) if 1 <= tick <= time])
    ticks = ticks[~((ticks > 1) & (ticks < 1 + time / 16))]
    ax.set_xticks(ticks - 1, [f"{tick:.0f}" for tick in ticks])


def settled(traced: Trace) -> bool:
    """Whether the largest of several outputs changed after the first step."""
    return traced.predictions.shape[-1] > 1 and traced.decided > 0


def title(traced: Trace, classes, target: int | None) -> str:
    """ "Predicts 7 (98 %), final from step 17 of 28 on"."""
    last, time = traced.predictions[-1], len(traced.locations)
    if len(last) == 1:
        return f"Predicts {last[0]:.4g} after {time} steps"
    best = int(last.argmax())
    words = f"Predicts {name_of(best, classes)}"
    if likely(traced):
        words += f" ({100 * last[best]:.0f} %)"
    if target is not None:
        truth = name_of(int(target), classes)
        words += ", which is correct" if best == target else f"; true: {truth}"
    if settled(traced):
        words += f". Final from step {traced.decided + 1} of {time} on"
    return words


def likely(traced: Trace) -> bool:
    """Whether there are several outputs, and they look like probabilities."""
    predictions = traced.predictions
    return predictions.shape[-1] > 1 and bool(
        predictions.min() >= 0 and predictions.max() <= 1 + 1e-4
    )


def name_of(index: int, classes, length: int = 18) -> str:
    return safe(classes[index] if classes is not None else f"output {index}", length)


def held_panels(traced: Trace) -> list[tuple[str, np.ndarray, dict, float]]:
    """Heat maps of the top layer: (name, `[T, D]`, style, inches)."""
    names = list(traced.layers)
    backward = names[-1].endswith("_backward")
    top = traced.layers[names[-2 if backward else -1]]
    state = dict(top.state)
    shown = "h" if "h" in state else next(iter(state))
    order = order_of(state[shown])
    panels = [(shown, state.pop(shown), "state", 1.35)]
    if backward:
        back = traced.layers[names[-1]].state
        values = back.get(shown, next(iter(back.values())))
        values = values[:, order_of(values[::-1])]
        panels.append((f"{shown} ←", values, "own order", 1.35))
        panels[0] = (f"{shown} →", *panels[0][1:])
    panels += [(name, values, "state", 1.0) for name, values in state.items()]
    panels += [(g, top.gates[g], "gate", 0.75) for g in in_order(top.gates)]
    styles = []
    for name, values, kind, tall in panels:
        if values.shape[-1] == len(order) and kind != "own order":
            values = values[:, order]
        if kind == "gate":
            name = f"gate {name}" if len(name) == 1 else name.replace("_", " ")
            style = dict(cmap="magma", vmin=0, vmax=1)
        else:
            most = float(np.quantile(np.abs(values), 0.995)) or 1.0
            style = dict(cmap="RdBu_r", vmin=-most, vmax=most)
        styles.append((name, values, style, tall))
    return styles


def prediction_curves(ax, traced: Trace, classes, target: int | None):
    """Predictions over time, the most likely ones labelled; returns the lines."""
    tidy(ax, 9)
    predictions = traced.predictions
    time, width = predictions.shape
    named = chosen(traced, target)
    steps = np.arange(time)
    lines = []
    for k in [k for k in range(width) if k not in named] + named[::-1]:
        color = colors_of(named).get(k, "#c9d0d6")
        wide = 2.6 if k == named[0] else 1.6 if k in named else 0.8
        lines += ax.plot(steps, predictions[:, k], color=color, linewidth=wide)
    ax.set_xlim(-0.5, time - 0.5)
    count_from_one(ax, time)
    if likely(traced):
        ax.set(ylim=(-0.02, 1.04), yticks=[0, 0.5, 1])
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if width > 1:
        for k, y in zip(
            named, _apart([predictions[-1, k] for k in named], ax), strict=True
        ):
            ax.annotate(
                name_of(k, classes, 14) + (" (true)" if k == target else ""),
                (1.01, y),
                xycoords=("axes fraction", "data"),
                color=for_text(colors_of(named)[k]),
                fontsize=9,
                weight="bold" if k == named[0] else "normal",
                va="center",
                annotation_clip=False,
            )
    words = "prediction from\nthe steps so far" if width > 1 else "prediction so far"
    ax.set_ylabel(words, fontsize=9, color=INK)
    return lines


def chosen(traced: Trace, target: int | None) -> list[int]:
    """Outputs to label: the final prediction, then those that were likely at a step."""
    predictions = traced.predictions
    rank = np.argsort(-(predictions.max(0) + 2 * predictions[-1]), kind="stable")
    named = [int(traced.predictions[-1].argmax())]
    if target is not None and target not in named:
        named.append(int(target))
    named += [int(k) for k in rank if k not in named and predictions[:, k].max() > 0.05]
    return named[:NAMED]


def colors_of(named: list[int]) -> dict[int, str]:
    return dict(zip(named, COLORS, strict=False))


def _apart(values: list[float], ax) -> list[float]:
    """Vertical positions of labels, shifted so that they do not overlap."""
    low, high = ax.get_ylim()
    gap = 0.115 * (high - low)
    rank = np.argsort(values)
    places = np.array([values[k] for k in rank], float)
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + gap)
    places -= max(places[-1] - high, 0)
    out = np.empty(len(places))
    out[rank] = places
    return out.tolist()


def read_by(traced: Trace, shape: tuple[int, ...], step: int) -> np.ndarray:
    """bool of the image's shape: pixels processed up to step `step`."""
    seen = np.zeros(int(np.prod(shape)), bool)
    seen[traced.locations[: step + 1].ravel()] = True
    return seen.reshape(shape)


def faded(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`[H, W, 3]`: pixels that were not seen are faded."""
    colored = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    pale = PAPER - 0.13 * colored
    return np.where(seen[..., None], colored, pale)


def _picture(ax, traced: Trace, picture: np.ndarray) -> None:
    bare(ax)
    ax.set_anchor("NW")
    if traced.kind == "features":
        ax.imshow(picture.T, aspect="auto", cmap="viridis", interpolation="nearest")
        ax.set_title("Features over time", loc="left", fontsize=11, color=INK)
        return
    last = traced.decided if settled(traced) else len(traced.locations) - 1
    if traced.kind == "clip":
        words, colored = f"Frame {last + 1}", picture[last]
        words += ", when the prediction is final" if settled(traced) else ""
    else:
        words = "Processed when the prediction is final"
        words = words if settled(traced) else "The image"
        colored = faded(picture, read_by(traced, picture.shape[:2], last))
    ax.imshow(colored, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(words, loc="left", fontsize=11, color=INK)


def _saliency(ax, traced: Trace, picture: np.ndarray) -> None:
    bare(ax)
    ax.set_anchor("NW")
    found, words = traced.saliency, "Saliency of the prediction"
    style = dict(cmap="inferno", interpolation="nearest", vmin=0)
    if traced.kind == "features":
        ax.imshow(found.T, aspect="auto", **style)
    elif traced.kind == "clip":
        frame = int(found.sum((1, 2)).argmax())
        ax.imshow(found[frame], vmax=np.quantile(found, 0.999) or 1, **style)
        _outline(ax, picture[frame])
        words += f", largest: frame {frame + 1}"
    else:
        ax.imshow(found, vmax=np.quantile(found, 0.995) or 1, **style)
        _outline(ax, picture)
    ax.set_title(words, loc="left", fontsize=11, color=INK)


def _outline(ax, picture: np.ndarray) -> None:
    """Contour of the image's middle grey value."""
    grey = picture.mean(-1) if picture.ndim == 3 else picture
    level = (grey.min() + grey.max()) / 2
    if grey.min() < level < grey.max():
        ax.contour(grey, levels=[level], colors="white", linewidths=0.9, alpha=0.55)


def _input(ax, traced: Trace, picture: np.ndarray) -> None:
    """The input of each step as a column; of a clip, some frames."""
    ax.set(yticks=[])
    ax.set_ylabel("input", rotation=0, ha="right", va="center", fontsize=10)
    time = len(traced.locations)
    if traced.kind == "clip":
        count = min(time, THUMBNAILS)
        wide = time / count
        for k, frame in enumerate(np.linspace(0, time - 1, count).round().astype(int)):
            box = (k * wide - 0.47, (k + 1) * wide - 0.53, 0, 1)
            style = dict(cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.imshow(picture[frame], extent=box, aspect="auto", **style)
        ax.set_ylim(0, 1)
        return
    if traced.kind == "features":
        values, style = picture[:time], dict(cmap="viridis")
    else:
        flat = picture.reshape(-1, *picture.shape[2:])
        values, style = flat[traced.locations], dict(cmap="gray", vmin=0, vmax=1)
    columns = values.swapaxes(0, 1)
    ax.imshow(columns, aspect="auto", interpolation="nearest", **style)
