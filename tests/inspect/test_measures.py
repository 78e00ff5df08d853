"""Measures against perturbation, explicit Jacobians and counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import lstm, rnn, unroll
from lstm_jax.inspect import carry_gradients, measure, measure_cell
from lstm_jax.inspect.measures import BINS
from lstm_jax.models import EncoderForecaster, SequenceClassifier, sequences

T, B, F, D, K = 6, 4, 3, 5, 3


@pytest.fixture(scope="module")
def one():
    """An LSTM, its inputs, a loss, and what is measured."""
    cell = lstm(D)
    params = cell.init(jax.random.key(0), (F,))
    xs = jax.random.normal(jax.random.key(1), (T, B, F))
    weights = jax.random.normal(jax.random.key(2), (B, D))

    def loss(ys):
        return (ys[-1] * weights).sum()

    (layer,) = measure_cell(cell, params, xs, loss).layers
    return cell, params, xs, loss, layer


def test_gradients_are_those_of_the_carry(one):
    cell, params, xs, loss, layer = one
    want = carry_gradients(cell, params, xs, loss)
    for name in ("c", "h"):
        norms = np.linalg.norm(getattr(want, name), axis=-1).mean(-1)
        np.testing.assert_allclose(layer.gradients[name][:-1], norms[:-1], rtol=1e-4)
        assert np.isnan(layer.gradients[name][-1])


def test_memory_estimates_the_norm_of_the_jacobian(one):
    cell, params, xs, _, layer = one

    def last(x, b):
        return unroll(cell, params, xs[:, b].at[:].set(x)[:, None]).ys[-1, 0]

    jacobian = jax.jit(jax.jacobian(last), static_argnums=1)
    norms = np.stack(
        [np.linalg.norm(jacobian(xs[:, b], b), axis=(0, 2)) for b in range(B)], axis=1
    )
    # 8 projections of 5 outputs, 4 examples: a standard error of about 8 %
    np.testing.assert_allclose(layer.memory, norms.mean(-1), rtol=0.3)
    np.testing.assert_allclose(layer.memory.sum(), norms.mean(-1).sum(), rtol=0.15)


def test_memory_of_a_known_decay():
    """h_t = h_tm1 / 2 + x_t: the last 4 steps hold 15/16 of the sum, 3 hold 7/8."""
    cell = rnn(D, activation=lambda z: z)
    params = {"w_x": jnp.eye(D), "w_h": 0.5 * jnp.eye(D), "b": jnp.zeros(D)}
    xs = jax.random.normal(jax.random.key(0), (12, B, D))
    (layer,) = measure_cell(cell, params, xs, lambda ys: ys[-1].sum()).layers
    np.testing.assert_allclose(layer.memory[1:] / layer.memory[:-1], 2, rtol=1e-5)
    assert layer.memory_steps == 4
    assert layer.gates == {} and not layer.still.any()


def test_gate_statistics_count(one):
    cell, params, xs, _, layer = one
    carry = cell.carry(params, (B,), (F,))
    values = []
    for x in xs:
        z = x @ params["w_x"] + carry.h @ params["w_h"] + params["b"]
        values.append(1 / (1 + np.exp(-np.asarray(z)[:, D : 2 * D])))
        carry = unroll(cell, params, x[None], carry).carry
    values = np.stack(values)  # f, [T, B, D]
    gate = layer.gates["f"]
    counts, _ = np.histogram(values, BINS, (0, 1))
    np.testing.assert_allclose(gate.histogram, counts / values.size, atol=1e-6)
    np.testing.assert_allclose(gate.mean, values.mean((1, 2)), atol=1e-6)
    stuck = (np.abs(2 * values - 1) > 0.9).mean((1, 2))
    np.testing.assert_allclose(gate.saturated, stuck, atol=1e-6)


@pytest.fixture(scope="module")
def both_ways():
    """A bidirectional network, a batch, and what is measured."""
    model = SequenceClassifier(sequences.rows(), (lstm(D),), K, bidirectional=True)
    images = jax.random.normal(jax.random.key(0), (B, T, F, 1))
    params = jax.jit(model.init)(jax.random.key(1), images)["params"]
    targets = np.array([0, 1, 2, 0])
    return model, images, params, targets, measure(model, params, images, targets)


def test_padding_changes_nothing(both_ways):
    model, images, params, targets, whole = both_ways
    padded = jnp.concatenate([images, jnp.ones((B, 3, F, 1))], axis=1)
    found = measure(model, params, padded, targets, lengths=[T] * B)
    for a, b in zip(whole.layers, found.layers, strict=True):
        assert a.name == b.name and a.steps == b.steps == T
        assert a.memory_steps == b.memory_steps
        # in the order of reading, a backward direction meets the padding first
        real = slice(3, None) if a.name.endswith("backward") else slice(0, T)
        np.testing.assert_allclose(b.memory[real], a.memory, rtol=1e-4)  # float32
        assert np.isnan(np.delete(b.memory, np.arange(T + 3)[real])).all()
        for name, norms in a.gradients.items():
            np.testing.assert_allclose(b.gradients[name][real], norms, rtol=1e-4)
        for name, gate in a.gates.items():
            got = b.gates[name].histogram
            np.testing.assert_allclose(got, gate.histogram, atol=1e-6)


def test_backward_reads_from_the_end(both_ways):
    """The backward direction on a reversed image is the forward one on the image."""
    model, images, params, targets, whole = both_ways
    kernel = params["head"]["kernel"]
    swapped = {
        "layer_0": params["layer_0_backward"],
        "layer_0_backward": params["layer_0"],
        "head": params["head"] | {"kernel": jnp.roll(kernel, D, axis=0)},
    }
    a, b = whole.layers[0], measure(model, swapped, images[:, ::-1], targets).layers[1]
    np.testing.assert_allclose(a.gradients["c"], b.gradients["c"], rtol=1e-4)
    np.testing.assert_allclose(a.gates["o"].mean, b.gates["o"].mean, rtol=1e-5)


def test_mistakes(both_ways):
    model, images, params, _, _ = both_ways
    with pytest.raises(ValueError, match="neither targets nor a loss"):
        measure(model, params, images)
    with pytest.raises(ValueError, match="EncoderForecaster is not supported"):
        measure(EncoderForecaster((lstm(D),), 2), params, images, [0] * B)
