"""Detection of a metric that stops improving; learning-rate reduction on plateau."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ReduceLROnPlateauState, reduce_on_plateau


def scale_on_plateau() -> optax.GradientTransformation:
    """Scales updates by a factor, initially 1, that `lower_on_plateau` reduces."""

    def update(updates, state, params=None):
        del params
        scale = state.scale
        return jax.tree.map(lambda u: scale.astype(u.dtype) * u, updates), state

    return optax.GradientTransformation(reduce_on_plateau().init, update)


def lower_on_plateau(
    state: Any, value: float, *, factor: float, patience: int, min_delta: float = 0.0
) -> Any:
    """Updates the factor of `scale_on_plateau` after an evaluation.

    After `patience` evaluations in a row that do not improve on the best by more than
    `min_delta`, the learning rate is multiplied by `factor`.

    Args:
      state: a `TrainState`; returned unchanged if it has no `scale_on_plateau`.
      value: the metric, to be minimized.
      factor: in (0, 1).
      patience: number of evaluations, at least 1.
      min_delta: smallest decrease that counts as an improvement, at least 0.

    Returns:
      The updated state.
    """
    # optax requires a tolerance above 0.
    tx = reduce_on_plateau(factor, patience, rtol=0.0, atol=max(min_delta, 1e-30))

    def told(part):
        if not _is_plateau(part):
            return part
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            return tx.update((), part, value=jnp.float32(value))[1]

    return state._replace(
        opt_state=jax.tree.map(told, state.opt_state, is_leaf=_is_plateau)
    )


def rate_scale(state: Any) -> float:
    """The factor of the learning rate set by `lower_on_plateau`; 1 without it."""
    parts = jax.tree.leaves(state.opt_state, is_leaf=_is_plateau)
    return next((float(part.scale) for part in parts if _is_plateau(part)), 1.0)


def evaluations_without_improvement(
    values: Sequence[float | None], mode: str, min_delta: float = 0.0
) -> int:
    """Number of evaluations since the last improvement.

    Args:
      values: the metric at each evaluation so far; NaN and None are no improvement.
      mode: "max" or "min", whether the metric is maximized or minimized.
      min_delta: smallest change that counts as an improvement, at least 0.

    >>> evaluations_without_improvement([0.5, 0.8, 0.7, 0.81], "max", min_delta=0.05)
    2
    """
    sign, best, since = (1 if mode == "max" else -1), -float("inf"), 0
    for value in values:
        since += 1
        if value is None:
            continue
        if sign * value > best + min_delta:
            best, since = sign * value, 0
    return since


def _is_plateau(part: Any) -> bool:
    return isinstance(part, ReduceLROnPlateauState)
