"""Shared colours and axes of all figures; no global Matplotlib state."""

from typing import Any

INK = "#1f2933"
QUIET = "#5b6770"
LINE = "#9aa3ad"
FAINT = "#e3e7eb"
BLUE = "#0072b2"
ORANGE = "#d55e00"
# Ten colours that are distinct for common colour blindness; further curves are dashed.
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


def figure(width: float, height: float, pad: float = 0.12):
    """An empty figure at 100 dots per inch, with a fallback for missing glyphs.

    Args:
      width, height: in inches.
      pad: padding around each axes, in inches.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from lstm_jax.figures.fonts import FallbackFigure

    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad)
    return FallbackFigure(figsize=(width, height), dpi=100, layout=layout)


def tidy(ax, size: float = 10):
    """Axes with a light grid, no box, and tick labels of `size` points."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(LINE)
    ax.tick_params(colors=INK, length=3, labelsize=size)
    ax.grid(color=FAINT, linewidth=0.8)
    ax.set_axisbelow(True)


def log_axis(ax):
    """A logarithmic y axis with few, plain ticks."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    subs = (1.0, 3.0) if high < 1e3 * low else (1.0,)
    ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def legend_below(ax, **options: Any):
    """A legend under a pair of axes and its label, off the data."""
    style = dict(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    style["handlelength"] = 3  # shows dashes
    return ax.legend(**style | options)


def text_color(background: Any) -> str:
    """INK or white, whichever has more contrast with a colour (WCAG 2.2 §1.4.3).

    >>> text_color("#ffffff") == INK, text_color("#08306b")
    (True, 'white')
    """
    ink = contrast(INK, background)
    return INK if ink >= contrast("white", background) else "white"


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def for_text(color: Any) -> tuple[float, float, float]:
    """A colour darkened until it has a contrast of 4.5 with white, as RGB in [0, 1]."""
    from matplotlib.colors import to_rgb

    rgb = to_rgb(color)
    while contrast(rgb, "white") < 4.5:
        rgb = tuple(0.95 * c for c in rgb)
    return rgb


def _luminance(color: Any) -> float:
    from matplotlib.colors import to_rgb

    linear = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in to_rgb(color)
    )
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def legend_beside(ax, title: str, **options: Any):
    """A legend to the right of the axes."""
    place = dict(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    style = dict(frameon=False, alignment="left")
    return ax.legend(title=title, **place, **style, **options)


def safe(text: Any, length: int = 18) -> str:
    """At most `length` characters, escaped so that Matplotlib does not parse math."""
    text = " ".join(str(text).split())
    text = text if len(text) <= length else text[: length - 1] + "…"
    return text.replace("$", r"\$")
