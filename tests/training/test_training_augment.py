import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lstm_jax.training import (
    crop,
    cutmix,
    cutout,
    erase,
    flip,
    mixup,
    noise,
    rotate,
    translate,
    warp,
    zoom,
)
from lstm_jax.training.augment import _rotated

# An amount that changes something, and the one that changes nothing.
AMOUNTS = {
    translate: (2, 0),
    flip: (0.5, 0),
    crop: (0.3, 1),
    rotate: (30, 0),
    cutout: (3, 0),
    noise: (20, 0),
    mixup: (0.5, 0),
    zoom: (0.3, 0),
    erase: (0.7, 0),
    cutmix: (0.5, 0),
}
SAME_DTYPE = (translate, flip, cutout, erase)  # the others return float32
# Rounding of a sum of four float32 products of up to 255, and of the coordinates
# below 16: a few of 255 * 16 * 2**-24.
ATOL = 1e-3

each = pytest.mark.parametrize("change", AMOUNTS, ids=lambda f: f.__name__)
each_alone = pytest.mark.parametrize(
    "change", [f for f in AMOUNTS if f not in (mixup, cutmix)], ids=lambda f: f.__name__
)


def compiled(change):
    """The amounts are fixed when it compiles."""
    return jax.jit(change, static_argnums=(2, 3) if change is cutout else 2)


def random_images(*shape, dtype="float32"):
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


def split(seed, count):
    """[count] keys, without a program to compile for each count."""
    data = np.random.default_rng(seed).integers(0, 2**32, (count, 2), np.uint32)
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def ramps(height, width):
    """[H, W, 3]: row, column and 1. Bilinear reading gives back where it read."""
    rows, columns = np.indices((height, width)).astype(np.float32)
    return np.stack([rows, columns, np.ones_like(rows)], -1)


def bilinear(plane, row, column):
    """One value between the pixels of [H, W], zeros outside; float64."""
    value = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < plane.shape[0] and 0 <= j < plane.shape[1]:
                weight = (1 - abs(row - i)) * (1 - abs(column - j))
                value += weight * float(plane[i, j])
    return value


def is_uniform(sample, low, high):
    """A sample that did worse would be one in a thousand; the seeds are fixed."""
    distribution = scipy.stats.uniform(low, high - low)
    return scipy.stats.kstest(sample, distribution.cdf).pvalue > 1e-3


@each
def test_the_neutral_amount_changes_nothing(change):
    neutral = AMOUNTS[change][1]
    for dtype in ("uint8", "float32"):
        images = random_images(2, 4, 3, 2, dtype=dtype)
        out = jax.tree.leaves(change(images, split(0, 2), neutral))[0]
        np.testing.assert_array_equal(out, images)
        assert out.dtype == (dtype if change in SAME_DTYPE else "float32")


@each
def test_dtypes_and_no_float64(change, x64):
    for dtype in ("uint8", "float32"):
        images = random_images(2, 4, 3, 2, dtype=dtype)

        def run(images, keys):
            return change(images, keys, AMOUNTS[change][0])

        program = jax.make_jaxpr(run)(images, split(0, 2))
        wanted = dtype if change in SAME_DTYPE else "float32"
        assert program.out_avals[0].dtype == wanted
        # JAX itself passes the bounds of a draw as scalars f64[], and casts them.
        assert not re.search(r"f64\[\d", str(program))


@each_alone
def test_one_image_does_not_depend_on_the_others(change):
    images, keys = random_images(12, 6, 5, 2), split(0, 12)
    amount = AMOUNTS[change][0]
    run = compiled(change)
    alone = [run(images[i : i + 1], keys[i : i + 1], amount) for i in range(12)]
    together = run(images, keys, amount)
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=0, atol=ATOL)


