"""The Muon optimizer: momentum with orthogonalized matrices."""

import jax
import jax.numpy as jnp
import optax
import optax.contrib

RMS = 0.2  # root mean square of an update, similar to Adam's
# One coefficient per iteration: optax then uses a loop; with the same for all it
# unrolls, which takes five times as long to compile.
_COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * 5


def muon(beta: float = 0.95) -> optax.GradientTransformation:
    """Muon for leaves of rank 2 and more, Adam for the others.

        u = 0.2 O / rms(O),   O ≈ U V^T  of the momentum M = U S V^T

    A kernel `[..., C, K]` is treated as one matrix `[... C, K]`; its last axis is the
    output. Updates are about as large as Adam's, so learning rates carry over. Both
    use Nesterov momentum.

    Args:
      beta: decay of the momentum of matrices, in [0, 1).

    Returns:
      An optax transformation, a replacement for `optax.scale_by_adam`.

    Reference: Jordan et al. 2024, Muon; Liu et al. 2025, Muon is Scalable for LLM
    Training, section 2.2, for the size of updates. Departs: the root mean square of an
    update is exactly 0.2, and an output layer is treated like any other matrix.
    """
    tx = optax.contrib.muon(learning_rate=1.0, ns_coeffs=_COEFFICIENTS, beta=beta)

    def init(params):
        return tx.init(jax.tree.map(_flat, params))

    def update(updates, state, params=None):
        del params  # only used by weight decay, later in the chain
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
