"""Orders of reading: what each step holds, and the way back."""

import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.models import sequences

IMAGES = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype(np.float32)
TALL = np.random.default_rng(1).standard_normal((2, 4, 6, 1)).astype(np.float32)
ORDERS = {
    "rows": (sequences.rows(), (6, 18)),
    "columns": (sequences.columns(), (6, 18)),
    "both": (sequences.rows_and_columns(), (6, 36)),
    "pixels": (sequences.pixels(), (36, 3)),
    "permuted": (sequences.permuted(7), (36, 3)),
    "patches": (sequences.patches(2), (9, 12)),
}


@pytest.mark.parametrize("name", ORDERS)
def test_there_and_back(name):
    order, shape = ORDERS[name]
    xs = order.to_sequence(jnp.asarray(IMAGES))
    assert xs.shape == (2, *shape)
    np.testing.assert_array_equal(order.to_image(xs, (6, 6, 3)), IMAGES)


@pytest.mark.parametrize("name", ["rows", "columns", "pixels", "permuted", "patches"])
def test_there_and_back_where_height_is_not_width(name):
    order, _ = ORDERS[name]
    xs = order.to_sequence(jnp.asarray(TALL))
    assert xs.size == TALL.size
    np.testing.assert_array_equal(order.to_image(xs, (4, 6, 1)), TALL)


def test_what_a_step_holds():
    def step(name, t):
        return np.asarray(ORDERS[name][0].to_sequence(jnp.asarray(IMAGES))[0, t])

    image = IMAGES[0]
    np.testing.assert_array_equal(step("rows", 2), image[2].ravel())
    np.testing.assert_array_equal(step("columns", 2), image[:, 2].ravel())
    np.testing.assert_array_equal(
        step("both", 2), np.concatenate([image[2].ravel(), image[:, 2].ravel()])
    )
    np.testing.assert_array_equal(step("pixels", 8), image[1, 2])
    np.testing.assert_array_equal(step("patches", 4), image[2:4, 2:4].ravel())


def test_a_permutation_moves_all_images_alike_and_differs_by_seed():
    xs = np.asarray(sequences.permuted(0).to_sequence(jnp.asarray(IMAGES)))
    other = np.asarray(sequences.permuted(1).to_sequence(jnp.asarray(IMAGES)))
    pixels = IMAGES.reshape(2, 36, 3)
    assert (xs != pixels).any() and (xs != other).any()
    np.testing.assert_array_equal(np.sort(xs, axis=1), np.sort(pixels, axis=1))
    where = [int(np.where((pixels[0] == x).all(-1))[0][0]) for x in xs[0]]
    np.testing.assert_array_equal(xs[1], pixels[1][where])
    # The legacy generator's stream is frozen: these never change.
    np.testing.assert_array_equal(
        np.random.RandomState(7).permutation(5), [0, 3, 2, 1, 4]
    )


def test_messages():
    with pytest.raises(ValueError, match="images are 4x6.*need a square"):
        sequences.rows_and_columns().to_sequence(jnp.asarray(TALL))
    with pytest.raises(ValueError, match="4x6 cannot be divided into squares of 3"):
        sequences.patches(3).to_sequence(jnp.asarray(TALL))
