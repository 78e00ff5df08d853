"""Colours that change at random, against loops and NumPy."""

import jax
import numpy as np
import pytest

from lstm_jax.training import color_jitter, rand_augment
from lstm_jax.training.affine import sample
from lstm_jax.training.photometric import (
    GREY,
    _autocontrast,
    _blurred,
    _placement,
    _posterized,
)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


each = pytest.mark.parametrize(
    "change, amount", [(color_jitter, 0.4), (rand_augment, 9)]
)


def jitted(image, key, amount):
    """The same, by NumPy."""
    low = max(0, 1 - amount)
    u = jax.random.uniform(key, (3,), "float32", low, 1 + amount)
    brightness, contrast, saturation = np.asarray(u, np.float64)
    x = np.clip(brightness * image.astype(np.float64), 0, 255)
    mean = (x @ np.array(GREY)).mean()
    x = np.clip(mean + contrast * (x - mean), 0, 255)
    grey = (x @ np.array(GREY))[..., None]
    return np.clip(grey + saturation * (x - grey), 0, 255)


@pytest.mark.parametrize("amount", [0.4, 1.5])
def test_jitter_is_brightness_contrast_and_saturation(amount):
    x = images(6, 5, 4, 3)
    got = jax.jit(color_jitter, static_argnums=2)(x, keys(6), amount)
    want = [jitted(*pair, amount) for pair in zip(x, keys(6), strict=True)]
    np.testing.assert_allclose(got, want, atol=1e-3)


@each
def test_frames_change_alike_and_examples_by_their_keys(change, amount):
    x = np.repeat(images(1, 6, 7, 3), 12, 0)
    run = jax.jit(change, static_argnums=2)
    out = np.asarray(run(x, keys(6)[np.arange(12) % 6], amount))
    # The same program for both; its results do not depend on the place in the batch.
    np.testing.assert_allclose(out[:6], out[6:], atol=1e-3)
    assert len({one.round(2).tobytes() for one in out[:6]}) > 2
    clips = np.asarray(run(x[:6, None].repeat(2, 1), keys(6), amount))
    np.testing.assert_allclose(clips[:, 0], clips[:, 1], atol=1e-3)
    assert out.shape == x.shape and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 255


@each
def test_nothing_is_nothing_and_a_wrong_amount_is_refused(change, amount):
    x = images(2, 4, 4, 1)
    np.testing.assert_array_equal(change(x, keys(2), 0), x)
    assert np.isfinite(change(x, keys(2), amount)).all()  # grey images, too
    with pytest.raises(ValueError, match=f"{change.__name__}: got .*=-1"):
        change(x, keys(2), -1)


def test_operations_of_rand_augment():
    x = images(4, 5, 3)
    np.testing.assert_array_equal(_posterized(x, 4), x // 16 * 16)
    low, high = x.min((0, 1)), x.max((0, 1))
    np.testing.assert_allclose(
        _autocontrast(x), (x - low) / (high - low) * 255, atol=1e-3
    )
    np.testing.assert_array_equal(_autocontrast(np.full_like(x, 7)), np.full_like(x, 7))
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)], "edge")
    blurred = sum(padded[i : i + 4, j : j + 5] for i in range(3) for j in range(3))
    np.testing.assert_allclose(_blurred(x), (blurred + 4 * x) / 13, atol=1e-3)


def moved(image, operation, amount):
    sides = np.float32(image.shape[:2])
    return sample(image, *_placement(operation, amount, sides))


def test_placements_are_shears_and_translations():
    x = images(9, 9, 1)
    for operation in range(5):
        still = moved(x, operation, np.float32(0))
        np.testing.assert_allclose(still, x, atol=1e-3)
    down = moved(x, 3, np.float32(1))  # a third of nine rows
    np.testing.assert_allclose(down[:6], x[3:], atol=1e-3)
    assert not np.asarray(down[6:]).any()
    along = moved(x, 4, np.float32(-1))
    np.testing.assert_allclose(along[:, 3:], x[:, :6], atol=1e-3)
    sheared = moved(x, 2, np.float32(0.5))
    np.testing.assert_allclose(sheared[4], x[4], atol=1e-3)  # the middle row stays
    assert np.abs(np.asarray(sheared[0]) - x[0]).max() > 1
    turned = moved(x, 0, np.float32(1))
    assert np.abs(np.asarray(turned[4, 4]) - x[4, 4]).max() < 1e-3


def test_all_operations_occur():
    x = np.tile(images(1, 12, 12, 3), (300, 1, 1, 1))
    out = np.asarray(jax.jit(rand_augment, static_argnums=2)(x, keys(300), 6))
    # 13 operations with signs, of which pairs are drawn.
    assert len({one.round(1).tobytes() for one in out}) > 80
