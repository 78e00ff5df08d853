"""Precision against recall, and the picture sheet of what went wrong."""

import numpy as np
import pytest

from lstm_jax.tasks import (
    classification,
    middle_frames,
    multilabel,
    one_against_rest,
    picture_sheet,
    precision_recall_figure,
)


def test_pairs_hold_known_entries_only():
    p = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    task = classification(("no", "yes"))
    pairs = one_against_rest(task, p, np.array([1, 0, 0]))
    assert [truth.tolist() for _, truth in pairs] == [[False, True, True], [True, 0, 0]]
    np.testing.assert_array_equal(pairs[1][0], p[:, 1])
    targets = np.array([[1, np.nan], [0, 1], [np.nan, np.nan]])
    (a, b) = one_against_rest(multilabel("ab"), p, targets)
    assert a[0].tolist() == [0.2, 0.6] and a[1].tolist() == [True, False]
    assert b[0].tolist() == [0.4] and b[1].tolist() == [True]


@pytest.mark.parametrize("width, named", [(3, 3), (14, 10)])
def test_the_hardest_curves_have_a_name(width, named):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, width, 200)
    p = rng.dirichlet(np.ones(width), 200) + np.eye(width)[targets] * rng.random(width)
    p /= p.sum(-1, keepdims=True)
    task = classification([f"${k}" for k in range(width)])
    pairs = one_against_rest(task, p, targets)
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


def test_a_clip_is_shown_by_the_middle_of_its_valid_frames():
    clips = np.arange(2 * 6 * 1 * 1 * 1, dtype=np.uint8).reshape(2, 6, 1, 1, 1)
    assert middle_frames(clips).ravel().tolist() == [3, 9]
    lengths = np.array([1, 4])
    assert middle_frames(clips, lengths).ravel().tolist() == [0, 8]
    pictures = clips[:, 0]
    assert middle_frames(pictures) is pictures


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count, axes", [(1, 1), (7, 12)])
def test_a_sheet_shows_each_picture_under_its_words(count, axes, channels):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (count, 8, 5, channels), np.uint8)
    captions = [f"{k} $\nfor a very long name of a class" for k in range(count)]
    figure = picture_sheet(pictures, captions, title="worst")
    figure.canvas.draw()
    assert len(figure.axes) == axes
    for k, ax in enumerate(figure.axes[:count]):
        shown = ax.images[0].get_array()
        wanted = pictures[k] if channels == 3 else pictures[k][..., 0]
        np.testing.assert_array_equal(shown, wanted)
        assert ax.get_title() == f"{k} \\$\nfor a very long name of a…"
    assert not any(ax.images for ax in figure.axes[count:])
