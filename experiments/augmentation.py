"""Augmentation of training images and clips, by the options of `--augment`."""

import jax
import jax.numpy as jnp

from experiments.options import Config
from lstm_jax import training
from lstm_jax.keys import fold_in


def changes(config: Config):
    """`(images [B, (T,) H, W, C], keys [B]) -> (images, mixup)`.

    `mixup` is None, or `(weights [B], partners [B])` of the mixed pairs.
    """
    o, t = config.augment, training
    changes = [
        (t.translate, o.translate),
        (t.rotate, o.rotate),
        (t.crop, o.crop),
        (t.flip, o.flip),
        (t.cutout, o.cutout),
        (t.noise, o.noise),
    ]

    def change(images: jax.Array, keys: jax.Array):
        shape = images.shape
        if len(shape) == 5:  # frames of a clip change alike: as channels of one image
            images = jnp.moveaxis(images, 1, 3).reshape(shape[0], *shape[2:4], -1)
            images, pairs = of_images(images, keys)
            images = images.reshape(shape[0], *shape[2:4], shape[1], shape[4])
            return jnp.moveaxis(images, 3, 1), pairs
        return of_images(images, keys)

    def of_images(images: jax.Array, keys: jax.Array):
        for number, (function, amount) in enumerate(changes):
            images = function(images, fold_in(keys, number), amount)
        if not o.mixup:
            return images, None
        images, *pairs = t.mixup(images, fold_in(keys, len(changes)), o.mixup)
        return images, pairs

    return change
