"""Muon: momentum whose matrices are made orthogonal."""

import jax
import jax.numpy as jnp
import optax
import optax.contrib

RMS = 0.2  # of an update, about what Adam's is
# One for each iteration: optax makes a loop of them; of one for all it unrolls them,
# which takes five times as long to compile.
_COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * 5


def muon(beta: float = 0.95) -> optax.GradientTransformation:
    """Muon for leaves of rank 2 and more, Adam for the others.

        u = 0.2 O / rms(O),   O = U V^T, nearly, of the momentum M = U S V^T

    where a kernel `[..., C, K]` is one matrix `[... C, K]`: its last axis counts what
    comes out. So updates are as large as Adam's, and learning rates carry over. Both
    look ahead, as Nesterov does.

    Args:
      beta: decay of the momentum of matrices, in [0, 1).

    Returns:
      An optax transformation, in the place of `optax.scale_by_adam`.

    Reference: Jordan et al. 2024, Muon; Liu et al. 2025, Muon is Scalable for LLM
    Training, section 2.2, for the size of updates. Departs: the root mean square of an
    update is 0.2 exactly, and an output layer is a matrix like any other.
    """
    tx = optax.contrib.muon(learning_rate=1.0, ns_coeffs=_COEFFICIENTS, beta=beta)

    def init(params):
        return tx.init(jax.tree.map(_flat, params))

    def update(updates, state, params=None):
        del params  # of use to decay them, which comes later in the chain
        flat = jax.tree.map(_flat, updates)
        downhill, state = tx.update(flat, state, flat)
        return jax.tree.map(_uphill, updates, downhill), state

    return optax.GradientTransformation(init, update)


def _flat(leaf):
    return leaf.reshape(-1, leaf.shape[-1]) if jnp.ndim(leaf) > 2 else leaf


def _uphill(leaf, update):
    if jnp.ndim(leaf) < 2:
        return -update
    mean = jnp.maximum(jnp.mean(jnp.square(update)), jnp.finfo(update.dtype).tiny)
    return -RMS * (update * jax.lax.rsqrt(mean)).reshape(leaf.shape)
