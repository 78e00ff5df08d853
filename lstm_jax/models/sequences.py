"""Orders: conversions between images and sequences.

An order is a pair of pure functions between `[B, H, W, C]` images and batch-major
`[B, T, F]` sequences. All but `rows_and_columns` are permutations of the pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.validation import check_count


class Order(NamedTuple):
    """Conversion between images and sequences.

    Attributes:
      to_sequence: `[B, H, W, C] -> [B, T, F]`.
      to_image: `(xs, (H, W, C)) -> images`, its inverse.
    """

    to_sequence: Callable[[jax.Array], jax.Array]
    to_image: Callable[[jax.Array, tuple[int, int, int]], jax.Array]


def rows() -> Order:
    """Rows from top to bottom: T = H, F = W C."""

    def to_sequence(images):
        b, h, w, c = images.shape
        return images.reshape(b, h, w * c)

    def to_image(xs, image_shape):
        return xs.reshape(xs.shape[0], *image_shape)

    return Order(to_sequence, to_image)


def frames() -> Order:
    """The frames of a clip: `[B, T, *F]` in both directions."""
    return Order(lambda clips: clips, lambda xs, _: xs)


def flat_frames() -> Order:
    """The frames of a clip, flattened: F = H W C."""

    def to_sequence(clips):
        return clips.reshape(*clips.shape[:2], -1)

    def to_image(xs, image_shape):
        return xs.reshape(*xs.shape[:2], *image_shape)

    return Order(to_sequence, to_image)


def columns() -> Order:
    """Columns from left to right: T = W, F = H C."""

    def to_sequence(images):
        return rows().to_sequence(images.swapaxes(1, 2))

    def to_image(xs, image_shape):
        h, w, c = image_shape
        return rows().to_image(xs, (w, h, c)).swapaxes(1, 2)

    return Order(to_sequence, to_image)


def rows_and_columns() -> Order:
    """Row t concatenated with column t of a square image: T = H = W, F = 2 H C."""

    def to_sequence(images):
        if images.shape[1] != images.shape[2]:
            raise ValueError(
                f"rows_and_columns: images are {images.shape[1]}x{images.shape[2]}, "
                "but rows and columns together need a square; resize, or use rows()"
            )
        pair = [rows().to_sequence(images), columns().to_sequence(images)]
        return jnp.concatenate(pair, axis=-1)

    def to_image(xs, image_shape):
        return rows().to_image(xs[..., : xs.shape[-1] // 2], image_shape)

    return Order(to_sequence, to_image)


def pixels() -> Order:
    """Pixels in raster order: T = H W, F = C."""
    return patches(1)


def permuted(seed: int = 0) -> Order:
    """Pixels in one random permutation, the same for all images: T = H W, F = C.

    Results are comparable for the same permutation only; published ones differ. It is
    drawn by NumPy's legacy generator, whose stream is frozen.
    """

    def permutation(size: int) -> np.ndarray:
        return np.random.RandomState(seed).permutation(size)

    def to_sequence(images):
        xs = pixels().to_sequence(images)
        return xs[:, permutation(xs.shape[1])]

    def to_image(xs, image_shape):
        inverse = np.argsort(permutation(xs.shape[1]))
        return pixels().to_image(xs[:, inverse], image_shape)

    return Order(to_sequence, to_image)


def patches(size: int) -> Order:
    """Square patches, left to right and top to bottom: T = H W / size², F = size² C."""
    check_count("patches", "size", size, "pixels")

    def grid(h: int, w: int) -> tuple[int, int]:
        if h % size or w % size:
            raise ValueError(
                f"patches: images of {h}x{w} cannot be divided into squares of {size}; "
                "choose a size that divides both sides"
            )
        return h // size, w // size

    def to_sequence(images):
        b, h, w, c = images.shape
        n, m = grid(h, w)
        cut = images.reshape(b, n, size, m, size, c).swapaxes(2, 3)
        return cut.reshape(b, n * m, size * size * c)

    def to_image(xs, image_shape):
        h, w, c = image_shape
        n, m = grid(h, w)
        cut = xs.reshape(-1, n, m, size, size, c).swapaxes(2, 3)
        return cut.reshape(-1, h, w, c)

    return Order(to_sequence, to_image)
