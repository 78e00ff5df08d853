"""The learning-rate schedule, the optimizer and the parallelisation of a step."""

from collections.abc import Sequence

import jax
import optax

from experiments.errors import UsageError
from experiments.options import Config, Plateau
from lstm_jax import tasks, training


def schedule(config: Config, steps: int) -> optax.Schedule:
    """The learning-rate schedule over `steps`; warm-up takes at most half of them."""
    o = config.optimizer
    options = vars(o.schedule).items()
    used = {key: v for key, v in options if key in ("decay_rate", "cycles")}
    warmup = min(o.schedule.warmup_steps, steps // 2)
    return training.make_schedule(
        o.schedule.name, o.learning_rate, steps, warmup_steps=warmup, **used
    )


def optimizer(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of a run, with the learning rate `rate`."""
    o = config.optimizer
    return training.make_optimizer(
        o.name,
        rate,
        momentum=o.momentum,
        nesterov=o.nesterov,
        weight_decay=o.weight_decay,
        clip=o.clip,
        clip_by=o.clip_by,
        plateau=isinstance(o.schedule, Plateau),
        lr_multipliers=lr_multipliers(config),
        ema=o.ema,
    )


def lr_multipliers(config: Config) -> dict[str, float]:
    """Learning-rate multipliers by pattern of parameter paths; 0 for frozen ones."""
    multipliers = {}
    for part in filter(None, config.optimizer.lr_multipliers.split(",")):
        pattern, _, factor = part.rpartition("=")
        try:
            multipliers[pattern] = float(factor)
        except ValueError:
            pattern = ""
        if not pattern or not 0 <= multipliers[pattern] < float("inf"):
            raise UsageError(
                f"--optimizer.lr-multipliers: {part!r} is not PATTERN=FACTOR, such as "
                "encoder=0.1"
            )
    if config.optimizer.freeze:
        multipliers[config.optimizer.freeze] = 0.0
    return multipliers


def plateau(config: Config, goal: tasks.Task) -> list[training.Callback]:
    """The callback of --optimizer.schedule=plateau; [] for other schedules."""
    how = config.optimizer.schedule
    if not isinstance(how, Plateau):
        return []
    options = dict(
        factor=how.decay_rate, patience=how.patience, min_delta=how.min_delta
    )
    return [training.ReduceOnPlateau(goal.monitor, goal.mode, **options)]


def parallel(config: Config, devices: Sequence[jax.Device]) -> str:
    """How a step is split over the devices: "jit", "shard_map" or "pmap".

    On several CPU devices, "jit" would gather whole sequences on each device, so
    "shard_map" with explicit sums is used. Mixup and CutMix pair images of different
    devices and need "jit".
    """
    if config.parallel == "jit" and training.are_cores(devices):
        mixes = config.augment.mixup or config.augment.cutmix
        return "jit" if mixes else "shard_map"
    return config.parallel
