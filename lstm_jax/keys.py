"""Random keys of a run over a sequence: per example and per step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Keys(NamedTuple):
    """Random keys of one run over a sequence, made by `Keys.of`.

    Attributes:
      per_sequence: a typed key, `()`, for randomness that is constant over the steps.
      per_step: typed keys, `[T]`, one per step; `()` for a single step.

    Made from one key per example, `[*B]`, both have these as additional last axes;
    `randomness.per_example` then passes a cell the keys of one example.
    """

    per_sequence: jax.Array
    per_step: jax.Array

    @classmethod
    def of(cls, key: jax.Array, time: int, first_step: Any = 0) -> "Keys":
        """Keys for `time` steps starting at step `first_step`, an integer.

        The key of a step depends on its index alone, not on `time` or `first_step`.

        Raises:
          ValueError: if `first_step` is not one integer.
        """
        sequence, seed = split_key(typed_key(key))
        check_first_step("Keys.of", first_step)
        steps = jnp.arange(time, dtype=jnp.uint32)
        steps += jnp.asarray(first_step).astype(jnp.uint32)
        return cls(sequence, jax.vmap(fold_in, (None, 0))(seed, steps))

    def fold_in(self, data: int) -> "Keys":
        """Independent keys for one of several consumers, such as a layer."""
        return Keys(fold_in(self.per_sequence, data), fold_in(self.per_step, data))

    def stacked(self) -> "Keys":
        """Both as `[T]`, to be part of `us` in a loop over steps."""
        sequence = jnp.broadcast_to(self.per_sequence, self.per_step.shape)
        return Keys(sequence, self.per_step)


def check_first_step(caller: str, first_step: Any) -> None:
    """Raises ValueError unless `first_step` is one integer; booleans are not."""
    shape, dtype = np.shape(first_step), jnp.result_type(first_step)
    if shape or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"{caller}: first_step is {dtype}{list(shape)}, but it is the number of a "
            "step: pass one integer"
        )


def typed_key(key: jax.Array) -> jax.Array:
    """A key, or an array of keys, as typed keys; raw keys are converted."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def fold_in(key: jax.Array, data: Any) -> jax.Array:
    """`jax.random.fold_in` for a key or an array of keys."""
    fold = jax.random.fold_in
    for _ in range(key.ndim):
        fold = jax.vmap(fold, (0, None))
    return fold(key, data)


def split_key(key: jax.Array, number: int = 2) -> jax.Array:
    """`jax.random.split` for a key or an array of keys: `[number, *key.shape]`."""
    split = partial(jax.random.split, num=number)
    for _ in range(key.ndim):
        split = jax.vmap(split, out_axes=1)
    return split(key)
