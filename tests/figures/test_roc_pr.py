"""Precision against recall from counts."""

import numpy as np
import pytest

from lstm_jax.figures import precision_recall_figure
from lstm_jax.tasks.classification import one_against_rest


@pytest.mark.parametrize("width, named", [(3, 3), (14, 10)])
def test_the_hardest_curves_have_a_name(width, named):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, width, 200)
    p = rng.dirichlet(np.ones(width), 200) + np.eye(width)[targets] * rng.random(width)
    p /= p.sum(-1, keepdims=True)
    pairs = one_against_rest(p, targets)
    figure = precision_recall_figure(pairs, [f"${k}" for k in range(width)])
    figure.canvas.draw()
    ax = figure.axes[0]
    assert len(ax.lines) == width
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(texts) == named and all(r"\$" in text for text in texts)
    # of the first named curve: precision at each recall, from counts
    (line,) = [line for line in ax.lines if line.get_label() == texts[0]]
    k = int(texts[0].split(r"\$")[1])
    scores, truth = pairs[k]
    points = {
        (truth[scores >= at].sum() / truth.sum(), truth[scores >= at].mean())
        for at in scores
    }
    drawn = {tuple(point) for point in line.get_xydata()} - {(0.0, 1.0)}
    assert drawn <= points and len(drawn) > 10


def test_no_curve_without_both_answers():
    figure = precision_recall_figure([(np.ones(3), np.ones(3, bool))], ["a"])
    assert "no curve" in figure.axes[0].texts[0].get_text()
