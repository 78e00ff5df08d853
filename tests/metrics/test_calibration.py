"""Calibration against loops, and what its image shows."""

import numpy as np
import pytest

from lstm_jax.figures import reliability_figure
from lstm_jax.metrics import reliability


def loops(p, targets, bins):
    """Expected calibration error, one example and one bin at a time."""
    total = 0.0
    for m in range(bins):
        inside = []
        for row, target in zip(p, targets, strict=True):
            confidence = max(row)
            first = confidence == 0 and m == 0
            if m / bins < confidence <= (m + 1) / bins or first:
                inside.append((confidence, list(row).index(confidence) == target))
        if inside:
            confidence, right = (np.mean(x) for x in zip(*inside, strict=True))
            total += len(inside) / len(p) * abs(right - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("width", [2, 5])
def test_expected_calibration_error_equals_loops(width, bins):
    rng = np.random.default_rng(width)
    p = rng.dirichlet(np.full(width, 0.4), 300)
    p[:20] = 1 / width  # ties
    targets = rng.integers(0, width, 300)
    found = reliability(p, targets, bins)
    assert found.ece == pytest.approx(loops(p, targets, bins), abs=1e-14)
    assert found.count.sum() == 300 and len(found.count) == bins
    assert np.isnan(found.accuracy[found.count == 0]).all()


def test_by_hand():
    # in (0.6, 0.8]: confidence 0.7 and 0.8, one of two right; in (0.8, 1]: one, right
    p = np.array([[0.7, 0.3], [0.2, 0.8], [1.0, 0.0]])
    found = reliability(p, np.array([0, 0, 0]), bins=5)
    assert found.count.tolist() == [0, 0, 0, 2, 1]
    np.testing.assert_allclose(found.confidence[3:], [0.75, 1])
    np.testing.assert_allclose(found.accuracy[3:], [0.5, 1])
    assert found.ece == pytest.approx(2 / 3 * 0.25)


def test_certain_and_right_is_calibrated_and_rounding_above_one_counts():
    p = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]] * np.float32(1 + 1e-7)
    found = reliability(p, np.array([0, 1, 2, 1]))
    assert found.count[-1] == 4
    assert found.ece == pytest.approx(0, abs=2e-7)  # what p exceeds 1 by
    assert reliability(p, np.array([1, 2, 0, 0])).ece == pytest.approx(1, abs=2e-7)
    with pytest.raises(ValueError, match="bins=0, expected 1 or more"):
        reliability(p, np.array([0, 1, 2, 1]), 0)


def test_the_diagram_draws_each_full_bin_up_to_its_accuracy():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.5), 200)
    found = reliability(p, rng.integers(0, 3, 200))
    figure = reliability_figure(found)
    figure.canvas.draw()
    top, below = figure.axes
    full = found.count > 0
    rights, gaps = top.containers
    heights = [bar.get_height() for bar in rights]
    np.testing.assert_allclose(heights, found.accuracy[full])
    ends = [bar.get_y() + bar.get_height() for bar in gaps]
    np.testing.assert_allclose(ends, found.confidence[full])
    assert [bar.get_height() for bar in below.containers[0]] == [
        *found.count[full].tolist()
    ]
    assert f"{found.ece:.4f}" in top.get_title()
