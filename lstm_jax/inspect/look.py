"""How this room's figures look; Matplotlib without any global state."""

from typing import Any

import numpy as np

INK = "#1f2933"
QUIET = "#5b6770"
LINE = "#9aa3ad"
FAINT = "#e3e7eb"
# ten that stay apart with any common colour blindness
COLORS = (
    "#332288",
    "#cc6677",
    "#117733",
    "#ddaa33",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#aa4499",
    "#999933",
    "#777777",
)
ACCENT = "#d55e00"


def figure(width: float, height: float):
    """An empty figure of `width` x `height` inches, at 100 dots per inch."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.03)
    return Figure(figsize=(width, height), dpi=100, layout=layout)


def tidy(ax):
    """A pair of axes with a quiet grid and no box."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(LINE)
    ax.tick_params(colors=INK, length=3, labelsize=9)
    ax.grid(color=FAINT, linewidth=0.8)
    ax.set_axisbelow(True)


def bare(ax):
    """A pair of axes for a picture: no ticks, no box."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def log_axis(ax):
    """A logarithmic y axis with few, plain ticks."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    subs = (1.0, 3.0) if high < 1e3 * low else (1.0,)
    ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def safe(text: Any, length: int = 18) -> str:
    """At most `length` letters that Matplotlib does not read as a formula."""
    text = " ".join(str(text).split())
    text = text if len(text) <= length else text[: length - 1] + "…"
    return text.replace("$", r"\$")


def visible(image: Any, shown: Any = None) -> np.ndarray:
    """What to draw of an image: `[..., H, W]` grey or `[..., H, W, 3]`, in [0, 1].

    Args:
      image: `[..., H, W, C]`, as the network reads it; brought to [0, 1] by its least
        and its largest value, where nothing else is `shown`.
      shown: the same in uint8 or in [0, 1].
    """
    pixels = np.asarray(image if shown is None else shown)
    whole = pixels.dtype == np.uint8
    pixels = pixels.astype(np.float32) / (255 if whole else 1)
    if shown is None and not whole:
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / max(high - low, 1e-6)
    pixels = pixels.clip(0, 1)
    return pixels if pixels.shape[-1] == 3 else pixels.mean(-1)


def order_of(held: np.ndarray) -> np.ndarray:
    """An order of units `[D]`, by when each one moves, so that a heat map `[T, D]`
    shows waves instead of noise."""
    moves = np.abs(np.diff(held, axis=0, prepend=0)) + 1e-12
    when = (moves * np.arange(len(moves))[:, None]).sum(0) / moves.sum(0)
    return np.argsort(when, kind="stable")
