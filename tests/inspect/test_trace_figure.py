"""Figures and animations show what was found."""

import io

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from selection import slow

from lstm_jax import lstm
from lstm_jax.inspect import (
    diagnose,
    measure_cell,
    summary_figure,
    trace_figure,
    trace_gif,
)
from lstm_jax.inspect.style import order_of, visible
from lstm_jax.inspect.trace import LayerTrace, Trace
from lstm_jax.inspect.trace_figure import faded, read_by

T, D, K = 6, 8, 3


def traced(kind="image", width=K, backward=False) -> Trace:
    """A made-up reading of six rows of six, settled on class 1 with the fourth."""
    rng = np.random.default_rng(0)
    predictions = np.full((T, width), 0.5 / max(width - 1, 1))
    if width > 1:
        predictions[:3, 0] = predictions[3:, 1] = 0.5
    locations = np.arange(36).reshape(T, 6)
    saliency = rng.random({"image": (6, 6), "clip": (T, 6, 6)}.get(kind, (T, 6)))

    def held():
        state = {"c": rng.standard_normal((T, D)), "h": rng.standard_normal((T, D))}
        return LayerTrace(state, {name: rng.random((T, D)) for name in "ifo"})

    names = ["layer_0", "layer_0_backward"][: 1 + backward]
    return Trace(
        kind=kind,
        locations=locations if kind == "image" else np.arange(T)[:, None],
        layers={name: held() for name in names},
        predictions=predictions,
        target=1 if width > 1 else 0,
        saliency=saliency,
        decided=3 if width > 1 else 0,
    )


def image_of(kind):
    shape = {"image": (6, 6, 1), "clip": (T, 6, 6, 3)}.get(kind, (T, 6))
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize(
    ("kind", "width", "backward"),
    [
        ("image", K, True),
        ("clip", K, False),
        slow("features", 1, False),
        slow("image", 40, False),
    ],
)
def test_figure_and_animation(kind, width, backward):
    done = traced(kind, width, backward)
    options = dict(traced=done, target=0)
    if width == K:
        options["classes"] = ["one $", "two", "three"]
    fig = trace_figure(None, None, image_of(kind), **options)
    FigureCanvasAgg(fig).draw()
    words = fig.get_suptitle()
    if width == 1:
        assert words == "Predicts 0.5 after 6 steps"
    else:
        name, truth = ("two", r"one \$") if width == K else ("output 1", "output 0")
        assert words == (
            f"Predicts {name} (50 %); true: {truth}. Final from step 4 of 6 on"
        )
    labels = {ax.get_ylabel() for ax in fig.axes}
    assert {"c", "gate i", "gate f", "gate o"} <= labels
    assert ("h ←" in labels) == backward

    animation = Image.open(io.BytesIO(trace_gif(None, None, image_of(kind), **options)))
    assert (animation.size, animation.n_frames) == ((900, 520), T)
    pages = []
    for k in range(T):
        animation.seek(k)
        pages.append(np.asarray(animation.convert("RGB"), np.int32))
    assert animation.info["duration"] == 2000 and animation.info["loop"] == 0
    right = [page[260:465, 430:890] for page in pages]  # the state, as it is revealed
    drawn = [(np.ptp(part, axis=-1) > 12).mean() for part in right]
    assert all(a < b for a, b in zip(drawn, drawn[1:], strict=False))
    if kind == "image":
        assert (pages[0][20:280, 60:300] != pages[5][20:280, 60:300]).any()


def test_what_was_not_read_is_faded():
    seen = read_by(traced(), (6, 6), 2)
    assert seen[:3].all() and not seen[3:].any()
    colored = faded(np.full((6, 6), 0.25), seen)
    np.testing.assert_allclose(colored[:3], 0.25)
    assert colored[3:].min() > 0.75


def test_visible():
    assert visible(np.array([[[-2.0], [0.0], [2.0]]])).tolist() == [[0, 0.5, 1]]
    assert visible(None, np.array([[[51], [255]]], np.uint8)) == pytest.approx(
        np.array([[0.2, 1]])
    )
    assert visible(np.zeros((2, 2, 3))).shape == (2, 2, 3)


def test_units_come_in_the_order_in_which_they_move():
    held = np.zeros((9, 3))
    held[7:, 0], held[1:, 1], held[4:, 2] = 1.0, -1.0, 1.0
    assert order_of(held).tolist() == [1, 2, 0]


def test_health_says_what_was_found():
    cell = lstm(D)
    params = cell.init(jax.random.key(0), (2,))
    xs = jax.random.normal(jax.random.key(1), (12, 3, 2))
    measures = measure_cell(cell, params, xs, lambda ys: ys[-1].sum())
    assert diagnose(measures) == []
    assert summary_figure(measures).get_suptitle() == "No problems found"
    sick = measures.layers[0]._replace(still=np.ones(D, bool))
    layers = (sick, sick._replace(name="layer_1", gates={}))
    fig = summary_figure(measures._replace(layers=layers), {"w": 1e-3, "b": np.inf})
    FigureCanvasAgg(fig).draw()
    for ax in fig.axes[:2]:
        legend = ax.get_legend().get_window_extent()
        assert not any(legend.overlaps(each.get_window_extent()) for each in fig.axes)
        assert not legend.overlaps(ax.xaxis.label.get_window_extent())
    words = fig.get_suptitle()
    assert "dead_units: 8 of 8" in words and "large_updates" in words
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert [t for t in titles if "gate" in t] == [f"cell: gate {n}" for n in "ifo"]
    shares = [
        ax.get_title(loc="right")
        for ax in fig.axes
        if "saturated" in ax.get_title(loc="right")
    ]
    wanted = [
        f"{100 * np.mean(sick.gates[n].saturated):.0f} % saturated" for n in "ifo"
    ]
    assert shares == wanted
