"""How a network is trained: schedule, update rule, and how a step is split."""

import optax

from experiments.errors import UsageError
from experiments.options import Config
from lstm_jax import tasks, training


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
        rates=lr_multipliers(config),
        average=o.ema,
    )


def lr_multipliers(config: Config) -> dict[str, float]:
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


def plateau(config: Config, goal: tasks.Task) -> list[training.Callback]:
    """What lowers the learning rate after validations that are no better, if asked."""
    if config.optimizer.schedule != "plateau":
        return []
    options = dict(
        factor=config.optimizer.decay_rate,
        patience=config.optimizer.patience,
        min_delta=config.min_delta,
    )
    return [training.ReduceOnPlateau(goal.monitor, goal.mode, **options)]


def parallel(config: Config, devices: list) -> str:
    """How a step is split over the devices.

    Cores of one CPU exchange sums by hand: there the compiler would gather whole stacks
    of a sequence on each. Mixup pairs pictures of all devices, and leaves it to it.
    """
    if config.parallel == "jit" and training.are_cores(devices):
        return "jit" if config.augment.mixup else "shard_map"
    return config.parallel
