"""Initialisers of weights, one gate at a time.

An initialiser is `(key, shape, dtype) -> array`, as in `jax.nn.initializers`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lstm_jax.cell import at_least_float32

Initializer = Callable[..., jax.Array]


def glorot() -> Initializer:
    """Uniform with variance `2 / (fan_in + fan_out)`; also called Xavier.

    Reference: Glorot & Bengio 2010, eq. 16.
    """
    return jax.nn.initializers.glorot_uniform()


xavier = glorot


def he() -> Initializer:
    """Normal with variance `2 / fan_in`, made for ReLU.

    Reference: He et al. 2015, eq. 10.
    """
    return jax.nn.initializers.he_normal()


def lecun() -> Initializer:
    """Normal with variance `1 / fan_in`.

    Reference: LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """
    return jax.nn.initializers.lecun_normal()


def orthogonal(scale: float = 1.0) -> Initializer:
    """Orthogonal columns (or rows), drawn in float32 at least, then cast.

    Reference: Saxe et al. 2014.
    """
    draw = jax.nn.initializers.orthogonal(scale)

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        # The QR decomposition has no half-precision form on CPU.
        return draw(key, shape, at_least_float32(dtype)).astype(dtype)

    return init


def torch(features: int) -> Initializer:
    """Uniform in `±1 / sqrt(D)`, PyTorch's default for every recurrent tensor.

    Args:
      features: D, the hidden width, not the fan-in of the tensor.
    """
    bound = features**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def zeros() -> Initializer:
    """All zeros."""
    return jax.nn.initializers.zeros


def per_gate(init: Initializer, gates: int) -> Initializer:
    """Draws each of `gates` equal blocks of the last axis on its own.

    Drawn as one matrix, a block would see the fan-out of all gates together, and
    orthogonal blocks would not be orthogonal.
    """

    def blocks(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        *lead, width = shape
        keys = jax.random.split(key, gates)
        parts = [init(k, (*lead, width // gates), dtype) for k in keys]
        return jnp.concatenate(parts, axis=-1)

    return blocks
