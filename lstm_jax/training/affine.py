"""Random affine maps that move images, masks and boxes alike, in the compiled step."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Affine(NamedTuple):
    """Maps that move the pixel m + p to m + matrix p + shift, one for each example.

    Positions are (row, column) in pixels, m is the centre ((H - 1) / 2, (W - 1) / 2).
    Frames of a clip move alike.

    Attributes:
      matrix: [B, 2, 2].
      shift: [B, 2].
    """

    matrix: jax.Array
    shift: jax.Array

    def images(self, images: jax.Array) -> jax.Array:
        """Moves images [B, (T,) H, W, C], bilinear; what comes from outside is 0.

        Returns:
          The same shape, float32.
        """
        return self._moved(jnp.asarray(images, jnp.float32), order=1, cval=0.0)

    def masks(self, masks: jax.Array, void: int) -> jax.Array:
        """Moves masks [B, (T,) H, W], each pixel the nearest one; outside is `void`."""
        planes = jnp.asarray(masks, jnp.float32)[..., None]
        found = self._moved(planes, order=0, cval=void)
        return found[..., 0].astype(masks.dtype)

    def boxes(
        self, boxes: jax.Array, size: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array]:
        """The smallest boxes around the moved ones, cut to the image.

        Args:
          boxes: [B, ..., 4], corners x0, y0, x1, y1 in pixels; the pixel in column 0
            extends from x = 0 to 1.
          size: (H, W).

        Returns:
          (boxes of the same shape, float32; the fraction of each that is inside,
          [B, ...]).
        """
        flat = jnp.asarray(boxes, jnp.float32).reshape(len(boxes), -1, 4)
        limit = jnp.array(size, jnp.float32)
        x0, y0, x1, y1 = (flat[..., k] for k in range(4))
        corners = jnp.stack([y0, x0, y0, x1, y1, x0, y1, x1], -1)
        corners = corners.reshape(*flat.shape[:2], 4, 2) - limit / 2
        moved = jnp.einsum("bij,bmkj->bmki", self.matrix, corners)
        moved += self.shift[:, None, None] + limit / 2
        low, high = moved.min(2), moved.max(2)
        low_in, high_in = jnp.clip(low, 0, limit), jnp.clip(high, 0, limit)
        area, inside = ((b - a).prod(-1) for a, b in ((low, high), (low_in, high_in)))
        found = jnp.concatenate([low_in[..., ::-1], high_in[..., ::-1]], -1)
        share = inside / jnp.maximum(area, jnp.finfo(jnp.float32).tiny)
        return found.reshape(boxes.shape), share.reshape(boxes.shape[:-1])

    def _moved(self, images, **how):
        inverse = jnp.linalg.inv(self.matrix)
        offset = -jnp.einsum("bij,bj->bi", inverse, self.shift)
        return jax.vmap(partial(sample, **how))(images, inverse, offset)


def sample(
    image: jax.Array,
    matrix: jax.Array,
    offset: jax.Array,
    *,
    order: int = 1,
    cval: float = 0.0,
) -> jax.Array:
    """Samples an image, or all frames of a clip, along an affine map.

      y[m + p] = x[m + matrix p + offset],   m = ((H - 1) / 2, (W - 1) / 2)

    Args:
      image: [(T,) H, W, C], float32.
      matrix, offset: [2, 2] and [2], in pixels.
      order: 1 for bilinear interpolation, 0 for the nearest pixel.
      cval: value outside the image.
    """
    *frames, height, width, channels = image.shape
    middle = jnp.array([height - 1, width - 1], jnp.float32) / 2
    p = jnp.indices((height, width), jnp.float32) - middle[:, None, None]
    places = jnp.einsum("ij,jhw->ihw", matrix, p) + (middle + offset)[:, None, None]

    def plane(values):
        return jax.scipy.ndimage.map_coordinates(
            values, tuple(places), order=order, mode="constant", cval=cval
        )

    planes = jnp.moveaxis(image, -1, 0).reshape(-1, height, width)
    found = jax.vmap(plane)(planes).reshape(channels, *frames, height, width)
    return jnp.moveaxis(found, 0, -1)


def random_affine(
    keys: jax.Array,
    *,
    translate: float = 0,
    rotate: float = 0,
    zoom: float = 0,
    flip: float = 0,
) -> Affine:
    """Draws a map for each key: a horizontal flip, a scale, a rotation, a translation.

    Args:
      keys: [B].
      translate: largest translation along each axis, pixels.
      rotate: largest rotation in either direction, degrees.
      zoom: largest change of scale, as a fraction; 0.1 enlarges or shrinks by a tenth.
      flip: its probability.
    """

    def one(key):
        u = jax.random.uniform(key, (5,), jnp.float32, -1.0, 1.0)
        angle, scale = math.radians(rotate) * u[0], jnp.exp(math.log1p(zoom) * u[1])
        mirror = jnp.where(u[2] < 2 * flip - 1, -1.0, 1.0).astype(jnp.float32)
        cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
        # counterclockwise, as seen: rows count downwards
        matrix = jnp.stack([cos, -sin * mirror, sin, cos * mirror]).reshape(2, 2)
        return Affine(matrix, jnp.round(translate * u[3:]))

    return jax.vmap(one)(keys)
