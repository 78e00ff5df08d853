"""Legends, labels and numbers stay off the data and off one another."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lstm_jax import metrics
from lstm_jax.figures import curves, overlay, reliability_figure
from lstm_jax.figures.video_plots import error_over_time
from lstm_jax.tasks import classification, regression


def history():
    rows = []
    for step in range(10, 110, 10):
        for split in ("train", "validation"):
            row = {"step": step, "split": split, "loss": 100 / step}
            row |= {"accuracy": step / 200, "top5_accuracy": step / 120}
            rows.append(row | {"learning_rate": 1e-5 * step, "gradient_norm": 1.0})
    return rows


def reliability():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.3] * 4, 300)
    return metrics.reliability(p, rng.integers(0, 4, 300))


def roc(width):
    p = np.random.default_rng(1).dirichlet([1] * width, 200)
    task = classification([f"a long name of class {k}" for k in range(width)])
    return task.figures(p, np.arange(200) % width)["roc"]


def regressed(name):
    values = np.random.default_rng(2).normal(size=(40, 2))
    return regression(2, unit="mm").figures(values, values + 0.1)[name]


FIGURES = {
    "predicted": lambda: regressed("predictions"),
    "residuals": lambda: regressed("residuals"),
    "curves": lambda: curves(history()),
    "one step": lambda: curves(history()[:1]),
    "overlay": lambda: overlay({"a": history(), "b": history()}, ("loss", "accuracy")),
    "reliability": lambda: reliability_figure(reliability()),
    "roc": lambda: roc(12),
    "errors": lambda: error_over_time({"network": [3.0, 4.0]}, first=11),
}


def legends_of(fig):
    own = [ax.get_legend() for ax in fig.axes if ax.get_legend()]
    return own + list(fig.legends)


def assert_off_the_data(fig):
    FigureCanvasAgg(fig).draw()
    legends = legends_of(fig)
    assert legends
    whole = fig.bbox
    for legend in legends:
        box = legend.get_window_extent().padded(-1)
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1
        for ax in fig.axes:
            assert not box.overlaps(ax.get_window_extent()), ax.get_title("left")
            for label in (ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels()):
                if label.get_text():
                    assert not box.overlaps(label.get_window_extent()), label


@pytest.mark.parametrize("name", FIGURES)
def test_legends_are_off_the_data(name):
    assert_off_the_data(FIGURES[name]())


@pytest.mark.parametrize("width", [10, 40])
def test_counts_of_a_confusion_matrix_fit_their_cells(width):
    n = 200 * width
    targets = np.arange(n) % width
    chosen = np.where(np.arange(n) < n // 2, targets, (targets + 1) % width)
    p = np.eye(width)[chosen]
    task = classification([f"class number {k}" for k in range(width)])
    fig = task.figures(p, targets)["confusion_matrix"]
    FigureCanvasAgg(fig).draw()
    ax = fig.axes[0]
    cell = ax.get_window_extent().width / width
    assert len(ax.texts) == 2 * width
    for text in ax.texts:
        box = text.get_window_extent()
        assert max(box.width, box.height) < cell and text.get_fontsize() >= 5
