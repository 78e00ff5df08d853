"""Overlaps of boxes, and which answer stands for which thing, against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.metrics.boxes import area, assign, giou, iou, overlaps


def random_boxes(rng, *shape):
    """Corners of boxes in an image of 10 x 8, some of them of no area."""
    points = rng.random((*shape, 2, 2)) * [10, 8]
    points[..., 0, 0, :] = points[..., 0, 1, :]
    return np.concatenate([points.min(-2), points.max(-2)], -1)


def pair(a, b):
    """Intersection, union and the area around, of two boxes, from intervals."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = map(np.float64, (a, b))
    width, height = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
    both = width * height if width > 0 and height > 0 else 0.0
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - both
    around = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return both, union, around


@pytest.mark.parametrize("lib", [np, jnp])
def test_overlaps_equal_loops(lib):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 3, 5), random_boxes(rng, 3, 4)
    a[:, 3] = b[:, 2]  # the same
    both, union, share = np.zeros((3, 3, 5, 4))
    for n, i, j in np.ndindex(3, 5, 4):
        both[n, i, j], union[n, i, j] = pair(a[n, i], b[n, j])[:2]
        if union[n, i, j]:
            share[n, i, j] = both[n, i, j] / union[n, i, j]
    assert (both > 0).mean() > 0.1 and (both == 0).any() and (union > 0).any()
    one, other = lib.asarray(a, lib.float32), lib.asarray(b, lib.float32)
    options = dict(rtol=1e-5, atol=1e-5)  # float32, areas up to 80
    compiled = (lambda f: f) if lib is np else jax.jit
    for got, wanted in zip(compiled(overlaps)(one, other), (both, union), strict=True):
        assert isinstance(got, np.ndarray) == (lib is np)
        np.testing.assert_allclose(got, wanted, **options)
    np.testing.assert_allclose(compiled(iou)(one, other), share, **options)
    sides = a[..., 2:] - a[..., :2]
    np.testing.assert_allclose(area(one), sides.prod(-1), **options)


def test_iou_counts_the_cells_of_a_grid():
    rng = np.random.default_rng(1)
    low = rng.integers(0, 12, (2, 6, 2))
    a, b = np.concatenate([low, low + rng.integers(1, 9, low.shape)], -1)
    got = iou(a.astype(np.float64), b.astype(np.float64))
    for i, j in np.ndindex(6, 6):
        one, other = np.zeros((2, 21, 21), bool)
        for grid, (x0, y0, x1, y1) in ((one, a[i]), (other, b[j])):
            grid[y0:y1, x0:x1] = True
        assert got[i, j] == (one & other).sum() / (one | other).sum()


def test_boxes_of_no_area_meet_nothing():
    empty = np.array([[2.0, 2, 2, 5], [2, 2, 2, 2]])
    whole = np.array([[0.0, 0, 8, 8]])
    np.testing.assert_array_equal(iou(empty, np.concatenate([empty, whole])), 0)


def test_giou_equals_a_loop_and_has_a_gradient_apart():
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 40), random_boxes(rng, 40)
    a[0] = b[0] = [1, 2, 4, 6]
    a[1], b[1] = [0, 0, 1, 1], [3, 4, 5, 6]
    a[2], b[2] = [0, 0, 2, 2], [2, 0, 4, 2]  # they touch
    boxes = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    gious, gradients = jax.jit(jax.vmap(jax.value_and_grad(giou)))(*boxes)
    for value, one, other in zip(np.asarray(gious), a, b, strict=True):
        both, union, around = pair(one, other)
        wanted = both / union - (around - union) / around if union else -1
        assert value == pytest.approx(wanted, abs=1e-5)  # float32, a difference of 1s
    assert gious[0] == 1 and gious[1] == pytest.approx(5 / 30 - 1, abs=1e-6)
    assert np.isfinite(gradients).all()
    # Apart, the loss of 1 - GIoU draws the nearer corner closer.
    assert (np.asarray(gradients)[1, 2:] > 0).all()


@pytest.mark.parametrize("rows, columns", [(4, 4), (5, 3)])
def test_assignments_are_the_best_of_all(rows, columns):
    rng = np.random.default_rng(rows)
    costs = rng.normal(size=(60, rows, columns)).astype(np.float32)
    costs[:20] = rng.integers(0, 3, (20, rows, columns))  # many are equally good
    every = np.array(list(itertools.permutations(range(rows), columns)))
    found = np.asarray(jax.jit(jax.vmap(assign))(jnp.asarray(costs)))
    assert found.dtype == np.int32
    for cost, chosen in zip(costs, found, strict=True):
        assert len(set(chosen)) == columns and set(chosen) <= set(range(rows))
        sums = cost[every, np.arange(columns)].sum(-1)
        total = cost[chosen, np.arange(columns)].sum()
        assert total == pytest.approx(sums.min(), abs=1e-5)  # float32 potentials


def test_a_column_of_one_value_takes_what_is_left():
    rng = np.random.default_rng(3)
    costs = rng.normal(size=(30, 5, 2)).astype(np.float32)
    wide = np.concatenate([np.zeros((30, 5, 1)), costs, np.zeros((30, 5, 2))], -1)
    found = jax.jit(jax.vmap(assign))(jnp.asarray(wide, jnp.float32))
    every = np.array(list(itertools.permutations(range(5), 2)))
    for cost, chosen in zip(costs, np.asarray(found), strict=True):
        assert sorted(chosen) == list(range(5))
        best = every[cost[every, np.arange(2)].sum(-1).argmin()]
        np.testing.assert_array_equal(chosen[1:3], best)