@each_alone
def test_the_key_decides(change):
    images = np.repeat(random_images(1, 6, 5, 2), 12, 0)
    keys = split(3, 6)[np.arange(12) % 6]
    out = np.asarray(compiled(change)(images, keys, AMOUNTS[change][0]))
    np.testing.assert_array_equal(out[:6], out[6:])
    assert len({image.tobytes() for image in out}) > 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, k: translate(x, k, -1), "translate: got pixels=-1, want 0 or more"),
        (lambda x, k: flip(x, k, 1.5), "flip: got probability=1.5, want 0 to 1"),
        (lambda x, k: flip(x, k, math.nan), "flip: got probability=nan, want 0 to 1"),
        (lambda x, k: crop(x, k, 0), "crop: got area=0, want above 0, up to 1"),
        (lambda x, k: crop(x, k, 1.1), "crop: got area=1.1, want above 0, up to 1"),
        (lambda x, k: rotate(x, k, -5), "rotate: got degrees=-5, want 0 to 180"),
        (lambda x, k: rotate(x, k, 200), "rotate: got degrees=200, want 0 to 180"),
        (lambda x, k: cutout(x, k, -2), "cutout: got size=-2, want 0 or more"),
        (lambda x, k: cutout(x, k, 2, 256), "cutout: got fill=256, want 0 to 255"),
        (lambda x, k: noise(x, k, -0.1), "noise: got deviation=-0.1, want 0 or more"),
        (lambda x, k: mixup(x, k, -1), "mixup: got alpha=-1, want 0 or more"),
        (lambda x, k: zoom(x, k, -1), "zoom: got amount=-1, want 0 or more"),
        (lambda x, k: erase(x, k, 2), "erase: got probability=2, want 0 to 1"),
        (lambda x, k: cutmix(x, k, -1), "cutmix: got alpha=-1, want 0 or more"),
    ],
)
def test_other_amounts_are_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(jnp.ones((2, 3, 3, 1)), split(0, 2))


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
    images = random_images(200, 5, 4, 2, dtype=dtype)
    got = np.asarray(compiled(translate)(images, split(1, 200), 1))
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


def test_flip_swaps_left_and_right():
    images, keys = random_images(3, 4, 5, 2, dtype="uint8"), split(0, 3)
    once = flip(images, keys, 1)
    np.testing.assert_array_equal(once, [np.fliplr(image) for image in images])
    np.testing.assert_array_equal(flip(once, split(1, 3), 1), images)


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_flip_has_its_probability(probability):
    images = np.tile(np.array([0, 1], np.float32).reshape(1, 1, 2, 1), (4000, 1, 1, 1))
    flipped = np.asarray(flip(images, split(0, 4000), probability))[:, 0, 0, 0]
    # Four standard deviations of a mean of 4000 draws are below 0.032.
    assert abs(flipped.mean() - probability) < 0.032


def test_crop_reads_a_window_of_the_size_and_place_that_it_says():
    height, width, area, count = 8, 6, 0.3, 2000
    extra = random_images(height, width, 1)
    image = np.concatenate([ramps(height, width), extra], -1)
    images = np.repeat(image[None], count, 0)
    out = np.asarray(compiled(crop)(images, split(0, count), area))
    # The middle pixels are read from inside, where the ramps tell the place.
    rows, columns = out[:, 3:5, 3, 0], out[:, 3, 2:4, 1]
    side = rows[:, 1] - rows[:, 0]
    np.testing.assert_allclose(columns[:, 1] - columns[:, 0], side, atol=1e-5)
    top = rows[:, 0] + 0.5 - side * 3.5
    left = columns[:, 0] + 0.5 - side * 2.5
    assert is_uniform(side**2, area, 1)
    for start, length in ((top, height), (left, width)):
        room = (1 - side) * length
        assert np.all(start > -1e-5) and np.all(start < room + 1e-5)
        wide = room > 0.1  # the quotient of two small numbers is not exact
        assert is_uniform((start / np.where(wide, room, 1))[wide], 0, 1)
    for n in range(5):
        wanted = np.empty((height, width))
        for i in range(height):
            for j in range(width):
                row = top[n] + side[n] * (i + 0.5) - 0.5
                column = left[n] + side[n] * (j + 0.5) - 0.5
                row, column = np.clip((row, column), 0, (height - 1, width - 1))
                wanted[i, j] = bilinear(extra[..., 0], row, column)
        # The window was read off the ramps: 255 times some 1e-6.
        np.testing.assert_allclose(out[n, ..., 3], wanted, rtol=0, atol=1e-2)


