"""What cells over vectors share: the two matrix products of a step."""

from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cell import at_least_float32


def check_width(caller: str, features: int) -> None:
    """Refuses a hidden width that is no positive integer."""
    if not isinstance(features, int) or features < 1:
        raise ValueError(
            f"{caller}: features={features!r}, but the hidden width is an integer >= 1"
        )


def vector_width(caller: str, feature_shape: tuple[int, ...]) -> int:
    """F of a feature shape `(F,)`, or an error that says what is wanted."""
    if len(feature_shape) != 1:
        raise ValueError(
            f"{caller}: feature_shape={tuple(feature_shape)}, but this cell reads "
            "vectors: pass (F,), flattening an image first"
        )
    return feature_shape[0]


def input_product(caller: str, params: dict[str, Any], xs: jax.Array) -> jax.Array:
    """`xs @ w_x + b`, for all steps at once: `[..., F] -> [..., G]`."""
    w_x = params["w_x"]
    if xs.shape[-1] != w_x.shape[0]:
        raise ValueError(
            f"{caller}: xs has F={xs.shape[-1]} but w_x wants {w_x.shape[0]}; "
            f"make params with cell.init(key, ({xs.shape[-1]},))"
        )
    return xs.astype(w_x.dtype) @ w_x + params["b"]


def recurrent_product(params: dict[str, Any], h: jax.Array) -> jax.Array:
    """`h @ w_h`, accumulated in float32 at least: `[*B, D] -> [*B, G]`."""
    w_h = params["w_h"]
    accumulator = at_least_float32(w_h.dtype)
    return jnp.matmul(h.astype(w_h.dtype), w_h, preferred_element_type=accumulator)
