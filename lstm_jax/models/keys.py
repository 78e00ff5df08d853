"""Random keys of a model: given as `keys`, or from a Linen stream."""

import flax.linen as nn
import jax

from lstm_jax.keys import fold_in, split_key


def example_keys(
    module: nn.Module, keys: jax.Array | None, batch: int
) -> jax.Array | None:
    """Keys of `batch` examples: `keys`, or derived from `rngs={"dropout": key}`.

    None, for evaluation, without either. With `keys` an example's randomness does not
    depend on its batch; with a stream it depends on its position in the batch.
    """
    if keys is None and module.has_rng("dropout"):
        return jax.random.split(module.make_rng("dropout"), batch)
    return keys


def fold(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys for one of several consumers, such as a layer, by `fold_in`."""
    return None if keys is None else fold_in(keys, number)


def spread(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys `[B, number]` for the parts of each example, from keys `[B]`."""
    return None if keys is None else split_key(keys, number).T