def test_crop_to_almost_everything_is_the_image():
    images = random_images(3, 9, 7, 2, dtype="uint8")
    # One float32 below 1, so that the pixels are interpolated.
    out = compiled(crop)(images, split(0, 3), 1 - 2**-24)
    np.testing.assert_allclose(out, images, rtol=0, atol=ATOL)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3])
def test_a_rotation_by_quarters(turns):
    image = random_images(7, 7, 2)
    out = _rotated(jnp.asarray(image), jnp.float32(turns * np.pi / 2))
    np.testing.assert_allclose(out, np.rot90(image, turns), rtol=0, atol=ATOL)


def test_rotate_turns_about_the_centre_by_uniform_angles():
    height, width, degrees, count = 9, 8, 30, 500
    extra = random_images(height, width, 1)
    image = np.concatenate([ramps(height, width), extra], -1)
    images = np.repeat(image[None], count, 0)
    out = np.asarray(compiled(rotate)(images, split(0, count), degrees), np.float64)
    middle = np.array([height - 1, width - 1]) / 2
    target = np.indices((height, width)).transpose(1, 2, 0) - middle  # [H, W, 2]
    angles = []
    for one in out:
        inside = one[..., 2] > 1 - 1e-5
        source = one[inside][:, :2] - middle
        turn = np.linalg.lstsq(target[inside], source, rcond=None)[0].T
        np.testing.assert_allclose(target[inside] @ turn.T, source, atol=1e-4)
        angles.append(math.atan2(turn[0, 1], turn[0, 0]))
        cos, sin = math.cos(angles[-1]), math.sin(angles[-1])
        np.testing.assert_allclose(turn, [[cos, sin], [-sin, cos]], atol=1e-5)
    assert is_uniform(np.degrees(angles), -degrees, degrees)
    for one, angle in zip(out[:5], angles, strict=False):
        wanted = np.empty((height, width))
        for i in range(height):
            for j in range(width):
                p, q = target[i, j]
                row = middle[0] + math.cos(angle) * p + math.sin(angle) * q
                column = middle[1] - math.sin(angle) * p + math.cos(angle) * q
                wanted[i, j] = bilinear(extra[..., 0], row, column)
        # The angle was read off the ramps: 255 times some 1e-6.
        np.testing.assert_allclose(one[..., 3], wanted, rtol=0, atol=1e-2)


def test_a_rotated_disc_stays():
    i, j = np.indices((33, 33)) - 16
    # A soft border of 6 pixels, because a sharp one on a grid does change.
    disc = 255 * np.clip((13 - np.hypot(i, j)) / 6, 0, 1)
    images = np.repeat(disc[None, ..., None], 8, 0).astype(np.float32)
    out = compiled(rotate)(images, split(0, 8), 180)
    # Where the slope starts, a bilinear value is off by at most half of 255 / 6.
    np.testing.assert_allclose(out, images, rtol=0, atol=255 / 12)
    np.testing.assert_allclose(np.mean(out), np.mean(images), rtol=1e-2)
    np.testing.assert_allclose(out[:, 12:21, 12:21], 255, rtol=1e-6)


@pytest.mark.parametrize(
    "size, fill, dtype",
    [(1, 0, "uint8"), (4, 127.5, "float32"), (5, 0, "uint8")],
)
def test_cutout_covers_a_square_around_a_pixel(size, fill, dtype):
    height, width, count = 6, 5, 400
    images = 1 + random_images(count, height, width, 2, dtype="uint8") % 100
    images = images.astype(dtype)
    out = np.asarray(compiled(cutout)(images, split(0, count), size, fill))
    covered = (out == fill).all(-1)
    np.testing.assert_array_equal(out[~covered], images[~covered])
    squares = {}
    for row in range(height):
        for column in range(width):
            square = np.zeros((height, width), bool)
            top, left = row - size // 2, column - size // 2
            square[
                max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)
            ] = True
            squares[square.tobytes()] = int(square.sum())
    seen = {one.tobytes() for one in covered}
    assert seen == set(squares)  # every centre occurs, and nothing else
    for one in covered:
        assert one.sum() == squares[one.tobytes()]
    if size == 1:
        # Four standard deviations of a share of 400 draws.
        limit = 4 * np.sqrt(1 / 30 * 29 / 30 / count)
        np.testing.assert_allclose(covered.mean(0), 1 / 30, atol=limit)


