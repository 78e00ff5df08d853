"""Shared parts of cells over vectors: matrix products and a norm."""

from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cell import at_least_float32
from lstm_jax.validation import is_count


def check_width(caller: str, width: int, name: str = "features") -> None:
    """Raises ValueError unless a hidden width is a positive integer."""
    if not is_count(width):
        raise ValueError(
            f"{caller}: {name}={width!r}, but a hidden width is an integer >= 1"
        )


def vector_width(caller: str, feature_shape: tuple[int, ...]) -> int:
    """F of a feature shape `(F,)`; raises ValueError for other shapes."""
    if len(feature_shape) != 1:
        raise ValueError(
            f"{caller}: feature_shape={tuple(feature_shape)}, but this cell reads "
            "vectors: pass (F,), flattening an image first"
        )
    if not feature_shape[0]:
        raise ValueError(
            f"{caller}: feature_shape=(0,), but this cell reads one feature or more; "
            "make params for (1,), and run without inputs by xs=None, length=T"
        )
    return feature_shape[0]


def input_product(
    caller: str,
    params: dict[str, Any],
    xs: jax.Array | None,
    *,
    bias: bool = True,
) -> jax.Array:
    """`xs @ w_x + b` for all steps at once: `[..., F] -> [..., G]`; `b` if xs is None.

    Nothing is added without `bias`, or if params have no `b`.
    """
    w_x, b = params["w_x"], params.get("b") if bias else None
    if xs is None:
        return jnp.zeros(w_x.shape[-1], w_x.dtype) if b is None else b
    if xs.shape[-1] != w_x.shape[0]:
        raise ValueError(
            f"{caller}: xs has F={xs.shape[-1]} but w_x wants {w_x.shape[0]}; "
            f"make params with cell.init(key, ({xs.shape[-1]},))"
        )
    xs = xs.astype(w_x.dtype)
    if b is None:
        return xs @ w_x
    if xs.shape[-1] == 1:
        # On CPU, XLA makes a product over one feature elementwise and fuses it with the
        # gates: a forward pass over 784 pixels then takes 1.5 times as long. So b is
        # the weight of a second feature, 1.
        xs = jnp.concatenate([xs, jnp.ones_like(xs)], axis=-1)
        return xs @ jnp.stack([w_x[0], b])
    return xs @ w_x + b


def wide_product(h: jax.Array, w: jax.Array) -> jax.Array:
    """`h @ w` in the dtype of `w`, accumulated and returned in float32 at least."""
    accumulator = at_least_float32(w.dtype)
    return jnp.matmul(h.astype(w.dtype), w, preferred_element_type=accumulator)


def normalize(z: jax.Array, gain: jax.Array) -> jax.Array:
    """Layer norm without a bias: `gain (z - mean) / sqrt(variance + 1e-5)`.

    Mean and variance are of the last axis, in float32 at least; the result has the
    dtype of `z`.

    Reference: Ba, Kiros & Hinton 2016.
    """
    normal = standardize(z)
    return (normal * gain.astype(normal.dtype)).astype(z.dtype)


def standardize(z: jax.Array) -> jax.Array:
    """`(z - mean) / sqrt(variance + 1e-5)` over the last axis, in float32 at least."""
    wide = z.astype(at_least_float32(z.dtype))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-5)
