"""Keys of a run over a sequence: of its examples, and of its steps."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Keys(NamedTuple):
    """Randomness of one run over a sequence, made by `Keys.of`.

    Attributes:
      per_sequence: a typed key, `()`, for what stays the same through all steps.
      per_step: typed keys, `[T]`, one for each step; `()` where one step is meant.

    Made from one key for each example, `[*B]`, both have these axes last; what a cell
    is given, by `randomness.per_example`, is then still the keys of one example.
    """

    per_sequence: jax.Array
    per_step: jax.Array

    @classmethod
    def of(cls, key: jax.Array, time: int, first_step: Any = 0) -> "Keys":
        """Keys for `time` steps from step `first_step` on, an integer.

        The key of step t of a sequence depends on neither of them.

        Raises:
          ValueError: if `first_step` is not one integer.
        """
        sequence, seed = split_key(typed_key(key))
        check_first_step("Keys.of", first_step)
        steps = jnp.arange(time, dtype=jnp.uint32)
        steps += jnp.asarray(first_step).astype(jnp.uint32)
        return cls(sequence, jax.vmap(fold_in, (None, 0))(seed, steps))

    def fold_in(self, data: int) -> "Keys":
        """Keys of their own for one of several users, such as a layer."""
        return Keys(fold_in(self.per_sequence, data), fold_in(self.per_step, data))

    def stacked(self) -> "Keys":
        """Both `[T]`, to travel through the steps as a part of `us`."""
        sequence = jnp.broadcast_to(self.per_sequence, self.per_step.shape)
        return Keys(sequence, self.per_step)


def check_first_step(caller: str, first_step: Any) -> None:
    """Refuses what is not one integer, such as a boolean."""
    shape, dtype = np.shape(first_step), jnp.result_type(first_step)
    if shape or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"{caller}: first_step is {dtype}{list(shape)}, but it is the number of a "
            "step: pass one integer"
        )


def typed_key(key: jax.Array) -> jax.Array:
    """A key, or an array of keys, with a dtype of its own; of a raw one, too."""
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
