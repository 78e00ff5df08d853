"""Random augmentation of training images, inside the compiled step.

All functions take `images` [B, H, W, C], pixels from 0 to 255, and `keys` [B], one
typed key per image: the result for an image does not depend on the rest of its batch.
Pass each function different keys. Amounts are Python numbers: changing one recompiles,
and one out of its range raises ValueError.

The results have the same shape; the same dtype where pixels are moved or covered
(`translate`, `flip`, `cutout`, `erase`), else float32.
"""

import math

import jax
import jax.numpy as jnp

from lstm_jax.training.affine import sample


def translate(images: jax.Array, keys: jax.Array, pixels: int) -> jax.Array:
    """Shifts each image by up to `pixels` rows and columns, and pads with zeros.

      y[i, j] = x[i + a, j + b],   a, b uniform on the integers -pixels ... pixels

    Args:
      pixels: the largest shift, at least 0.
    """
    _check("translate", "pixels", pixels, 0)
    if pixels == 0:
        return jnp.asarray(images)
    edge = (pixels, pixels)

    def shift_one(image, key):
        row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        padded = jnp.pad(image, (edge, edge, (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)

    return jax.vmap(shift_one)(images, keys)


def flip(images: jax.Array, keys: jax.Array, probability: float = 0.5) -> jax.Array:
    """Flips each image horizontally with a probability.

      y[i, j] = x[i, W - 1 - j]  with the probability,  x[i, j]  otherwise

    Args:
      probability: 0 ... 1.
    """
    _check("flip", "probability", probability, 0, 1)
    if probability == 0:
        return jnp.asarray(images)

    def flip_one(image, key):
        flips = jax.random.bernoulli(key, jnp.float32(probability))
        return jnp.where(flips, image[:, ::-1], image)

    return jax.vmap(flip_one)(images, keys)


def crop(images: jax.Array, keys: jax.Array, area: float) -> jax.Array:
    """Crops a random window of each image and resizes it, bilinear, to the full size.

      y[i, j] = x[t + s (i + 1/2) - 1/2, l + s (j + 1/2) - 1/2]
      s² uniform on area ... 1,   t on 0 ... (1 - s) H,   l on 0 ... (1 - s) W

    Positions between the border and the centre of the outermost pixel take its value.

    Args:
      area: smallest area of the window as a fraction of the image, in (0, 1]; 1 is no
        crop.

    Reference: Szegedy et al. 2015, section 6. Departs: the window has the image's
    aspect ratio, theirs any from 3/4 to 4/3.
    """
    if not 0 < area <= 1:
        raise ValueError(f"crop: got area={area}, want above 0, up to 1")
    images = jnp.asarray(images, jnp.float32)
    if area == 1:
        return images

    def crop_one(image, key):
        height, width, _ = image.shape
        share, down, right = jax.random.uniform(key, (3,), jnp.float32)
        side = jnp.sqrt(area + (1 - area) * share)
        top, left = down * (1 - side) * height, right * (1 - side) * width
        rows = top + side * (_indices(height) + 0.5) - 0.5
        columns = left + side * (_indices(width) + 0.5) - 0.5
        return _bilinear(image, rows[:, None], columns[None, :], "nearest")

    return jax.vmap(crop_one)(images, keys)


def zoom(images: jax.Array, keys: jax.Array, amount: float) -> jax.Array:
    """Scales each image about its centre, bilinear, padding with zeros.

      y[m + p] = x[m + p / s],   m = ((H - 1) / 2, (W - 1) / 2)
      log s uniform on -log(1 + amount) ... log(1 + amount)

    Args:
      amount: at least 0; 0.1 enlarges or shrinks by up to a tenth.
    """
    _check("zoom", "amount", amount, 0)
    images = jnp.asarray(images, jnp.float32)
    if amount == 0:
        return images
    most = math.log1p(amount)

    def zoom_one(image, key):
        factor = jnp.exp(-jax.random.uniform(key, (), jnp.float32, -most, most))
        identity, none = jnp.eye(2, dtype=jnp.float32), jnp.zeros(2, jnp.float32)
        return sample(image, factor * identity, none)

    return jax.vmap(zoom_one)(images, keys)


def rotate(images: jax.Array, keys: jax.Array, degrees: float) -> jax.Array:
    """Rotates each image about its centre, bilinear, padding with zeros.

      y[m + p] = x[m + R p],   R = [[cos a, sin a], [-sin a, cos a]]
      m = ((H - 1) / 2, (W - 1) / 2),   a uniform on -degrees ... degrees

    Args:
      degrees: the largest angle, 0 ... 180; positive is counterclockwise.
    """
    _check("rotate", "degrees", degrees, 0, 180)
    images = jnp.asarray(images, jnp.float32)
    if degrees == 0:
        return images
    largest = math.radians(degrees)

    def rotate_one(image, key):
        angle = jax.random.uniform(key, (), jnp.float32, -largest, largest)
        return _rotated(image, angle)

    return jax.vmap(rotate_one)(images, keys)


def cutout(images: jax.Array, keys: jax.Array, size: int, fill: float = 0) -> jax.Array:
    """Covers a square at a random position of each image.

      y[i, j] = fill  where 0 <= i - t < size and 0 <= j - l < size,  x[i, j]  elsewhere
      t + floor(size / 2) uniform on the integers 0 ... H - 1,   l alike on 0 ... W - 1

    The square's centre is in the image; the square may extend beyond the border.

    Args:
      size: side of the square in pixels, at least 0.
      fill: its value, 0 ... 255, cast to the dtype of `images`.

    Reference: DeVries & Taylor 2017, section 3.
    """
    _check("cutout", "size", size, 0)
    _check("cutout", "fill", fill, 0, 255)
    if size == 0:
        return jnp.asarray(images)

    def cutout_one(image, key):
        sides = jnp.array(image.shape[:2], jnp.int32)
        top, left = jax.random.randint(key, (2,), 0, sides, jnp.int32) - size // 2
        i = jnp.arange(image.shape[0], dtype=jnp.int32)[:, None] - top
        j = jnp.arange(image.shape[1], dtype=jnp.int32)[None, :] - left
        covered = (0 <= i) & (i < size) & (0 <= j) & (j < size)  # [H, W]
        return jnp.where(covered[..., None], jnp.asarray(fill, image.dtype), image)

    return jax.vmap(cutout_one)(images, keys)


def erase(images: jax.Array, keys: jax.Array, probability: float) -> jax.Array:
    """Random erasing: covers a rectangle with noise, with a probability.

      y[i, j] = n[i, j]  inside a rectangle of height h and width w,  x[i, j]  elsewhere
      h w / (H W) uniform on 0.02 ... 0.33,   log((h / H) / (w / W)) on ±log 3.3,
      n uniform on the integers 0 ... 255,   the position uniform within the image

    Args:
      probability: 0 ... 1.

    Reference: Zhong et al. 2020, Random Erasing Data Augmentation, algorithm 1.
    Departs: a side that would exceed the image is cut to it, instead of drawn again.
    """
    _check("erase", "probability", probability, 0, 1)
    images = jnp.asarray(images)
    if probability == 0:
        return images

    def erase_one(image, key):
        place, pixels = jax.random.split(key)
        u = jax.random.uniform(place, (5,), jnp.float32)
        erases, area, ratio, row, column = u
        area = 0.02 + 0.31 * area
        ratio = jnp.exp((2 * ratio - 1) * math.log(3.3))
        sides = jnp.stack([jnp.sqrt(area * ratio), jnp.sqrt(area / ratio)])
        covered = _rectangle(image, sides, row, column) & (erases < probability)
        values = jax.random.randint(pixels, image.shape, 0, 256, jnp.int32)
        return jnp.where(covered[..., None], values.astype(image.dtype), image)

    return jax.vmap(erase_one)(images, keys)


def noise(images: jax.Array, keys: jax.Array, deviation: float) -> jax.Array:
    """Adds Gaussian noise, independent in every pixel and channel.

      y = min(max(x + deviation n, 0), 255),   n standard normal

    Args:
      deviation: standard deviation in pixel units, at least 0.
    """
    _check("noise", "deviation", deviation, 0)
    images = jnp.asarray(images, jnp.float32)
    if deviation == 0:
        return images

    def noise_one(image, key):
        normal = jax.random.normal(key, image.shape, jnp.float32)
        return jnp.clip(image + deviation * normal, 0, 255)

    return jax.vmap(noise_one)(images, keys)


def warp(
    images: jax.Array, lengths: jax.Array, keys: jax.Array, amount: float
) -> tuple[jax.Array, jax.Array]:
    """Scales and shifts text lines along both axes.

      y[i, j] = x[(i - H/2 - b) / s_y + H/2, (j - a) / s_x],  linear between pixels,

    with log s_x, log s_y uniform on -amount ... amount, a on 0 ... H/8, and b on
    -amount H/2 ... amount H/2; outside the image the border pixels are repeated. A line
    that would exceed the image's width is scaled less.

    Args:
      lengths: int [B], valid columns of each line, 1 to W.
      amount: at least 0; 0.1 scales by about a tenth.

    Returns:
      (float32 [B, H, W, C], int32 [B]): the images, and their valid columns.
    """
    _check("warp", "amount", amount, 0)
    if amount == 0:
        return images.astype(jnp.float32), lengths
    _, h, w, _ = images.shape

    def weights(places, size):  # [N]: interpolation weights of the pixels
        places = jnp.clip(places, 0, size - 1)[:, None]
        distances = jnp.abs(places - jnp.arange(size, dtype=jnp.float32))
        return jnp.maximum(1 - distances, 0)

    def warp_one(image, length, key):
        u = jax.random.uniform(key, (4,), jnp.float32, -1.0, 1.0)
        right, down = (u[0] + 1) * (h / 16), u[1] * (amount * h / 2)
        columns = length.astype(jnp.float32)
        wide = jnp.minimum(jnp.exp(amount * u[2]), (w - right) / columns)
        xs = (jnp.arange(w, dtype=jnp.float32) - right) / wide
        rows = jnp.arange(h, dtype=jnp.float32) - (h - 1) / 2 - down
        ys = rows / jnp.exp(amount * u[3]) + (h - 1) / 2
        across = weights(jnp.minimum(xs, columns - 1), w)  # [W, W]
        image = image.astype(jnp.float32)
        image = jnp.einsum("ij,jkc->ikc", weights(ys, h), image)
        image = jnp.einsum("kj,ijc->ikc", across, image)
        end = jnp.clip(jnp.floor(columns * wide + right), 1, w)
        return image, end.astype(lengths.dtype)

    return jax.vmap(warp_one)(images, lengths, keys)


def mixup(
    images: jax.Array, keys: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mixes each image with the next one of the batch.

      y_i = lam_i x_i + (1 - lam_i) x_p,   p = (i + 1) mod B
      lam_i = max(m, 1 - m),   m ~ Beta(alpha, alpha)

    Mix the losses in the same way: lam loss(y, label) + (1 - lam) loss(y,
    label[partner]). An image depends on its partner; `lam` does not. Under pmap the
    batch is one device's part, so that the last example's partner is the first of the
    part. The batch must not have padding.

    Args:
      alpha: at least 0 (no mixing); 1 makes `lam` uniform on 1/2 ... 1.

    Returns:
      (mixed images [B, H, W, C] float32, lam [B] float32 in 1/2 ... 1, partner [B]
      int32).

    Reference: Zhang et al. 2018, section 2. Departs: each pair has its own lam, their
    code draws one per batch; the partner is the next example instead of a random one;
    lam is at least 1/2.
    """
    _check("mixup", "alpha", alpha, 0)
    images = jnp.asarray(images, jnp.float32)
    batch = images.shape[0]
    partner = jnp.roll(jnp.arange(batch, dtype=jnp.int32), -1)
    if alpha == 0:
        return images, jnp.ones(batch, jnp.float32), partner

    def draw_one(key):
        return jax.random.beta(key, alpha, alpha, dtype=jnp.float32)

    lam = jax.vmap(draw_one)(keys)
    lam = jnp.maximum(lam, 1 - lam)
    share = lam[:, None, None, None]
    return share * images + (1 - share) * jnp.roll(images, -1, axis=0), lam, partner


def cutmix(
    images: jax.Array, keys: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Replaces a rectangle of each image with that of the next one of the batch.

      y_i = x_p  inside a rectangle of sides sqrt(1 - m) (H, W),  x_i  elsewhere
      p = (i + 1) mod B,   m the larger of a draw from Beta(alpha, alpha) and 1 - it
      lam_i = 1 - the fraction of pixels that are replaced

    `lam` and the partner weigh the losses, as in `mixup`. The position is uniform
    within the image.

    Args:
      alpha: at least 0 (no mixing).

    Returns:
      (mixed images [B, H, W, C] float32, lam [B] float32, partner [B] int32).

    Reference: Yun et al. 2019, CutMix, section 3.1. Departs: as in `mixup`; the
    rectangle is within the image, theirs only has its centre there.
    """
    _check("cutmix", "alpha", alpha, 0)
    images = jnp.asarray(images, jnp.float32)
    batch = images.shape[0]
    partner = jnp.roll(jnp.arange(batch, dtype=jnp.int32), -1)
    if alpha == 0:
        return images, jnp.ones(batch, jnp.float32), partner

    def mix_one(image, other, key):
        draw, place = jax.random.split(key)
        m = jax.random.beta(draw, alpha, alpha, dtype=jnp.float32)
        side = jnp.sqrt(jnp.minimum(m, 1 - m))
        row, column = jax.random.uniform(place, (2,), jnp.float32)
        covered = _rectangle(image, jnp.stack([side, side]), row, column)
        mixed = jnp.where(covered[..., None], other, image)
        return mixed, 1 - covered.mean(dtype=jnp.float32)

    mixed, lam = jax.vmap(mix_one)(images, jnp.roll(images, -1, axis=0), keys)
    return mixed, lam, partner


def _rectangle(image, sides, row, column):
    """[H, W], true inside a rectangle.

    Args:
      sides: (height, width) as fractions of the image, cut to at most 1.
      row, column: the position, from 0 for the top or left to 1.
    """
    size = jnp.array(image.shape[:2], jnp.float32)
    h, w = jnp.round(jnp.minimum(sides, 1) * size)
    top, left = (
        jnp.floor(row * (size[0] - h + 1)),
        jnp.floor(column * (size[1] - w + 1)),
    )
    i = _indices(image.shape[0])[:, None] - top
    j = _indices(image.shape[1])[None, :] - left
    return (0 <= i) & (i < h) & (0 <= j) & (j < w)


def _check(function, argument, value, low, high=math.inf):
    # Also refuses NaN.
    if not low <= value <= high:
        want = f"{low} or more" if high == math.inf else f"{low} to {high}"
        raise ValueError(f"{function}: got {argument}={value}, want {want}")


def _rotated(image, angle):
    """One image [H, W, C], rotated by an angle in radians, counterclockwise."""
    height, width, _ = image.shape
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    i = _indices(height)[:, None] - middle_row  # [H, 1]
    j = _indices(width)[None, :] - middle_column  # [1, W]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = middle_row + cos * i + sin * j  # [H, W]
    columns = middle_column - sin * i + cos * j
    return _bilinear(image, rows, columns, "constant")


def _indices(size):
    return jnp.arange(size, dtype=jnp.float32)


def _bilinear(image, rows, columns, mode):
    """Samples image [H, W, C] at fractional rows and columns; `mode` as in
    `jax.scipy.ndimage.map_coordinates`."""

    def channel(plane):
        return jax.scipy.ndimage.map_coordinates(
            plane, (rows, columns), order=1, mode=mode
        )

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)
