"""Random changes of brightness and colour, and RandAugment, inside the compiled step.

Arguments are those of `augment`; images may also be clips [B, T, H, W, C], whose frames
change alike. Channels are the last axis: three are red, green and blue.
"""

import math

import jax
import jax.numpy as jnp

from lstm_jax.training.affine import sample

GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue, ITU-R BT.601


def color_jitter(images: jax.Array, keys: jax.Array, amount: float) -> jax.Array:
    """Changes brightness, contrast and saturation, in this order.

      y = g + f (x - g),   f uniform on max(0, 1 - amount) ... 1 + amount, for each
      g = 0; the mean grey of the image; the grey of each pixel

    Results are clipped to 0 ... 255 after each.

    Args:
      images: [B, (T,) H, W, C], pixels 0 ... 255; saturation needs C = 3.
      keys: [B].
      amount: at least 0, commonly 0.4.
    """
    if not amount >= 0:
        raise ValueError(f"color_jitter: got amount={amount}, want 0 or more")
    images = jnp.asarray(images, jnp.float32)
    if amount == 0:
        return images

    def jitter_one(image, key):
        low = max(0.0, 1 - amount)
        factors = jax.random.uniform(key, (3,), jnp.float32, low, 1 + amount)
        for factor, base in zip(factors, (_black, _mean_grey, _grey), strict=True):
            image = _blend(image, base(image), factor)
        return image

    return jax.vmap(jitter_one)(images, keys)


def rand_augment(images: jax.Array, keys: jax.Array, magnitude: float) -> jax.Array:
    """RandAugment: two random operations per image, of one magnitude.

    Each is drawn uniformly from the identity, brightness, contrast, saturation,
    sharpness, posterization, solarization, autocontrast, rotation, and shears and
    translations along both axes. At magnitude 10: factors 1 ± 0.9, 4 bits, all pixels
    inverted, 30 degrees, shears of 0.3, translations of a third of the side; in
    proportion below, with random signs. What comes from outside the image is 0.

    Args:
      images: [B, (T,) H, W, C], pixels 0 ... 255.
      keys: [B].
      magnitude: 0 (off) ... 10.

    Reference: Cubuk et al. 2020, RandAugment, section 3. Departs: no equalization;
    bilinear, where they take the nearest pixel.
    """
    if not 0 <= magnitude <= 10:
        raise ValueError(f"rand_augment: got magnitude={magnitude}, want 0 to 10")
    images = jnp.asarray(images, jnp.float32)
    if magnitude == 0:
        return images
    share = magnitude / 10
    appearance = [
        lambda x, sign: x,
        *(
            lambda x, sign, base=base: _blend(x, base(x), 1 + 0.9 * share * sign)
            for base in (_black, _mean_grey, _grey, _blurred)
        ),
        lambda x, sign: _posterized(x, 8 - 4 * share),
        lambda x, sign: jnp.where(x >= 256 * (1 - share), 255 - x, x),
        lambda x, sign: _autocontrast(x),
    ]
    geometry = 5

    def apply(image, key):
        which, sign = jax.random.split(key)
        operation = jax.random.randint(which, (), 0, len(appearance) + geometry)
        sign = jnp.where(jax.random.bernoulli(sign), 1.0, -1.0).astype(jnp.float32)
        sides = jnp.array(image.shape[-3:-1], jnp.float32)
        place = _placement(operation - len(appearance), sign * share, sides)
        changes = [*appearance, lambda x, sign: sample(x, *place)]
        index = jnp.minimum(operation, len(appearance))
        return jax.lax.switch(index, changes, image, sign)

    def augment_one(image, key):
        for own in jax.random.split(key, 2):
            image = apply(image, own)
        return image

    return jax.vmap(augment_one)(images, keys)


def _placement(operation, amount, sides):
    """Arguments of `sample` for a geometric operation on an image of `sides` (H, W):
    rotation, vertical and horizontal shear, vertical and horizontal translation."""
    angle = math.radians(30) * amount
    cos, sin, shear = jnp.cos(angle), jnp.sin(angle), 0.3 * amount
    one, zero = jnp.ones((), jnp.float32), jnp.zeros((), jnp.float32)
    matrices = jnp.stack(
        [
            jnp.stack([cos, sin, -sin, cos]),
            jnp.stack([one, shear, zero, one]),
            jnp.stack([one, zero, shear, one]),
            jnp.stack([one, zero, zero, one]),
            jnp.stack([one, zero, zero, one]),
        ]
    ).reshape(5, 2, 2)
    axis = operation - jnp.array([3, 4])  # 0 for the one that is translated along
    return matrices[operation], jnp.where(axis == 0, amount / 3 * sides, 0)


def _blend(image, base, factor):
    return jnp.clip(base + factor * (image - base), 0, 255)


def _black(image):
    return jnp.zeros_like(image)


def _grey(image):
    if image.shape[-1] != 3:
        return image
    return (image * jnp.array(GREY, jnp.float32)).sum(-1, keepdims=True)


def _mean_grey(image):
    return _grey(image).mean((-3, -2, -1), keepdims=True)


def _blurred(image):
    """The mean over 3x3 pixels, the one in the middle counted five times of 13."""
    edges = [(0, 0)] * (image.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
    padded = jnp.pad(image, edges, "edge")
    h, w = image.shape[-3:-1]
    parts = [padded[..., i : i + h, j : j + w, :] for i in range(3) for j in range(3)]
    return (sum(parts) + 4 * image) / 13


def _posterized(image, bits):
    step = 2.0 ** (8 - bits)
    return jnp.floor(image / step) * step


def _autocontrast(image):
    axes = (*range(image.ndim - 1),)
    low, high = image.min(axes), image.max(axes)
    scale = 255 / jnp.maximum(high - low, 1)
    return jnp.where(high > low, (image - low) * scale, image)
