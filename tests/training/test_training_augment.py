import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.training import shift


def shifted(image, a, b):
    """y[i, j] = x[i + a, j + b], zero outside; loops."""
    out = np.zeros_like(image)
    height, width, _ = image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i + a < height and 0 <= j + b < width:
                out[i, j] = image[i + a, j + b]
    return out


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_shift_occurs_and_is_right(dtype):
    images = np.random.default_rng(0).integers(1, 256, (200, 5, 4, 2)).astype(dtype)
    keys = jax.random.split(jax.random.key(1), 200)
    got = np.asarray(jax.jit(shift, static_argnums=2)(images, keys, 1))
    assert got.dtype == dtype
    seen = set()
    for image, out in zip(images, got, strict=True):
        matches = [
            (a, b)
            for a in (-1, 0, 1)
            for b in (-1, 0, 1)
            if np.array_equal(out, shifted(image, a, b))
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 9


def test_one_image_does_not_depend_on_the_others():
    images = jnp.arange(3 * 4 * 4.0).reshape(3, 4, 4, 1)
    keys = jax.random.split(jax.random.key(0), 3)
    alone = shift(images[1:2], keys[1:2], 2)
    np.testing.assert_array_equal(shift(images, keys, 2)[1:2], alone)


def test_zero_pixels_change_nothing_and_negative_are_refused():
    images = jnp.ones((2, 3, 3, 1))
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(shift(images, keys, 0), images)
    with pytest.raises(ValueError, match="pixels=-1, want 0 or more"):
        shift(images, keys, -1)
