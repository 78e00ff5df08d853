"""An average of the weights over the last steps, to be evaluated in their place."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AverageState(NamedTuple):
    """Updates seen, int32 [], and the average of the weights after them."""

    count: jax.Array
    average: Any


def average_weights(decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the weights; the last of a chain.

        a_t = sum_k decay^(t-k) w_k / sum_k decay^(t-k),   k = 1 … t

    The initial weights are not in it, so it needs no warm-up. Updates pass unchanged.

    Args:
      decay: in (0, 1); 1 / (1 - decay) steps are averaged, roughly.

    Returns:
      An optax transformation that wants the params.

    Raises:
      ValueError: `decay` out of its range.

    Reference: Polyak & Juditsky 1992; its exponential form with the correction of
    Kingma & Ba 2015, section 3.
    """
    if not 0 < decay < 1:
        raise ValueError(f"decay: got {decay}, want more than 0 and less than 1")

    def init(params):
        return AverageState(jnp.int32(0), jax.tree.map(jnp.copy, params))

    def update(updates, state, params=None):
        count = state.count + 1
        # expm1, since 1 - decay^1 has few digits in float32 where decay is close to 1
        times = count.astype(jnp.float32)
        share = (decay - 1) / jnp.expm1(math.log(decay) * times)

        def towards(average, param, change):
            return average + share.astype(average.dtype) * (param + change - average)

        average = jax.tree.map(towards, state.average, params, updates)
        return updates, AverageState(count, average)

    return optax.GradientTransformation(init, update)


def weights(state: Any) -> Any:
    """The weights of a `TrainState` to evaluate: their average, if there is one."""
    for part in jax.tree.leaves(state.opt_state, is_leaf=_is_average):
        if _is_average(part):
            return part.average
    return state.params


def _is_average(part: Any) -> bool:
    return isinstance(part, AverageState)
