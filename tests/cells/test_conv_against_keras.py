"""`conv_lstm` equals Keras: outputs and final states, strides and padding included."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import conv_lstm, unroll
from lstm_jax.interop import from_keras

keras = pytest.importorskip("keras", reason="Keras is compared with, not required")

pytestmark = pytest.mark.slow  # compared in `make test-all`
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

T, B, C, D = 4, 2, 3, 5
SPACE = (7, 6, 5)
KERNEL = (3, 2, 3)
LAYERS = {1: keras.layers.ConvLSTM1D, 2: keras.layers.ConvLSTM2D}
LAYERS[3] = keras.layers.ConvLSTM3D
WINDOWS = {
    "same": ({}, {"padding": "same"}),
    "stride": ({"stride": 2}, {"padding": "same", "strides": 2}),
    "valid": ({"padding": "VALID"}, {}),
    "stride-valid": ({"stride": 2, "padding": "VALID"}, {"strides": 2}),
    "dilation": ({"dilation": 2}, {"padding": "same", "dilation_rate": 2}),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rank", LAYERS)
def test_outputs_and_states_equal_those_of_keras(rank, window):
    ours, theirs = WINDOWS[window]
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((T, B, *SPACE[:rank], C))
    options = dict(return_sequences=True, return_state=True, dtype="float64")
    options["activation"] = jnp.tanh  # that of Keras computes in float32
    # Keras is not written for strict promotion of dtypes.
    with jax.numpy_dtype_promotion("standard"):
        layer = LAYERS[rank](D, KERNEL[:rank], **options, **theirs)
        layer.build((B, T, *SPACE[:rank], C))
        weights = [0.5 * rng.standard_normal(w.shape) for w in layer.weights]
        layer.set_weights(weights)
        want_ys, want_h, want_c = map(np.asarray, layer(xs.swapaxes(0, 1)))

    cell = conv_lstm(D, KERNEL[:rank], **ours)
    params = jax.tree.map(jnp.asarray, from_keras(weights))
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), xs.shape[2:]))
    assert {k: p.shape for k, p in params.items()} == {
        k: p.shape for k, p in shapes.items()
    }
    ys, (c, h) = unroll(cell, params, jnp.asarray(xs))
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(ys.swapaxes(0, 1), want_ys, atol=1e-10)
    np.testing.assert_allclose(h, want_h, atol=1e-10)
    np.testing.assert_allclose(c, want_c, atol=1e-10)
    assert np.abs(want_ys).max() > 0.1
