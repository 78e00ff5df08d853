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
    """An empty figure at 100 dots per inch.

    Args:
      width, height: in inches.
      pad: padding around each axes, in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad)
    return Figure(figsize=(width, height), dpi=100, layout=layout)


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
