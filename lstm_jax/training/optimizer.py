"""Learning-rate schedules and optimizers, as chains of optax transformations."""

import difflib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from lstm_jax.training.ema import average_weights
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
    decay_rate: float = 0.1,
    cycles: int = 4,
) -> optax.Schedule:
    """Makes a learning-rate schedule.

    With t counted from 0, w = warmup_steps and u = (t - w) / (steps - w):

      warm-up, t < w   learning_rate (t + 1) / (w + 1)
      constant         learning_rate
      cosine           learning_rate (1 + cos(pi u)) / 2
      exponential      learning_rate decay_rate^u
      step             learning_rate decay_rate^n, n the number of 1/2 and 3/4 <= u
      one_cycle        cosine increase from learning_rate / 25 over the first 0.3 of u,
                       then cosine decrease to learning_rate / 250,000
      restarts         cosine of u cycles - floor(u cycles): `cycles` cosine periods
      plateau          learning_rate; `lower_on_plateau` lowers it, if the optimizer has
                       `plateau=True`

    Args:
      name: as above.
      learning_rate: the highest rate, reached at the end of the warm-up.
      steps: length of the whole run.
      warmup_steps: length of the linear warm-up, less than `steps`.
      decay_rate: factor over the whole run (exponential) or at each drop (step).
      cycles: number of cosine periods (restarts).

    Returns:
      A function from the step to the rate, float32 [].

    Raises:
      ValueError: an unknown name, a negative number, or `warmup_steps` too long.

    Reference: Loshchilov & Hutter 2017, eq. 5 (cosine, restarts of equal length);
    Smith & Topin 2018 (one_cycle, with PyTorch's and optax's fractions).
    """
    _known("schedule", name, SCHEDULES)
    _not_negative(
        learning_rate=learning_rate, warmup_steps=warmup_steps, decay_rate=decay_rate
    )
    if steps < 1:
        raise ValueError(f"steps: got {steps}, want at least 1")
    if warmup_steps >= steps:
        raise ValueError(
            f"warmup_steps: got {warmup_steps}, want less than steps={steps}"
        )
    if cycles < 1:
        raise ValueError(f"cycles: got {cycles}, want 1 or more")
    rest = steps - warmup_steps
    if name in ("constant", "plateau"):
        schedule = optax.constant_schedule(learning_rate)
    elif name in ("cosine", "restarts"):
        cycles = cycles if name == "restarts" else 1
        one = optax.cosine_decay_schedule(learning_rate, rest / cycles)
        starts = [number * rest / cycles for number in range(1, cycles)]
        schedule = optax.join_schedules([one] * cycles, starts)
    elif name == "exponential":
        schedule = optax.exponential_decay(
            learning_rate, rest, decay_rate, end_value=learning_rate * decay_rate
        )
    elif name == "step":
        drops = {rest // 2: decay_rate, 3 * rest // 4: decay_rate}
        schedule = optax.piecewise_constant_schedule(learning_rate, drops)
    else:
        ends = {0.3 * rest: 25.0, rest: 1 / 250_000}
        schedule = optax.piecewise_interpolate_schedule(
            "cosine", learning_rate / 25, ends
        )
    if warmup_steps:
        first = learning_rate / (warmup_steps + 1)
        warm = optax.linear_schedule(first, learning_rate, warmup_steps)
        schedule = optax.join_schedules([warm, schedule], [warmup_steps])

    def rate(count):
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            return jnp.asarray(schedule(jnp.asarray(count, jnp.float32)), jnp.float32)

    return rate


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
    lr_multipliers: Mapping[str, float] | None = None,
    ema: float = 0.0,
) -> optax.GradientTransformation:
    """A chain: clipping, preconditioning, weight decay, learning rate; in this order.

      update = -learning_rate (precondition(clip(gradient)) + weight_decay weights)

    Args:
      name: "sgd", "adam", "adamw", "rmsprop" or "muon". Weight decay is decoupled, so
        "adam" and "adamw" are the same.
      schedule: the learning rate, or a function of the step.
      momentum: of "sgd" only; in [0, 1).
      nesterov: whether to use Nesterov momentum ("sgd", "adam", "adamw").
      weight_decay: decoupled weight decay; applied to leaves of rank 2 and more, not to
        biases and scales.
      clip: clipping threshold, greater than 0; None: no clipping.
      clip_by: "global_norm" (of all leaves together), "value" (of each number) or
        "adaptive" (of each unit, relative to the norm of its weights).
      plateau: whether `lower_on_plateau` can lower the rate.
      lr_multipliers: factors of the learning rate by pattern; see `lr_multipliers`.
      ema: decay of an exponential moving average of the weights, see
        `average_weights`; 0: none.

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
            raise ValueError(f"clip: got {clip}, want more than 0, or None for none")
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
    if lr_multipliers:
        chain.append(scale_by_path(lr_multipliers))
    if ema:
        chain.append(average_weights(ema))
    return optax.chain(*chain)


def _decays(params):
    """True for the leaves with weight decay: matrices and kernels."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what}: got {name!r}, want one of {', '.join(names)}{hint}")


def _not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number >= 0:  # also refuses NaN
            raise ValueError(f"{name}: got {number}, want 0 or more")
