"""Gradients of a loss with respect to the carry at each step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, step


def carry_gradients(
    cell: Cell, params: Any, xs: jax.Array, loss: Callable[[jax.Array], jax.Array]
) -> Any:
    """Gradient of a loss with respect to the carry after each step.

        ∂ loss(y_1 … y_T) / ∂ carry_t

    Args:
      cell: the cell.
      params: its params.
      xs: inputs, `[T, *B, F]`.
      loss: of the outputs `[T, *B, D]`, a scalar.

      A pytree like the carry, with a leading time axis, `[T, *B, D]`. The direct path
      from `y_t` to the loss is excluded, only the path through later carries counts: at
      the last step the gradient is zero.
    """
    batch_shape = xs.shape[1 : xs.ndim - cell.feature_ndim]
    feature_shape = xs.shape[xs.ndim - cell.feature_ndim :]
    us = cell.project(params, xs)
    carry = cell.carry(params, batch_shape, feature_shape, jnp.float32)
    # Zeros are added to the carry after each step; their gradient is the result.
    zeros = jax.tree.map(lambda c: jnp.zeros((len(xs), *c.shape), c.dtype), carry)

    def outputs(added):
        def body(carry, inputs):
            u_t, added_t = inputs
            carry, y_t = step(cell, params, carry, u_t)
            return jax.tree.map(jnp.add, carry, added_t), y_t

        return lax.scan(body, carry, (us, added))[1]

    return jax.grad(lambda added: loss(outputs(added)))(zeros)


def gradient_norms(gradients: Any) -> jax.Array:
    """Norm of each step's gradient over the whole carry, averaged over the batch.

    Args:
      gradients: from `carry_gradients`, leaves `[T, *B, D]`.

    Returns:
      `[T]`.
    """
    squares = [(leaf**2).sum(-1) for leaf in jax.tree.leaves(gradients)]  # [T, *B]
    norms = jnp.sqrt(sum(squares))
    return norms.mean(tuple(range(1, norms.ndim)))
