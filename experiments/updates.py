"""From a configuration to what training computes: augmentation, loss, optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import network
from experiments.build import Facts
from experiments.config import UsageError
from experiments.options import Config
from lstm_jax import tasks, training
from lstm_jax.keys import fold_in


def augment(config: Config):
    """`(images [B, H, W, C], keys [B]) -> (images, mixup)`, for training pictures.

    `mixup` is None, or `(weights [B], partners [B])` of the pairs.
    """
    o, t = config.augment, training
    changes = [
        (t.shift, o.shift),
        (t.rotate, o.rotate),
        (t.crop, o.crop),
        (t.flip, o.flip),
        (t.cutout, o.cutout),
        (t.noise, o.noise),
    ]

    def change(images: jax.Array, keys: jax.Array):
        shape = images.shape
        if len(shape) == 5:  # all frames of a clip alike: as channels of one picture
            images = jnp.moveaxis(images, 1, 3).reshape(shape[0], *shape[2:4], -1)
            images, pairs = of_pictures(images, keys)
            images = images.reshape(shape[0], *shape[2:4], shape[1], shape[4])
            return jnp.moveaxis(images, 3, 1), pairs
        return of_pictures(images, keys)

    def of_pictures(images: jax.Array, keys: jax.Array):
        for number, (function, amount) in enumerate(changes):
            images = function(images, fold_in(keys, number), amount)
        if not o.mixup:
            return images, None
        images, *pairs = t.mixup(images, fold_in(keys, len(changes)), o.mixup)
        return images, pairs

    return change


def loss_fn(config: Config, about: Facts, goal: tasks.Task):
    """`(params, batch, keys [B]) -> ((loss, count), metrics)`, augmented."""
    change, forward = augment(config), network.forward_fn(config, about)
    ready, rates = _with_targets(config), _rates(config)

    def loss(params: Any, batch: dict, keys: jax.Array):
        batch = dict(batch)
        params = training.freeze(params, rates)
        inputs, pairs = batch["inputs"], None
        if len(about.image_shape) > 2:
            inputs, pairs = change(inputs, fold_in(keys, 0))
        if config.augment.warp:
            parts = inputs, batch["lengths"], fold_in(keys, 2), config.augment.warp
            inputs, batch["lengths"] = training.warp(*parts)
        batch = ready(batch | {"inputs": inputs})
        outputs, extra = forward(params, batch, fold_in(keys, 1))
        metrics = goal.metrics(outputs, batch)
        if pairs is not None:
            weight, partner = pairs
            other, mask = batch["targets"][partner], batch["mask"]
            ours = goal.loss(outputs, batch | dict(mask=mask * weight))
            theirs = goal.loss(
                outputs, batch | dict(targets=other, mask=mask * (1 - weight))
            )
            return (ours[0] + theirs[0], ours[1] + theirs[1]), metrics
        total, count = goal.loss(outputs, batch)
        if extra is not None:
            total += (extra * batch["mask"]).sum()
        return (total, count), metrics

    return loss


def eval_fn(config: Config, about: Facts, goal: tasks.Task):
    """`(params, batch) -> (metrics, predictions)`."""
    forward, ready = network.forward_fn(config, about), _with_targets(config)

    def evaluate(params: Any, batch: dict):
        batch = ready(batch)
        outputs, _ = forward(params, batch)
        return goal.metrics(outputs, batch), goal.predict(outputs)

    return evaluate


def _with_targets(config: Config):
    """The batch with what is predicted as its targets: of a forecast, the clip."""
    if config.task.name == "forecasting":
        return lambda b: b | {"targets": b["inputs"].astype(jnp.float32) / 255}
    return lambda batch: batch


def schedule(config: Config, steps: int) -> optax.Schedule:
    """The learning rate of a run of `steps`, its warm-up half of them at most."""
    o = config.optimizer
    warmup = 0 if o.schedule == "one_cycle" else o.warmup_steps  # it has its own
    return training.make_schedule(
        o.schedule,
        o.learning_rate,
        steps,
        warmup_steps=min(warmup, steps // 2),
        decay_rate=o.decay_rate,
        cycles=o.cycles,
    )


def optimizer(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """The update rule of a run."""
    o = config.optimizer
    return training.make_optimizer(
        o.name,
        rate,
        momentum=o.momentum,
        nesterov=o.nesterov,
        weight_decay=o.weight_decay,
        clip=o.clip or None,
        clip_by=o.clip_by,
        plateau=o.schedule == "plateau",
        rates=_rates(config),
        average=o.ema,
    )


def _rates(config: Config) -> dict[str, float]:
    """Factors of the learning rate by pattern; 0 where frozen."""
    rates = {}
    for part in filter(None, config.optimizer.rates.split(",")):
        pattern, _, factor = part.rpartition("=")
        try:
            rates[pattern] = float(factor)
        except ValueError:
            pattern = ""
        if not pattern or not 0 <= rates[pattern] < float("inf"):
            raise UsageError(
                f"optimizer.rates: {part!r} is no PATTERN=FACTOR, such as encoder=0.1"
            )
    if config.optimizer.freeze:
        rates[config.optimizer.freeze] = 0.0
    return rates


def observe(config: Config, goal: tasks.Task):
    """What lowers the learning rate after validations that are no better; or None."""
    if config.optimizer.schedule != "plateau":
        return None
    sign = -1 if goal.mode == "max" else 1
    options = dict(
        factor=config.optimizer.decay_rate,
        patience=config.optimizer.patience,
        min_delta=config.min_delta,
    )
    return lambda state, means: training.observe(
        state, sign * means.get(goal.monitor, float("nan")), **options
    )


def parallel(config: Config, devices: list) -> str:
    """How a step is split over the devices.

    Cores of one CPU exchange sums by hand: there the compiler would gather whole stacks
    of a sequence on each. Mixup pairs pictures of all devices, and leaves it to it.
    """
    if config.parallel == "jit" and training.are_cores(devices):
        return "jit" if config.augment.mixup else "shard_map"
    return config.parallel
