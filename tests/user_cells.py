"""Cells as a user writes them, from nothing but the contract."""

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax import Cell, rnn


def unit(features: int) -> Cell:
    """A minimal gated unit with a layer-normalised candidate, in four gate blocks."""

    def init(key, feature_shape, dtype=jnp.float32):
        w = jax.nn.initializers.glorot_uniform()
        shapes = {
            "w_x": (*feature_shape, 4 * features),
            "w_h": (features, 4 * features),
        }
        params = {name: w(key, shape, dtype) for name, shape in shapes.items()}
        return params | {"gain": jnp.ones(features, dtype)}

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return jnp.zeros((*batch_shape, features), dtype)

    def gates(params, h, u, a):
        f, r, g, o = jnp.split(u.astype(a.dtype) + a, 4, axis=-1)
        f, g = jax.nn.sigmoid(f), jnp.tanh(g) * jax.nn.sigmoid(r)
        g = params["gain"].astype(g.dtype) * jax.nn.standardize(g, epsilon=1e-5)
        h = f.astype(h.dtype) * h + (1 - f).astype(h.dtype) * g.astype(h.dtype)
        return h, jax.nn.sigmoid(o).astype(h.dtype) * h

    return Cell(
        init,
        carry,
        project=lambda params, xs, *, keys=None: xs @ params["w_x"],
        recur=lambda params, h: h.astype(params["w_h"].dtype) @ params["w_h"],
        gates=gates,
    )


def unit_step(p, state, x):
    """The same, in NumPy, for one example."""
    (h,) = state
    f, r, g, o = np.split(x @ p["w_x"] + h @ p["w_h"], 4)
    f, r, o = (1 / (1 + np.exp(-z)) for z in (f, r, o))
    g = np.tanh(g) * r
    g = p["gain"] * (g - g.mean()) / np.sqrt(g.var() + 1e-5)
    h = f * h + (1 - f) * g
    return (h,), o * h


def attention(features: int) -> Cell:
    """An Elman network that adds what it attends to among loop constants `[*B, N, D]`.

    Its query is its state.
    """
    cell = rnn(features)

    def gates(params, carry, u, a, *, consts):
        h = carry.h.astype(consts.dtype)
        weights = jax.nn.softmax((consts * h[..., None, :]).sum(-1))  # [*B, N]
        seen = (weights[..., None] * consts).sum(-2)
        return cell.gates(params, carry, u, a + seen.astype(a.dtype))

    return cell._replace(gates=gates)
