"""Recurrent networks in NumPy float64 with loops: what all else must equal."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


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


def normal(z):
    return (z - np.mean(z)) / np.sqrt(np.var(z) + 1e-5)


def lstm(
    peepholes=False,
    layer_norm=False,
    proj_size=False,
    cifg=False,
    gate_fn=sigmoid,
    activation=np.tanh,
):
    """One step with options, one hidden unit after the other."""

    def one(p, state, x):
        c_tm1, h_tm1 = state
        D = c_tm1.shape[0]
        from_x, from_h = x @ p["w_x"], h_tm1 @ p["w_h"]
        if layer_norm:
            from_x = p["gain_x"] * normal(from_x)
            from_h = p["gain_h"] * normal(from_h)
        z = from_x + from_h + p.get("b", 0)
        order = "igo" if cifg else "ifgo"

        c, out = np.zeros(D), np.zeros(D)
        for d in range(D):
            own = {name: z[k * D + d] for k, name in enumerate(order)}
            if peepholes:
                for name in order.replace("g", "").replace("o", ""):
                    own[name] += p["p_" + name][d] * c_tm1[d]
            i = gate_fn(own["i"])
            f = 1 - i if cifg else gate_fn(own["f"])
            c[d] = f * c_tm1[d] + i * activation(own["g"])
            if peepholes:
                own["o"] += p["p_o"][d] * c[d]
            out[d] = gate_fn(own["o"])
        if layer_norm:
            c_seen = p["gain_c"] * normal(c) + p.get("b_c", 0)
        h = out * activation(c_seen if layer_norm else c)
        if proj_size:
            h = h @ p["w_p"]
        return (c, h), h

    return one


def gru(gate_fn=sigmoid, activation=np.tanh, reset_after=True, layer_norm=False):
    """One step of a GRU, one hidden unit after the other: state `(h,)`."""

    def norm(v, gain):
        return gain * normal(v) if layer_norm else v

    def one(p, state, x):
        (h_tm1,) = state
        D = h_tm1.shape[0]
        rz, own = slice(0, 2 * D), slice(2 * D, 3 * D)
        gains_x = p.get("gain_x", np.ones(3 * D))
        gains_h = p.get("gain_h", np.ones(3 * D))
        b, b_n = p.get("b", np.zeros(3 * D)), p.get("b_n", np.zeros(D))
        from_x, from_h = x @ p["w_x"], h_tm1 @ p["w_h"]
        x_rz, x_n = norm(from_x[rz], gains_x[rz]), norm(from_x[own], gains_x[own])
        h_rz = norm(from_h[rz], gains_h[rz])
        r, z, n, h = (np.zeros(D) for _ in range(4))
        for d in range(D):
            r[d] = gate_fn(x_rz[d] + h_rz[d] + b[d])
            z[d] = gate_fn(x_rz[D + d] + h_rz[D + d] + b[D + d])
        if reset_after:
            h_n = norm(from_h[own], gains_h[own])
            n = r * (h_n + b_n)
        else:
            n = norm((r * h_tm1) @ p["w_n"], p.get("gain_n"))
        for d in range(D):
            candidate = activation(x_n[d] + n[d] + b[2 * D + d])
            h[d] = (1 - z[d]) * candidate + z[d] * h_tm1[d]
        return (h,), h

    return one


def rnn_step(activation):
    def one(p, state, x):
        (h,) = state
        h = activation(x @ p["w_x"] + h @ p["w_h"] + p.get("b", 0))
        return (h,), h

    return one


def run(one_step, params, xs, state, valid, reverse=False, resets=None, fresh=None):
    """Unrolls example by example.

    Args:
      one_step: `(params, state, x) -> (state, y)` for one example; state is a tuple.
      xs: `[T, B, ...]`.
      state, fresh: tuples of leaves `[B, ...]`; `fresh` is where a reset begins.
      valid: `[T, B]`.
      resets: `[T, B]`, True where a new sequence begins, or None.

    Returns:
      `ys [T, B, ...]`, zeros where not valid, and the state after each step,
      leaves `[T, B, ...]`.
    """
    T, B = xs.shape[:2]
    _, y = one_step(params, tuple(leaf[0] for leaf in state), xs[0, 0])
    ys = np.zeros((T, B, *y.shape))
    states = tuple(np.zeros((T, *leaf.shape)) for leaf in state)
    for b in range(B):
        s = tuple(leaf[b] for leaf in state)
        for t in reversed(range(T)) if reverse else range(T):
            begins = t + 1 if reverse else t
            if resets is not None and begins < T and resets[begins, b]:
                s = tuple(leaf[b] for leaf in fresh)
            if valid[t, b]:
                s, ys[t, b] = one_step(params, s, xs[t, b])
            for leaf, value in zip(states, s, strict=True):
                leaf[t, b] = value
    return ys, states
