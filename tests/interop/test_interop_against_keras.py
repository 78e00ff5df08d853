"""Keras's layers by their own weights: the same in float64."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import pytest
from agreement import B, D, F, T, agree, draw, identical, ours

from lstm_jax import bidirectional, conv_lstm, gru, lstm, rnn, unroll
from lstm_jax.interop import from_keras, from_keras_carry, to_keras, to_keras_carry

keras = pytest.importorskip("keras", reason="Keras is compared with, not required")

pytestmark = pytest.mark.slow  # compared in `make test-all`
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

layers = keras.layers


@keras.saving.register_keras_serializable()
def tanh(x):
    return jnp.tanh(x)  # that of Keras computes in float32


OPTIONS = dict(return_sequences=True, return_state=True, dtype="float64")
OPTIONS["activation"] = tanh
LAYERS = {  # kind, our cell, layer, kernel
    "LSTM": ("lstm", lstm(D), lambda **o: layers.LSTM(D, **o), ()),
    "GRU": ("gru", gru(D), lambda **o: layers.GRU(D, **o), ()),
    "SimpleRNN": ("rnn", rnn(D), lambda **o: layers.SimpleRNN(D, **o), ()),
    "ConvLSTM2D": (
        "lstm",
        conv_lstm(D, (3, 2)),
        lambda **o: layers.ConvLSTM2D(D, (3, 2), padding="same", **o),
        (3, 2),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name, bias, both",
    [(name, bias, False) for name in LAYERS for bias in (True, False)]
    + [(name, True, True) for name in ("LSTM", "GRU", "SimpleRNN")],
)
def test_equals_keras(name, bias, both):
    kind, cell, make, kernel = LAYERS[name]
    space = (5, 4)[: len(kernel)]
    xs = draw(8, B, T, *space, F)  # batch-major
    count = (2 if kind == "lstm" else 1) * (2 if both else 1)
    states = [draw(9 + k, B, *space, D) for k in range(count)]
    with jax.numpy_dtype_promotion("standard"):
        layer = make(use_bias=bias, **OPTIONS)
        if both:
            layer = layers.Bidirectional(layer, dtype="float64")
        layer.build(xs.shape)
    weights = [draw(k, *w.shape) for k, w in enumerate(layer.weights)]

    def run(weights, xs, states):
        params, carry = from_keras(weights), from_keras_carry(states, kind)
        xs = xs.swapaxes(0, 1)
        if both:
            ys, carry = bidirectional((cell, cell), params, xs, carry, engine="scan")
        else:
            ys, carry = unroll(cell, params, xs, carry, engine="scan")
        return ys.swapaxes(0, 1), to_keras_carry(carry)

    def their_run(weights, xs, states):
        out, _ = layer.stateless_call(
            weights,
            [v.value for v in layer.non_trainable_variables],
            xs,
            initial_state=states,
        )
        ys, *states = out
        return ys, list(states)

    agree(run, their_run, weights, xs, states)

    params = (ours(kind, kernel=kernel),) * 2 if both else ours(kind, kernel=kernel)
    if not bias:
        params |= {name: 0 * params[name] for name in ("b", "b_n") if name in params}
    back = to_keras(params, bias=bias)
    assert [a.shape for a in back] == [w.shape for w in layer.weights]
    identical(from_keras(back), params)


def test_a_gru_that_resets_before_the_product_is_refused():
    with jax.numpy_dtype_promotion("standard"):
        layer = layers.GRU(D, reset_after=False)
        layer.build((B, T, F))
    with pytest.raises(NotImplementedError, match="from_keras: .*reset_after=False"):
        from_keras(layer.get_weights())
