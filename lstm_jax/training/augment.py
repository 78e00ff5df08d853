"""Random changes of the training images, inside the compiled step."""

import jax
import jax.numpy as jnp


def shift(images: jax.Array, keys: jax.Array, pixels: int) -> jax.Array:
    """Shifts each image by up to `pixels` rows and columns, and fills with zeros.

      y[i, j] = x[i + a, j + b],   a, b uniform on the integers -pixels ... pixels

    Args:
      images: [B, H, W, C].
      keys: [B], one typed key per image: what an image becomes does not depend on
        the rest of its batch.
      pixels: the largest shift, 0 or more.

    Returns:
      [B, H, W, C], of the dtype of `images`.

    Raises:
      ValueError: `pixels` is negative.
    """
    if pixels < 0:
        raise ValueError(f"shift: got pixels={pixels}, want 0 or more")
    edge = (pixels, pixels)

    def shift_one(image, key):
        row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        padded = jnp.pad(image, (edge, edge, (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)

    return jax.vmap(shift_one)(images, keys)
