"""Exponential moving average (EMA) of the weights, used for evaluation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AverageState(NamedTuple):
    """Number of updates, int32 [], and the average of the weights after them."""

    count: jax.Array
    average: Any


def average_weights(decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the weights; must be last in a chain.

        a_t = sum_k decay^(t-k) w_k / sum_k decay^(t-k),   k = 1 … t

    The initial weights are excluded, so no warm-up is needed. Updates are unchanged.

    Args:
      decay: in (0, 1); averages over roughly 1 / (1 - decay) steps.

    Returns:
      An optax transformation; its `update` requires `params`.

    Raises:
      ValueError: `decay` is out of range.

    Reference: Polyak & Juditsky 1992; its exponential form with the correction of
    Kingma & Ba 2015, section 3.
    """
    if not 0 < decay < 1:
        raise ValueError(f"decay: got {decay}, want more than 0 and less than 1")

    def init(params):
        return AverageState(jnp.int32(0), jax.tree.map(jnp.copy, params))

    def update(updates, state, params=None):
        count = state.count + 1
        # expm1 keeps precision in float32 where decay is close to 1.
        times = count.astype(jnp.float32)
        share = (decay - 1) / jnp.expm1(math.log(decay) * times)

        def towards(average, param, change):
            return average + share.astype(average.dtype) * (param + change - average)

        average = jax.tree.map(towards, state.average, params, updates)
        return updates, AverageState(count, average)

    return optax.GradientTransformation(init, update)


def weights(state: Any) -> Any:
    """The weights to evaluate: the average if the optimizer keeps one."""
    for part in jax.tree.leaves(state.opt_state, is_leaf=_is_average):
        if _is_average(part):
            return part.average
    return state.params


def _is_average(part: Any) -> bool:
    return isinstance(part, AverageState)
