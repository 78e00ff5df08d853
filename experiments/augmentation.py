"""Augmentation of training images and clips, by the options of `--augment`."""

import dataclasses

import jax
import jax.numpy as jnp

from experiments.options import Config
from experiments.tasks import TaskKind
from lstm_jax import training
from lstm_jax.keys import fold_in

MOVES = ("translate", "rotate", "zoom", "flip")


def move(config: Config, kind: TaskKind, batch: dict, keys: jax.Array) -> dict:
    """Moves images and the targets that lie in them alike, by `keys [B]`."""
    o = config.augment
    amounts = {name: getattr(o, name) for name in MOVES}
    if not any(amounts.values()):
        return batch
    affine = training.random_affine(keys, **amounts)
    size = batch["inputs"].shape[-3:-1]
    targets = kind.moved_targets(batch["targets"], affine, size)
    return batch | {"inputs": affine.images(batch["inputs"]), "targets": targets}


def changes(config: Config, *, moves: bool = True):
    """`(images [B, (T,) H, W, C], keys [B]) -> (images, mixed)`.

    `mixed` is None, or `(weights [B], partners [B])` of mixup or CutMix. Without
    `moves`, images are not translated, rotated, scaled or flipped.
    """
    o, t = config.augment, training
    if not moves:
        o = dataclasses.replace(o, **dict.fromkeys(MOVES, 0))
    appearance = [(t.color_jitter, o.color_jitter), (t.rand_augment, o.rand_augment)]
    changes = [
        (t.translate, o.translate),
        (t.rotate, o.rotate),
        (t.crop, o.crop),
        (t.flip, o.flip),
        (t.cutout, o.cutout),
        (t.noise, o.noise),
        (t.zoom, o.zoom),
        (t.erase, o.erase),
    ]

    def change(images: jax.Array, keys: jax.Array):
        images = applied(appearance, images, fold_in(keys, len(changes) + 1))
        shape = images.shape
        if len(shape) == 5:  # frames of a clip change alike: as channels of one image
            images = jnp.moveaxis(images, 1, 3).reshape(shape[0], *shape[2:4], -1)
            images, pairs = of_images(images, keys)
            images = images.reshape(shape[0], *shape[2:4], shape[1], shape[4])
            return jnp.moveaxis(images, 3, 1), pairs
        return of_images(images, keys)

    def of_images(images: jax.Array, keys: jax.Array):
        images = applied(changes, images, keys)
        return mixed(images, fold_in(keys, len(changes)))

    def applied(changes, images: jax.Array, keys: jax.Array):
        for number, (function, amount) in enumerate(changes):
            images = function(images, fold_in(keys, number), amount)
        return images

    def mixed(images: jax.Array, keys: jax.Array):
        if o.mixup and o.cutmix:
            blended, *first = t.mixup(images, keys, o.mixup)
            pasted, *second = t.cutmix(images, fold_in(keys, 0), o.cutmix)
            blends = jax.vmap(jax.random.bernoulli)(fold_in(keys, 1))
            weights = jnp.where(blends, first[0], second[0])
            blends = blends[:, None, None, None]
            return jnp.where(blends, blended, pasted), [weights, first[1]]
        for function, alpha in ((t.mixup, o.mixup), (t.cutmix, o.cutmix)):
            if alpha:
                images, *pairs = function(images, keys, alpha)
                return images, pairs
        return images, None

    return change
