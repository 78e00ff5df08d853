"""A network taken apart equals the network; gates equal the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow_unless

from lstm_jax import lstm, rnn
from lstm_jax.cells import conv_gru, conv_lstm, gru, stack, zoneout
from lstm_jax.inspect.gates import gate_names
from lstm_jax.inspect.layers import Layer, run_layer, run_network, valid_steps
from lstm_jax.models import FrameEncoder, SequenceClassifier, sequences

B, H, D, K = 3, 6, 4, 5
LENGTHS = [6, 1, 4]


def classifier(**options):
    cells = options.pop("cells", (lstm(D), gru(D)))
    order = options.pop("order", sequences.rows())
    return SequenceClassifier(order, cells, K, engine="scan", **options)


MODELS = {
    "last": classifier(),
    "mean": classifier(pooling="mean"),
    "max": classifier(pooling="max"),
    "bidirectional last": classifier(bidirectional=True),
    "bidirectional mean": classifier(bidirectional=True, pooling="mean"),
    "per step": classifier(per_step=True, bidirectional=True),
    "clip": classifier(cells=(conv_lstm(D, (3, 3)),), order=sequences.frames()),
    "encoder": classifier(encoder=FrameEncoder((4,)), order=sequences.frames()),
}


def drawn(model, images):
    """Params of the model's shapes, from NumPy: no initialiser is compiled."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: jnp.asarray(0.5 * rng.standard_normal(s.shape), s.dtype), shapes
    )


CASES = [(name, LENGTHS) for name in MODELS if name != "encoder"] + [("encoder", None)]
QUICK = "last", "bidirectional mean", "per step", "encoder"


@pytest.mark.parametrize(
    "name, lengths", [slow_unless(case[0] in QUICK, *case) for case in CASES]
)
def test_equals_the_model(name, lengths):
    model = MODELS[name]
    clip = name in ("clip", "encoder")
    rng = np.random.default_rng(1)
    images = rng.standard_normal((B, H, *((H,) if clip else ()), 5, 1))
    images = jnp.asarray(images, jnp.float32)
    params = drawn(model, images)
    full = jnp.array([H] * B if lengths is None else lengths)
    apply = jax.jit(
        lambda lengths: model.apply({"params": params}, images, lengths=lengths)
    )
    taken_apart = jax.jit(
        lambda valid: run_network(model, params, images, valid, gates=True)
    )
    outputs, steps = taken_apart(valid_steps(H, B, lengths))
    np.testing.assert_allclose(outputs[-1], apply(full), atol=5e-6)  # float32 sums
    assert len(steps) == len(params) - 1 - ("encoder" in params)  # all but the head
    if model.per_step or model.bidirectional:
        return
    for end in (1, 4):  # the running answer is that to the steps so far
        so_far = apply(jnp.minimum(full, end))
        np.testing.assert_allclose(outputs[end - 1], so_far, atol=5e-6)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_gates_of_an_lstm_are_its_equations():
    cell, layer = lstm(D), Layer("one", lstm(D))
    params = cell.init(jax.random.key(0), (3,))
    xs = jax.random.normal(jax.random.key(1), (7, B, 3))
    steps = run_layer(layer, params, xs, valid_steps(7, B), gates=True)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    c, h = np.zeros((2, B, D))
    for t in range(7):
        z = np.asarray(xs[t], np.float64) @ p["w_x"] + h @ p["w_h"] + p["b"]
        i, f, g, o = np.split(z, 4, axis=-1)
        wanted = {"i": sigmoid(i), "f": sigmoid(f), "o": sigmoid(o)}
        c = wanted["f"] * c + wanted["i"] * np.tanh(g)
        h = wanted["o"] * np.tanh(c)
        assert steps.gates.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_allclose(steps.gates[name][t], values, atol=1e-6)
        for name, values in {"c": c, "h": h}.items():
            np.testing.assert_allclose(steps.state[name][t], values, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "shape", "names"),
    [
        (lstm(D, peepholes=True, layer_norm=True, proj_size=2), (3,), "ifo"),
        (lstm(D, cifg=True), (3,), "io"),
        (gru(D), (3,), "rz"),
        (rnn(D), (3,), ""),
        (conv_lstm(D, (3, 3), group_norm=2), (4, 4, 2), "fio"),  # as it computes them
        (conv_gru(D, (3, 3)), (4, 4, 2), "rz"),
        (zoneout(lstm(D), 0.1), (3,), "ifo"),
        (stack(gru(D), gru(D)), (3,), [f"gate_{n}" for n in (1, 2, 3, 4)]),
    ],
)
def test_names_of_gates(cell, shape, names):
    assert gate_names(cell, shape) == list(names)


def test_a_forced_gate_goes_by_its_name():
    """Which block is which: a large bias in a block opens the gate of that name."""
    for cell, letters in ((lstm(D), "ifgo"), (gru(D), "rzn")):
        for block, letter in enumerate(letters):
            params = cell.init(jax.random.key(0), (3,))
            params["b"] = params["b"].at[block * D : (block + 1) * D].set(20.0)
            xs, valid = jnp.zeros((2, B, 3)), valid_steps(2, B)
            steps = run_layer(Layer("one", cell), params, xs, valid, gates=True)
            for name, values in steps.gates.items():
                assert (np.asarray(values).min() > 0.999) == (name == letter)