def test_noise_has_its_mean_and_deviation():
    images = np.full((8, 64, 64, 3), 128, np.float32)
    added = np.asarray(noise(images, split(0, 8), 10), np.float64) - 128
    # Four standard deviations of the estimates from 98304 draws; 12.8 deviations
    # from the borders nothing is clipped.
    assert abs(added.mean()) < 4 * 10 / np.sqrt(added.size)
    assert abs(added.std() - 10) < 4 * 10 / np.sqrt(2 * added.size)
    correlations = np.corrcoef(added.reshape(8, -1)) - np.eye(8)
    assert np.abs(correlations).max() < 5 / np.sqrt(64 * 64 * 3)
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.03


def test_noise_stays_among_the_pixels():
    images = np.repeat(np.array([0, 255], np.uint8), 32 * 32).reshape(2, 32, 32, 1)
    black, white = np.asarray(noise(images, split(0, 2), 40))
    assert black.min() == 0 and 100 < black.max() < 255
    assert white.max() == 255 and 0 < white.min() < 155
    # Half of the draws are clipped; four standard deviations of 1024 are 0.063.
    assert abs(np.mean(black == 0) - 0.5) < 0.063


@pytest.mark.parametrize("alpha", [0.3, 8])
def test_mixup_mixes_with_the_next_and_says_how(alpha):
    count, run = 3000, compiled(mixup)
    images, keys = random_images(count, 3, 2, 1), split(0, count)
    mixed, lam, partner = run(images, keys, alpha)
    assert (lam.dtype, partner.dtype) == ("float32", "int32")
    np.testing.assert_array_equal(partner, [*range(1, count), 0])
    share = np.asarray(lam, np.float64)
    wanted = [
        share[i] * images[i] + (1 - share[i]) * images[(i + 1) % count]
        for i in range(count)
    ]
    np.testing.assert_allclose(mixed, wanted, rtol=0, atol=ATOL)
    # The weight comes from the example's own key, whatever else is in the batch.
    _, other_lam, _ = run(255 - images, keys[::-1], alpha)
    np.testing.assert_allclose(other_lam, lam[::-1], rtol=1e-6)
    # It is the larger part of a draw from Beta(alpha, alpha).
    assert share.min() >= 0.5 and share.max() <= 1
    draws = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    folded = np.maximum(draws, 1 - draws)
    # Five standard deviations of a mean of 3000 draws.
    limit = 5 * folded.std() / np.sqrt(count)
    assert abs(share.mean() - folded.mean()) < limit
    cdf = scipy.stats.beta(alpha, alpha).cdf
    assert scipy.stats.kstest(share, lambda x: cdf(x) - cdf(1 - x)).pvalue > 1e-3


def test_mixup_without_mixing():
    images = random_images(3, 4, 3, 2)
    mixed, lam, partner = mixup(images, split(0, 3), 0)
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(lam, [1, 1, 1])
    np.testing.assert_array_equal(partner, [1, 2, 0])


def test_zoom_scales_about_the_centre_by_log_uniform_factors():
    height, width, count = 9, 8, 500
    images = np.repeat(ramps(height, width)[None], count, 0)
    out = np.asarray(compiled(zoom)(images, split(0, count), 0.5), np.float64)
    factors = out[:, 5, 4, 0] - out[:, 4, 4, 0]  # the middle, read from inside
    np.testing.assert_allclose(out[:, 4, 4, 1] - out[:, 4, 3, 1], factors, atol=1e-5)
    np.testing.assert_allclose(out[:, 4, 4, 0], (height - 1) / 2, atol=1e-5)
    middle = out[:, 4, 3:5, 1].mean(-1)
    np.testing.assert_allclose(middle, (width - 1) / 2, atol=1e-5)
    assert is_uniform(np.log(factors), -np.log(1.5), np.log(1.5))


def rectangle(covered):
    """(height, width) of a mask that is one rectangle, and nothing else."""
    rows, columns = covered.any(1), covered.any(0)
    np.testing.assert_array_equal(covered, rows[:, None] & columns)
    for line in (rows, columns):
        assert np.abs(np.diff(np.r_[0, line, 0].astype(int))).sum() <= 2
    return rows.sum(), columns.sum()


