"""Which keys a model draws from: those it is given, or those of a Linen stream."""

import flax.linen as nn
import jax

from lstm_jax.keys import fold_in, split_key


def example_keys(
    module: nn.Module, keys: jax.Array | None, batch: int
) -> jax.Array | None:
    """Keys of `batch` examples: `keys`, or what `rngs={"dropout": key}` gives.

    None, for evaluation, where there is neither. From `keys` of its own an example
    draws the same in any batch; keys of the stream depend on its place in the batch.
    """
    if keys is None and module.has_rng("dropout"):
        return jax.random.split(module.make_rng("dropout"), batch)
    return keys


def fold(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys of their own for one of several users, such as a layer."""
    return None if keys is None else fold_in(keys, number)


def spread(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys `[B, number]` for the parts of each example, of keys `[B]`."""
    return None if keys is None else split_key(keys, number).T
