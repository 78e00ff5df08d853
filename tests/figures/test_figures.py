"""What figures show, read from their parts, and that none leaves global state."""

import subprocess
import sys

import numpy as np
import pytest
from selection import slow

from lstm_jax.figures import curves, overlay
from lstm_jax.tasks import classification, regression


def probabilities(n, width, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.r_[np.arange(width), rng.integers(0, width, n - width)]
    logits = rng.normal(size=(n, width))
    logits[np.arange(n), targets] += 3
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True), targets


@pytest.mark.parametrize(
    "width, counted", [(2, True), (20, True), (40, True), (41, False)]
)
def test_confusion_matrix(width, counted):
    p, targets = probabilities(120, width)
    task = classification([f"class {k}" for k in range(width)])
    figure = task.figures(p, targets)["confusion_matrix"]
    figure.canvas.draw()
    ax = figure.axes[0]
    matrix = np.array(task.report(p, targets)["confusion_matrix"])
    printed = [int(text.get_text()) for text in ax.texts]
    assert printed == (matrix[matrix > 0].tolist() if counted else [])
    shares = ax.images[0].get_array()
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares, matrix / matrix.sum(1, keepdims=True))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert f"{np.trace(matrix)} of 120 right" in ax.get_title()
    assert ax.get_yticklabels()[1].get_text() == f"class {1 if width <= 40 else 2}"


@pytest.mark.parametrize("width, named", [(2, 2), slow(10, 10), (12, 10)])
def test_roc_names_the_hardest(width, named):
    p, targets = probabilities(150, width)
    task = classification([f"c{k}" for k in range(width)])
    ax = task.figures(p, targets)["roc"].axes[0]
    report = task.report(p, targets)
    rows = report["per_class"]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    hardest = sorted(rows, key=lambda row: row["roc_auc"])[:named]
    assert set(labels) == {f"{row['roc_auc']:.4f}  {row['name']}" for row in hardest}
    macro = f"{report['macro']['roc_auc']:.4f}"
    assert macro in ax.get_legend().get_title().get_text()
    assert len(ax.lines) == width + 2  # the curves, their mean, the diagonal


def test_names_are_text_not_formulas():
    p, targets = probabilities(30, 3)
    names = ["$x", "_hidden", "a name much longer than any legend can hold"]
    for figure in classification(names).figures(p, targets).values():
        figure.canvas.draw()
    legend = figure.axes[0].get_legend()
    assert len(legend.get_texts()) == 3


def test_regression_figures_are_in_the_unit():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 1)) * 20
    figures = regression(unit="degrees").figures(targets + 2, targets)
    assert set(figures) == {"predictions", "residuals"}
    ax = figures["predictions"].axes[0]
    assert ax.get_xlabel() == "true (degrees)"
    assert ax.get_ylabel() == "predicted (degrees)"
    assert "MAE 2 degrees" in ax.get_title()
    np.testing.assert_array_equal(*ax.lines[0].get_xydata().T)  # the diagonal
    np.testing.assert_allclose(
        ax.collections[0].get_offsets(), np.c_[targets, targets + 2]
    )
    left, right = figures["residuals"].axes
    np.testing.assert_allclose(left.collections[0].get_offsets()[:, 1], 2)
    assert left.get_legend().get_texts()[0].get_text() == "mean 2 degrees"
    assert right.get_title() == "RMSE 2 degrees"


def test_many_outputs_say_that_some_are_left_out():
    values = np.random.default_rng(0).normal(size=(10, 6))
    for figure in regression(6).figures(values, values).values():
        assert "the first 4 of 6" in figure.get_suptitle()


def history(metric="accuracy"):
    rows = []
    for step in range(10, 110, 10):
        row = {"step": step, "split": "train", "loss": 100 / step, metric: step / 200}
        rows.append({**row, "learning_rate": 0.1, "gradient_norm": 1.0})
    for step, value in ((30, 0.2), (60, 0.5), (90, 0.5), (100, 0.3)):
        rows.append({"step": step, "split": "validation", "loss": 2.0, metric: value})
    return rows


@pytest.mark.parametrize("metric, step", [("accuracy", 60), ("mae", 30), ("odd", 30)])
def test_curves_mark_the_best_validation_step(metric, step):
    figure = curves(history(metric))
    figure.canvas.draw()
    titles = [ax.get_title("left") for ax in figure.axes]
    word = {"mae": "mean absolute error"}.get(metric, metric)
    assert titles == ["loss", word, "learning rate", "gradient norm"]
    assert f"at step {step}" in figure.get_suptitle()
    for ax in figure.axes[:2]:
        labels = [line.get_label() for line in ax.lines]
        assert labels[:2] == ["train", "validation"]
        assert ax.lines[2].get_xdata()[0] == step
        assert labels[2].startswith("best step")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata()[:3], [10, 20, 30])


def test_curves_of_little():
    assert curves([]).texts[0].get_text() == "nothing was logged"
    nan = {"step": 2, "split": "train", "loss": float("nan"), "accuracy": None}
    figure = curves([{"step": 1, "split": "train", "loss": np.float32(1)}, nan])
    figure.canvas.draw()
    assert len(figure.axes) == 1
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 1]]


def test_long_runs_are_smoothed_without_a_lag():
    rows = [{"step": k, "split": "train", "loss": 1.0 + k} for k in range(100)]
    raw, smooth = curves(rows).axes[0].lines
    np.testing.assert_allclose(smooth.get_ydata(), raw.get_ydata())


def test_overlaid_curves_are_those_of_the_validation():
    def history(values, split="validation"):
        return [dict(step=10 * k, split=split, loss=v) for k, v in enumerate(values)]

    histories = {
        "a $run$": history([3.0, 2.0, 1.0]) + history([9.0], "train"),
        "none": [],
        "b": history([4.0, None, 2.0]),
    }
    figure = overlay(histories, ("loss", "accuracy"))
    figure.canvas.draw()
    loss, accuracy = figure.axes
    lines = [line.get_xydata().tolist() for line in loss.lines]
    assert lines == [[[0, 3], [10, 2], [20, 1]], [[0, 4], [20, 2]]]
    assert not accuracy.lines and "nothing" in accuracy.texts[0].get_text()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [r"a \$run\$", "b"]


@pytest.mark.slow
def test_no_pyplot_and_nothing_heavy_at_import():
    code = """
import sys
from lstm_jax import figures, metrics, tasks
assert not {"matplotlib", "sklearn"} & set(sys.modules)
import numpy as np
task = tasks.classification(["a", "b"])
p = np.array([[0.9, 0.1], [0.2, 0.8]])
for figure in task.figures(p, np.array([0, 1])).values():
    figure.canvas.draw()
figures.curves([{"step": 1, "split": "train", "loss": 1.0}]).canvas.draw()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=_root())


def _root():
    import pathlib

    return pathlib.Path(__file__).parents[2]
