"""Images, masks and boxes move alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lstm_jax.training import Affine, random_affine
from lstm_jax.training.augment import _rotated

SIZE = 24, 30
AMOUNTS = dict(translate=3, rotate=20, zoom=0.2, flip=0.5)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def maps(count=8, **amounts):
    return jax.jit(lambda keys: random_affine(keys, **amounts))(keys(count))


def identity(count):
    return Affine(jnp.broadcast_to(jnp.eye(2), (count, 2, 2)), jnp.zeros((count, 2)))


def disc(row, column, radius=3.0):
    i, j = np.indices(SIZE)
    return np.clip(radius + 0.5 - np.hypot(i - row, j - column), 0, 1)


def test_no_amounts_change_nothing():
    affine = maps(3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, *SIZE, 2), np.uint8)
    # Coordinates below 32 are exact to 2**-19, times steps of up to 255.
    np.testing.assert_allclose(affine.images(images), images, atol=2e-3)
    masks = rng.integers(0, 9, (3, *SIZE), np.uint8)
    moved = affine.masks(masks, 255)
    assert moved.dtype == np.uint8
    np.testing.assert_array_equal(moved, masks)
    boxes = np.float32([[[2, 3, 8, 9]]] * 3)
    moved, inside = affine.boxes(boxes, SIZE)
    np.testing.assert_allclose(moved, boxes, atol=1e-5)
    np.testing.assert_allclose(inside, 1, atol=1e-5)


@pytest.mark.parametrize("clips", [False, True])
def test_a_disc_its_mask_and_its_box_move_alike(clips):
    affine, row, column = maps(**AMOUNTS), 10, 16
    image = 255 * disc(row, column).astype(np.float32)
    mask = (image > 127).astype(np.uint8)
    box = np.float32([[column - 3, row - 3, column + 4, row + 4]])
    lead = (8, 2) if clips else (8,)
    images = np.broadcast_to(image[..., None], (*lead, *SIZE, 1))
    found = np.asarray(affine.images(images))[..., 0].reshape(-1, *SIZE)
    masks = affine.masks(np.broadcast_to(mask, (*lead, *SIZE)), 255)
    masks = np.asarray(masks).reshape(-1, *SIZE)
    boxes, inside = affine.boxes(np.broadcast_to(box, (*lead, 1, 4)), SIZE)
    assert inside.shape == (*lead, 1)
    boxes = np.asarray(boxes).reshape(-1, 4)
    i, j = np.indices(SIZE)
    for k in range(len(found)):
        total = found[k].sum()
        at = (found[k] * i).sum() / total, (found[k] * j).sum() / total
        x0, y0, x1, y1 = boxes[k]
        # The box's centre is that of the disc, whose pixels have their centre at 1/2.
        np.testing.assert_allclose(
            ((y0 + y1) / 2, (x0 + x1) / 2), np.add(at, 0.5), atol=0.1
        )
        there = masks[k] == 1
        agree = (there == (found[k] > 127))[masks[k] != 255].mean()
        assert agree > 0.97 and 15 < there.sum() < 60
        rows, columns = np.nonzero(there)
        assert y0 - 1 < rows.min() and rows.max() < y1 + 1
        assert x0 - 1 < columns.min() and columns.max() < x1 + 1


def test_a_map_is_the_flip_the_rotation_and_the_translation_it_draws():
    affine = maps(4000, **AMOUNTS)
    matrix, shift = np.asarray(affine.matrix, np.float64), np.asarray(affine.shift)
    determinant = np.linalg.det(matrix)
    assert abs((determinant < 0).mean() - 0.5) < 0.032  # four standard deviations
    scale = np.sqrt(np.abs(determinant))
    uniform = scipy.stats.uniform(-np.log(1.2), 2 * np.log(1.2))
    assert scipy.stats.kstest(np.log(scale), uniform.cdf).pvalue > 1e-3
    angle = np.degrees(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    uniform = scipy.stats.uniform(-20, 40)
    assert scipy.stats.kstest(angle, uniform.cdf).pvalue > 1e-3
    gram = matrix @ matrix.swapaxes(1, 2) / scale[:, None, None] ** 2
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(2), gram.shape), atol=1e-5)
    assert set(shift.ravel()) == set(range(-3, 4))


def test_a_rotation_is_that_of_rotate():
    image = np.random.default_rng(0).random((1, *SIZE, 1), np.float32)
    quarter = Affine(jnp.array([[[0.0, -1.0], [1.0, 0.0]]]), jnp.zeros((1, 2)))
    square = image[:, :24, :24]
    got = quarter.images(square)[0, ..., 0]
    want = _rotated(jnp.asarray(square[0]), jnp.float32(np.pi / 2))[..., 0]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_what_leaves_the_image_is_cut():
    affine = identity(1)._replace(shift=jnp.array([[0.0, 20.0]]))
    boxes, inside = affine.boxes(np.float32([[[4, 4, 12, 8], [12, 2, 14, 4]]]), SIZE)
    np.testing.assert_allclose(boxes, [[[24, 4, 30, 8], [30, 2, 30, 4]]])
    np.testing.assert_allclose(inside, [[0.75, 0]])
    masks = affine.masks(np.ones((1, *SIZE), np.uint8), 255)
    assert (masks[0, :, :20] == 255).all() and (masks[0, :, 20:] == 1).all()
