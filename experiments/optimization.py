"""How a network is trained: schedule, update rule, and how a step is split."""

from collections.abc import Sequence

import jax
import optax

from experiments.errors import UsageError
from experiments.options import Config, Plateau
from lstm_jax import tasks, training


def schedule(config: Config, steps: int) -> optax.Schedule:
    """The learning rate of a run of `steps`, its warm-up half of them at most."""
    o = config.optimizer
    options = vars(o.schedule).items()
    used = {key: v for key, v in options if key in ("decay_rate", "cycles")}
    warmup = min(o.schedule.warmup_steps, steps // 2)
    return training.make_schedule(
        o.schedule.name, o.learning_rate, steps, warmup_steps=warmup, **used
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
        clip=o.clip,
        clip_by=o.clip_by,
        plateau=isinstance(o.schedule, Plateau),
        lr_multipliers=lr_multipliers(config),
        ema=o.ema,
    )


def lr_multipliers(config: Config) -> dict[str, float]:
    """Factors of the learning rate by pattern; 0 where frozen."""
    multipliers = {}
    for part in filter(None, config.optimizer.lr_multipliers.split(",")):
        pattern, _, factor = part.rpartition("=")
        try:
            multipliers[pattern] = float(factor)
        except ValueError:
            pattern = ""
        if not pattern or not 0 <= multipliers[pattern] < float("inf"):
            raise UsageError(
                f"optimizer.lr_multipliers: {part!r} is no PATTERN=FACTOR, such as "
                "encoder=0.1"
            )
    if config.optimizer.freeze:
        multipliers[config.optimizer.freeze] = 0.0
    return multipliers


def plateau(config: Config, goal: tasks.Task) -> list[training.Callback]:
    """What lowers the learning rate after validations that are no better, if asked."""
    how = config.optimizer.schedule
    if not isinstance(how, Plateau):
        return []
    options = dict(
        factor=how.decay_rate, patience=how.patience, min_delta=how.min_delta
    )
    return [training.ReduceOnPlateau(goal.monitor, goal.mode, **options)]


def parallel(config: Config, devices: Sequence[jax.Device]) -> str:
    """How a step is split over the devices.

    Cores of one CPU exchange sums by hand: there the compiler would gather whole stacks
    of a sequence on each. Mixup pairs pictures of all devices, and leaves it to it.
    """
    if config.parallel == "jit" and training.are_cores(devices):
        return "jit" if config.augment.mixup else "shard_map"
    return config.parallel