def test_erase_covers_rectangles_with_noise():
    height, width, count = 40, 60, 1000
    images = np.full((count, height, width, 3), 300, np.float32)
    out = np.asarray(compiled(erase)(images, split(0, count), 0.6))
    covered = (out != 300).any(-1)
    np.testing.assert_array_equal((out != 300).all(-1), covered)
    erased = covered.any((1, 2))
    # Four standard deviations of a mean of 1000 draws.
    assert abs(erased.mean() - 0.6) < 4 * math.sqrt(0.24 / count)
    sides = np.array([rectangle(one) for one in covered[erased]])
    area = sides.prod(1) / (height * width)
    # Rounded to pixels: both sides, by up to half a pixel.
    assert 0.015 < area.min() and area.max() < 0.345
    assert abs(area.mean() - 0.175) < 0.02
    ratio = np.log((sides[:, 0] / height) / (sides[:, 1] / width))
    assert abs(ratio.mean()) < 0.1 and np.abs(ratio).max() < math.log(3.3) + 0.2
    values = out[covered]
    assert is_uniform(values[:2000, 0] + np.random.default_rng(0).random(2000), 0, 256)
    assert abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.01


def test_cutmix_pastes_the_next_image_and_says_how_much():
    count, alpha = 600, 1.0
    numbers = np.arange(count, dtype=np.float32)
    images = np.broadcast_to(numbers[:, None, None, None], (count, 16, 12, 2))
    mixed, lam, partner = compiled(cutmix)(images, split(0, count), alpha)
    np.testing.assert_array_equal(partner, [*range(1, count), 0])
    mixed, lam = np.asarray(mixed), np.asarray(lam)
    np.testing.assert_array_equal(mixed[..., 0], mixed[..., 1])
    pasted = mixed[..., 0] == np.asarray(partner)[:, None, None]
    assert (pasted | (mixed[..., 0] == numbers[:, None, None])).all()
    np.testing.assert_allclose(lam, 1 - pasted.mean((1, 2)), rtol=1e-6)
    for one in pasted:
        rectangle(one)
    # Uniform on 1/2 ... 1, but for the rounding of the sides.
    assert 0.45 < lam.min() and lam.max() == 1 and abs(lam.mean() - 0.75) < 0.03
    _, other_lam, _ = compiled(cutmix)(255 - images, split(0, count)[::-1], alpha)
    np.testing.assert_allclose(other_lam, lam[::-1], rtol=1e-6)


def warped(image, length, key, amount):
    """The same by interpolation, pixel by pixel."""
    h, w = image.shape
    u = np.asarray(jax.random.uniform(key, (4,), jnp.float32, -1.0, 1.0), np.float64)
    right, down = (u[0] + 1) * h / 16, u[1] * amount * h / 2
    wide, high = min(np.exp(amount * u[2]), (w - right) / length), np.exp(amount * u[3])
    xs = np.clip((np.arange(w) - right) / wide, 0, length - 1)
    ys = np.clip((np.arange(h) - (h - 1) / 2 - down) / high + (h - 1) / 2, 0, h - 1)
    rows = np.stack([np.interp(xs, np.arange(w), row) for row in image])
    found = np.stack([np.interp(ys, np.arange(h), column) for column in rows.T], 1)
    return found, int(length * wide + right)


def test_lines_are_warped_as_interpolation_has_it():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 16, 40, 1), np.uint8)
    lengths = np.int32([40, 39, 25, 12, 3, 1])
    keys = jax.random.split(jax.random.key(3), 6)
    found, ends = jax.jit(warp, static_argnums=3)(images, lengths, keys, 0.3)
    for k in range(6):
        want, end = warped(images[k, ..., 0].astype(float), lengths[k], keys[k], 0.3)
        np.testing.assert_allclose(found[k, ..., 0], want, atol=0.02)
        assert ends[k] == np.clip(end, 1, 40)
    alone, end = warp(images[2:3], lengths[2:3], keys[2:3], 0.3)
    np.testing.assert_allclose(alone[0], found[2], atol=1e-3)
    same, lengths_too = warp(images, lengths, keys, 0)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(lengths_too, lengths)
    with pytest.raises(ValueError, match="warp: got amount"):
        warp(images, lengths, keys, -0.1)
