"""Convolutional cells in NumPy float64 with loops: what `conv_lstm` and co. equal."""

import math

import numpy as np
from reference import sigmoid


def convolve(x, w, stride=1, dilation=1, padding="SAME"):
    """`x [*space, C]` by `w [*k, C, D]`, one position after the other."""
    space, size = x.shape[:-1], w.shape[:-2]
    stride = np.broadcast_to(stride, len(space))
    dilation = np.broadcast_to(dilation, len(space))
    steps = list(zip(space, size, stride, dilation, strict=True))
    if padding == "SAME":  # missing rows are shared out, the odd one at the end
        out = [math.ceil(n / s) for n, _, s, _ in steps]
        missing = [
            max((m - 1) * s + (k - 1) * d + 1 - n, 0)
            for m, (n, k, s, d) in zip(out, steps, strict=True)
        ]
        before = [m // 2 for m in missing]
    else:
        out = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in steps]
        before = [0] * len(space)
    y = np.zeros((*out, w.shape[-1]))
    for at in np.ndindex(*out):
        for tap in np.ndindex(*size):
            place = tuple(
                at[i] * stride[i] + tap[i] * dilation[i] - before[i]
                for i in range(len(space))
            )
            if all(0 <= p < n for p, n in zip(place, space, strict=True)):
                y[at] += x[place] @ w[tap]
    return y


def normalize(z, groups):
    """Zero mean and unit variance of each of `groups` runs of channels."""
    out = np.zeros_like(z)
    width = z.shape[-1] // groups
    for g in range(groups):
        part = z[..., g * width : (g + 1) * width]
        normal = (part - np.mean(part)) / np.sqrt(np.var(part) + 1e-5)
        out[..., g * width : (g + 1) * width] = normal
    return out


def halves(p, x, h, stride, dilation, padding, groups):
    """Input half, with its bias if any, and recurrent half; `groups` of each gate."""
    from_h = convolve(h, p["w_h"])
    from_x = convolve(x, p["w_x"], stride, dilation, padding)
    if groups:
        features = h.shape[-1]
        blocks_h, blocks_x = (z.shape[-1] // features for z in (from_h, from_x))
        from_h = p["gain_h"] * normalize(from_h, blocks_h * groups)
        from_x = p["gain_x"] * normalize(from_x, blocks_x * groups)
    return from_x + p.get("b", 0), from_h


def conv_lstm(stride=1, dilation=1, padding="SAME", peepholes=None, group_norm=None):
    """One step for one example: state `(c, h)`, `x [*space, C]`."""

    def one(p, state, x):
        c, h = state
        from_x, from_h = halves(p, x, h, stride, dilation, padding, group_norm)
        D = c.shape[-1]
        i, f, g, o = (
            from_x[..., k * D : (k + 1) * D] + from_h[..., k * D : (k + 1) * D]
            for k in range(4)
        )
        if peepholes:
            i = i + p["p_i"] * c
            f = f + p["p_f"] * c
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        if peepholes:
            o = o + p["p_o"] * c
        h = sigmoid(o) * np.tanh(c)
        return (c, h), h

    return one


def separable(x, depthwise, pointwise):
    """Each channel by a kernel of its own, then all by `[C, D]`."""
    apart = [
        convolve(x[..., c : c + 1], depthwise[..., c, None, None])
        for c in range(x.shape[-1])
    ]
    return np.concatenate(apart, axis=-1) @ pointwise


def bottleneck_conv_lstm(p, state, x):
    """One step for one example: state `(c, h)`, `x [H, W, C]`."""
    c, h = state
    both = separable(x, p["d_x"], p["w_x"]) + separable(h, p["d_h"], p["w_h"])
    b = np.clip(both + p["b_b"], 0, 6)
    i, f, g, o = np.split(separable(b, p["d_b"], p["w_b"]) + p["b"], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.clip(g, 0, 6)
    h = sigmoid(o) * np.clip(c, 0, 6)
    return (c, h), h


def conv_gru(
    stride=1,
    dilation=1,
    padding="SAME",
    group_norm=None,
    reset_after=True,
    use_bias=True,
):
    """One step for one example: state `(h,)`, `x [*space, C]`."""

    def one(p, state, x):
        (h,) = state
        assert ("b" in p) == use_bias
        from_x, from_h = halves(p, x, h, stride, dilation, padding, group_norm)
        D = h.shape[-1]
        r = sigmoid(from_x[..., :D] + from_h[..., :D])
        z = sigmoid(from_x[..., D : 2 * D] + from_h[..., D : 2 * D])
        if reset_after:
            from_h = r * (from_h[..., 2 * D :] + p.get("b_n", 0))
        else:
            from_h = convolve(r * h, p["w_n"])
            if group_norm:
                from_h = p["gain_n"] * normalize(from_h, group_norm)
        n = np.tanh(from_x[..., 2 * D :] + from_h)
        h = (1 - z) * n + z * h
        return (h,), h

    return one


def st_lstm(layers):
    """One step for one example: state `(c of each layer, h of each layer, m, overlap)`.

    With the decoupling sum; `x [H, W, C]`.
    """

    def one(p, state, x):
        c, h = list(state[:layers]), list(state[layers : 2 * layers])
        m, overlap = state[2 * layers :]
        D = m.shape[-1]
        for k, q in enumerate(p["layers"]):
            from_x = np.split(convolve(x, q["w_x"]), 7, axis=-1)
            from_h = np.split(convolve(h[k], q["w_h"]), 4, axis=-1)
            from_m = np.split(convolve(m, q["w_m"]), 3, axis=-1)
            i, f, g = (from_x[n] + from_h[n] for n in range(3))
            i2, f2, g2 = (from_x[3 + n] + from_m[n] for n in range(3))
            new, new2 = sigmoid(i) * np.tanh(g), sigmoid(i2) * np.tanh(g2)
            c[k] = sigmoid(f + 1) * c[k] + new
            m = sigmoid(f2 + 1) * m + new2
            both = np.concatenate([c[k], m], axis=-1)
            o = sigmoid(from_x[6] + from_h[3] + convolve(both, q["w_o"]))
            h[k] = x = o * np.tanh(convolve(both, q["w_1"]))
            a, b = (convolve(z, p["adapter"]).reshape(-1, D) for z in (new, new2))
            for d in range(D):
                lengths = np.linalg.norm(a[:, d]) * np.linalg.norm(b[:, d])
                overlap = overlap + np.abs(a[:, d] @ b[:, d]) / lengths / D
        return (*c, *h, m, overlap), x

    return one
