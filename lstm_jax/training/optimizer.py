"""Learning-rate schedules and optimizers, as chains of optax transformations."""

import difflib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from lstm_jax.training.averaging import average_weights
from lstm_jax.training.muon import muon
from lstm_jax.training.plateau import scale_on_plateau
from lstm_jax.training.warm_start import scale_by_path

SCHEDULES = (
    "constant",
    "cosine",
    "exponential",
    "step",
    "one_cycle",
    "restarts",
    "plateau",
)
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "muon")
CLIPS = ("global_norm", "value", "adaptive")


def make_schedule(
    name: str,
    learning_rate: float,
    steps: int,
    *,
    warmup_steps: int = 0,
    end_fraction: float = 0.0,
    decay_rate: float = 0.1,
    boundaries: Sequence[int] | None = None,
    cycles: int = 4,
) -> optax.Schedule:
    """The learning rate at each step.

    With t counted from 0, w = warmup_steps and u = (t - w) / (steps - w):

      warm-up, t < w   learning_rate (t + 1) / (w + 1)
      constant         learning_rate
      cosine           learning_rate (e + (1 - e)(1 + cos(pi u)) / 2), e = end_fraction
      exponential      learning_rate max(decay_rate^u, end_fraction)
      step             learning_rate decay_rate^(number of boundaries <= t)
      one_cycle        up along half a cosine from learning_rate / 25 over the first
                       0.3 of u, then down along another to learning_rate / 250,000
      restarts         cosine, of u cycles - floor(u cycles): `cycles` times over
      plateau          learning_rate; `observe` lowers it, if the optimizer has
                       `plateau=True`

    Args:
      name: as above.
      learning_rate: the highest rate, reached when the warm-up ends.
      steps: length of the whole run.
      warmup_steps: length of the linear warm-up, less than `steps`.
      end_fraction: the lowest rate as a fraction of `learning_rate`, in [0, 1]
        (cosine, exponential and restarts).
      decay_rate: factor over the whole run (exponential) or at each boundary (step).
      boundaries: steps at which the rate drops (step); by default at one half and
        at three quarters of what follows the warm-up.
      cycles: how often the rate starts from the top (restarts).

    Returns:
      A function from the step to the rate, float32 [].

    Raises:
      ValueError: an unknown name, a negative number, a duration that does not fit.

    Reference: Loshchilov & Hutter 2017, eq. 5 (cosine, restarts of equal length);
    Smith & Topin 2018 (one_cycle, with the fractions that PyTorch and optax have).
    """
    _known("schedule", name, SCHEDULES)
    _not_negative(
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        end_fraction=end_fraction,
        decay_rate=decay_rate,
    )
    if steps < 1:
        raise ValueError(f"steps: got {steps}, want at least 1")
    if warmup_steps >= steps:
        raise ValueError(
            f"warmup_steps: got {warmup_steps}, want less than steps={steps}"
        )
    if end_fraction > 1:
        raise ValueError(f"end_fraction: got {end_fraction}, want at most 1")
    if cycles < 1:
        raise ValueError(f"cycles: got {cycles}, want 1 or more")
    rest = steps - warmup_steps
    if boundaries is None:
        boundaries = [warmup_steps + rest // 2, warmup_steps + 3 * rest // 4]
    elif min(boundaries, default=steps) <= warmup_steps:
        raise ValueError(
            f"boundaries: got {list(boundaries)}, want steps after "
            f"warmup_steps={warmup_steps}"
        )

    def schedule(count):
        t = jnp.asarray(count, jnp.float32)
        u = jnp.clip((t - warmup_steps) / rest, 0.0, 1.0)
        if name in ("constant", "plateau"):
            factor = jnp.ones_like(t)
        elif name in ("cosine", "restarts"):
            if name == "restarts":  # at the very end it is down, not up again
                u = jnp.where(u < 1, u * cycles - jnp.floor(u * cycles), u)
            factor = end_fraction + (1.0 - end_fraction) * _fall(u)
        elif name == "one_cycle":
            low, lowest = 1 / 25, 1 / 250_000
            rise = low + (1 - low) * (1 - _fall(u / 0.3))
            fall = lowest + (1 - lowest) * _fall((u - 0.3) / 0.7)
            factor = jnp.where(u < 0.3, rise, fall)
        elif name == "exponential":
            factor = jnp.maximum(jnp.power(decay_rate, u), end_fraction)
        else:
            passed = t[..., None] >= jnp.asarray(boundaries, jnp.float32)
            factor = jnp.prod(jnp.where(passed, decay_rate, 1.0), axis=-1)
        warm = (t + 1.0) / (warmup_steps + 1.0)
        return learning_rate * jnp.where(t < warmup_steps, warm, factor)

    return schedule


def _fall(u):
    """From 1 at u = 0 to 0 at u = 1, along half a cosine."""
    return (1.0 + jnp.cos(jnp.pi * u)) / 2.0


def make_optimizer(
    name: str,
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip: float | None = None,
    clip_by: str = "global_norm",
    plateau: bool = False,
    rates: Mapping[str, float] | None = None,
    average: float = 0.0,
) -> optax.GradientTransformation:
    """Clip, precondition, decay weights, scale by the learning rate; in this order.

      update = -learning_rate (precondition(clip(gradient)) + weight_decay weights)

    Args:
      name: "sgd", "adam", "adamw", "rmsprop" or "muon". With decoupled decay "adam"
        and "adamw" are one method; both names are understood.
      schedule: the learning rate, or a function of the step.
      momentum: of "sgd" only; in [0, 1).
      nesterov: look ahead with the momentum ("sgd", "adam", "adamw").
      weight_decay: decoupled from the gradient; only leaves of rank 2 and more decay,
        so biases and scales never do.
      clip: the limit, greater than 0; None leaves gradients alone.
      clip_by: "global_norm" (of all leaves together), "value" (of each number) or
        "adaptive" (of each unit, relative to the norm of its weights).
      plateau: the rate is lowered further by `observe`, as a metric wants it.
      rates: factors of the rate for leaves by pattern, as `rate_factors` takes them.
      average: decay of an average of the weights, which `weights` then gives; 0: none.

    Returns:
      An optax transformation.

    Raises:
      ValueError: an unknown name or a number out of range.
    """
    _known("optimizer", name, OPTIMIZERS)
    _known("clip_by", clip_by, CLIPS)
    _not_negative(momentum=momentum, weight_decay=weight_decay)
    if not callable(schedule):
        _not_negative(learning_rate=schedule)
    if momentum >= 1:
        raise ValueError(f"momentum: got {momentum}, want less than 1")
    chain = []
    if clip is not None:
        if not clip > 0:
            raise ValueError(f"clip: got {clip}, want more than 0, or None for no clip")
        if clip_by == "global_norm":
            chain.append(optax.clip_by_global_norm(clip))
        elif clip_by == "value":
            chain.append(optax.clip(clip))
        else:
            chain.append(optax.adaptive_grad_clip(clip))
    if name == "sgd":
        if momentum:
            chain.append(optax.trace(momentum, nesterov=nesterov))
    elif name == "rmsprop":
        chain.append(optax.scale_by_rms())
    elif name == "muon":
        chain.append(muon())
    else:
        chain.append(optax.scale_by_adam(nesterov=nesterov))
    if weight_decay:
        chain.append(optax.add_decayed_weights(weight_decay, mask=_decays))
    chain.append(optax.scale_by_learning_rate(schedule))
    if plateau:
        chain.append(scale_on_plateau())
    if rates:
        chain.append(scale_by_path(rates))
    if average:
        chain.append(average_weights(average))
    return optax.chain(*chain)


def _decays(params):
    """True for the leaves that decay: matrices and kernels."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what}: got {name!r}, want one of {', '.join(names)}{hint}")


def _not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number >= 0:  # nan too
            raise ValueError(f"{name}: got {number}, want 0 or more")
