"""Recurrent networks in NumPy float64 with loops: what all else must equal."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm_step(p, state, x):
    """One step for one example: state `(c, h)`, `x [F]`."""
    c, h = state
    D = h.shape[0]
    z = x @ p["w_x"] + h @ p["w_h"] + p["b"]
    i, f = sigmoid(z[:D]), sigmoid(z[D : 2 * D])
    g, o = np.tanh(z[2 * D : 3 * D]), sigmoid(z[3 * D :])
    c = f * c + i * g
    h = o * np.tanh(c)
    return (c, h), h


def rnn_step(activation):
    def one(p, state, x):
        (h,) = state
        h = activation(x @ p["w_x"] + h @ p["w_h"] + p["b"])
        return (h,), h

    return one


def run(one_step, params, xs, state, valid, reverse=False):
    """Unrolls example by example: `xs [T, B, F]`, state leaves and `valid [T, B]`."""
    T, B, _ = xs.shape
    D = state[0].shape[-1]
    ys = np.zeros((T, B, D))
    final = [s.copy() for s in state]
    for b in range(B):
        s = tuple(leaf[b] for leaf in state)
        for t in reversed(range(T)) if reverse else range(T):
            if valid[t, b]:
                s, ys[t, b] = one_step(params, s, xs[t, b])
        for leaf, value in zip(final, s, strict=True):
            leaf[b] = value
    return ys, final
