"""The summary figure of a network's diagnostics."""

import numpy as np

from lstm_jax.figures.style import (
    COLORS,
    INK,
    LINE,
    ORANGE,
    QUIET,
    figure,
    legend_below,
    log_axis,
    safe,
    tidy,
)
from lstm_jax.inspect.diagnostics import LARGE_UPDATE, SMALL_UPDATE, diagnose
from lstm_jax.inspect.gates import in_order
from lstm_jax.inspect.measures import BINS, KEPT, SATURATED, LayerMeasures, Measures

_DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
_LAYERS = 6  # maximum number of layers and directions that are drawn
_LEAVES = 24  # maximum number of params whose updates are drawn


def summary_figure(measures: Measures, updates: dict[str, float] | None = None):
    """Gradients, memory, gates and, if given, updates; one colour per layer.

    Args:
      measures: from `measure` or `measure_cell`.
      updates: from `logged_updates`.

    Returns:
      A Figure, with the problems that `diagnose` finds as its title. Of more than six
      layers and directions the first three and the last three are drawn; of more than
      24 params those with the largest updates.
    """
    layers = measures.layers
    if len(layers) > _LAYERS:
        layers = (*layers[: _LAYERS // 2], *layers[-_LAYERS // 2 :])
    colors = dict(zip((layer.name for layer in layers), COLORS, strict=False))
    gated = [layer for layer in layers if layer.gates]
    updates = dict(sorted((updates or {}).items(), key=lambda item: -item[1])[:_LEAVES])
    found = diagnose(measures, updates=updates)
    curves = sum(len(layer.gradients) for layer in layers)
    heights = [3.6 + 0.2 * -(-max(curves, len(layers) + 2) // 2)]
    if gated:
        heights.append(1.25 * len(gated) + 0.3)
    if updates:
        heights.append(0.2 * len(updates) + 0.9)
    fig = figure(11, sum(heights) + 0.3 + 0.25 * max(len(found), 1), pad=0.07)
    words = [
        safe(f"{diagnostic.name}: {diagnostic.words}", 120) for diagnostic in found
    ]
    title = "\n".join(words) or "No problems found"
    fig.suptitle(title, color=ORANGE if words else INK, fontsize=12)
    rows = iter(fig.add_gridspec(len(heights), 1, height_ratios=heights))
    top = next(rows).subgridspec(1, 2)
    _gradients(fig.add_subplot(top[0]), layers, colors)
    _memory(fig.add_subplot(top[1]), layers, colors)
    if gated:
        most = max(len(layer.gates) for layer in gated)
        grid = next(rows).subgridspec(len(gated), most)
        for row, layer in enumerate(gated):
            for column, gate in enumerate(in_order(layer.gates)):
                ax = fig.add_subplot(grid[row, column])
                _gate(ax, layer, gate, colors[layer.name])
                if row == len(gated) - 1:
                    ax.set_xlabel("gate value", fontsize=9, color=QUIET)
    if updates:
        _updates(fig.add_subplot(next(rows)), updates)
    return fig


def _gradients(ax, layers: tuple[LayerMeasures, ...], colors) -> None:
    tidy(ax, 9)
    few = len(layers) == 1
    for layer in layers:
        for part, (name, norms) in enumerate(layer.gradients.items()):
            color = COLORS[part] if few else colors[layer.name]
            label = name if few else f"{layer.name}: {name}"
            _line(
                ax, norms, color=color, dashes=_DASHES[part % 4], label=safe(label, 26)
            )
    log_axis(ax)
    ax.set_title("Gradient through time", loc="left", fontsize=11, color=INK)
    ax.set_ylabel("norm of ∂loss/∂carry, one example", fontsize=9)
    ax.set_xlabel("step, in processing order", fontsize=9)
    legend_below(ax, fontsize=9, ncols=2)


def _memory(ax, layers: tuple[LayerMeasures, ...], colors) -> None:
    tidy(ax, 9)
    for layer in layers:
        label = f"{safe(layer.name)}: {layer.memory_steps:.3g} of {layer.steps:.4g}"
        color = colors[layer.name]
        _line(ax, layer.memory, color=color, dashes="-", label=label)
        start = int(np.isfinite(layer.memory).sum()) - layer.memory_steps
        ax.axvline(start, color=color, linewidth=1, linestyle=(0, (1, 2)))
    log_axis(ax)
    ax.set_title("Influence of each input", loc="left", fontsize=11, color=INK)
    ax.set_ylabel("norm of ∂(last output)/∂input", fontsize=9)
    ax.set_xlabel("step, in processing order", fontsize=9)
    legend = legend_below(
        ax, fontsize=9, ncols=2, title=f"last steps with {100 * KEPT:.0f} % of it"
    )
    legend.get_title().set(fontsize=9, color=QUIET)


def _line(ax, values, *, color, dashes, label) -> None:
    """A curve on a logarithmic axis; omits values that are 0 or not finite."""
    steps = np.arange(len(values))
    known = np.isfinite(values) & (values > 0)
    marker = "o" if known.sum() <= 40 else None
    ax.plot(
        steps[known],
        values[known],
        color=color,
        linestyle=dashes,
        linewidth=1.8,
        marker=marker,
        markersize=3,
        label=label,
    )


def _gate(ax, layer: LayerMeasures, name: str, color: str) -> None:
    gate = layer.gates[name]
    tidy(ax, 9)
    edges = np.linspace(0, 1, BINS + 1)
    margin = (1 - SATURATED) / 2
    for low, high in ((0, margin), (1 - margin, 1)):
        ax.axvspan(low, high, color="#fbe3d4", linewidth=0, zorder=0)
    ax.stairs(gate.histogram, edges, fill=True, color=color, alpha=0.85)
    share = np.nanmean(gate.saturated)
    words = f"gate {name}" if len(name) == 1 else name.replace("_", " ")
    words = f"{safe(layer.name)}: {words}"
    ax.set_title(words, loc="left", fontsize=9, color=INK, pad=3)
    loud = dict(color=ORANGE, weight="bold") if share > 0.5 else dict(color=QUIET)
    ax.set_title(
        f"{100 * share:.0f} % saturated", loc="right", fontsize=9, pad=3, **loud
    )
    ax.set(xlim=(0, 1), yticks=[], xticks=[0, 0.5, 1])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)


def _updates(ax, updates: dict[str, float]) -> None:
    tidy(ax, 9)
    names, values = list(updates), np.array(list(updates.values()))
    places = np.arange(len(names))[::-1]
    tiny = SMALL_UPDATE / 10
    drawn = np.where(np.isfinite(values), values, 10).clip(tiny, 10)
    wrong = ~((values <= LARGE_UPDATE) & (values >= SMALL_UPDATE))
    ax.axvspan(1e-4, 1e-2, color="#e4f1ec", linewidth=0, zorder=0)
    ax.hlines(places, tiny, drawn, color=LINE, linewidth=1)
    ax.scatter(drawn, places, c=[ORANGE if w else COLORS[2] for w in wrong], zorder=3)
    ax.set_xscale("log")
    ax.set_xlim(tiny, 2 * max(LARGE_UPDATE, drawn.max()))
    ax.set_yticks(places, [safe(name, 34) for name in names], fontsize=9)
    ax.set_title("Update per step", loc="left", fontsize=11, color=INK)
    ax.set_xlabel("norm of the update / norm of the weights; usual: green", fontsize=9)
