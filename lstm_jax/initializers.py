"""Initializers that `jax.nn.initializers` lacks, applied per gate.

An initializer is `(key, shape, dtype) -> array`, as in `jax.nn.initializers`, all of
which also work with any cell. Each gate's block is drawn separately.

`chrono` and `uniform_gate` are for the `forget_bias` of a cell.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lstm_jax.cell import at_least_float32

Initializer = Callable[..., jax.Array]


def orthogonal(scale: float = 1.0) -> Initializer:
    """Orthogonal columns (or rows), drawn in at least float32, then cast.

    Reference: Saxe et al. 2014.
    """
    draw = jax.nn.initializers.orthogonal(scale)

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        # The QR decomposition has no half-precision form on CPU.
        return draw(key, shape, at_least_float32(dtype)).astype(dtype)

    return init


def identity(scale: float = 1.0) -> Initializer:
    """`scale` times the identity, so that a state is initially preserved.

    With ReLU it makes an IRNN:

    >>> import jax
    >>> from lstm_jax import initializers, rnn
    >>> start = initializers.identity()
    >>> cell = rnn(128, activation=jax.nn.relu, recurrent_init=start)

    Raises:
      ValueError: when called, if the matrix is not square.

    Reference: Le, Jaitly & Hinton 2015.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(
                f"identity: shape={tuple(shape)}, but only a square matrix, such as "
                "one gate's [D, D], has an identity; use it as recurrent_init"
            )
        return scale * jnp.eye(shape[0], dtype=dtype)

    return init


def chrono(longest: int) -> Initializer:
    """Forget biases `log U(1, T - 1)`: time constants spread up to `longest`.

    The cell sets the input bias to the negative:

    >>> from lstm_jax import initializers, lstm
    >>> cell = lstm(128, forget_bias=initializers.chrono(784))

    Args:
      longest: T, the longest dependency in steps, >= 2; often the length of a
        sequence.

    Raises:
      ValueError: if `longest` < 2.

    Reference: Tallec & Ollivier 2018, "Can recurrent neural networks warp time?"
    """
    if longest < 2:
        raise ValueError(
            f"chrono: longest={longest}, but a dependency lasts at least 2 steps"
        )

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        wide = at_least_float32(dtype)
        steps = jax.random.uniform(key, shape, wide, 1, longest - 1)
        return jnp.log(steps).astype(dtype)

    return init


def uniform_gate() -> Initializer:
    """Forget biases that make the gate uniform: σ(b) ~ U(1/D, 1 - 1/D).

    The cell sets the input bias to the negative; used like `chrono`, but independent of
    the sequence length.

    Reference: Gu et al. 2020, "Improving the Gating Mechanism of Recurrent Neural
    Networks".
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        edge = min(1 / shape[-1], 0.5)  # for D = 1 the interval would be empty
        wide = at_least_float32(dtype)
        kept = jax.random.uniform(key, shape, wide, edge, 1 - edge)
        return jax.scipy.special.logit(kept).astype(dtype)

    return init


def pytorch_defaults(features: int) -> dict[str, Initializer]:
    """PyTorch's default initializers, uniform in `±1 / sqrt(D)` for every tensor.

    PyTorch has no extra forget bias, and two biases where we have one.

    >>> from lstm_jax import initializers, lstm
    >>> cell = lstm(128, forget_bias=0.0, **initializers.pytorch_defaults(128))

    Args:
      features: D, the hidden width (not the fan-in of a tensor).

    Returns:
      Arguments of a cell: `kernel_init`, `recurrent_init` and `bias_init`.
    """
    bound = features**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {name: init for name in ("kernel_init", "recurrent_init", "bias_init")}


def per_gate(init: Initializer, gates: int) -> Initializer:
    """Draws each of `gates` equal blocks of the last axis separately.

    Drawn as one matrix, the fan-out of a block would be that of all gates together, and
    orthogonal blocks would not be orthogonal.
    """

    def blocks(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        *lead, width = shape
        keys = jax.random.split(key, gates)
        parts = [init(k, (*lead, width // gates), dtype) for k in keys]
        return jnp.concatenate(parts, axis=-1)

    return blocks
