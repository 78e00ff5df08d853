"""Initialisers: variances, orthogonality by gate, and biases that remember."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import initializers, lstm, rnn

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        (jax.nn.initializers.glorot_uniform(), 2 / (300 + 200)),
        (initializers.pytorch_defaults(64)["kernel_init"], 1 / 64 / 3),
    ],
)
def test_variance(init, variance):
    draw = init(KEY, (300, 200), jnp.float32)
    # 60,000 draws: the sample variance has a relative deviation of about 0.6 %.
    np.testing.assert_allclose(draw.var(), variance, rtol=0.03)
    assert abs(float(draw.mean())) < 0.002


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_gate_is_orthogonal_on_its_own(dtype):
    w_h = lstm(16).init(KEY, (3,), dtype)["w_h"]
    assert w_h.dtype == dtype
    for block in np.split(np.asarray(w_h, np.float32), 4, axis=1):
        atol = 1e-5 if dtype == jnp.float32 else 0.02  # bfloat16 rounds by 2⁻⁹
        np.testing.assert_allclose(block @ block.T, np.eye(16), atol=atol)


def test_glorot_counts_the_fans_of_one_gate():
    w_x = lstm(128).init(KEY, (128,))["w_x"]
    np.testing.assert_allclose(w_x.var(), 2 / (128 + 128), rtol=0.03)


def test_the_forget_bias_is_a_parameter():
    b = lstm(4, forget_bias=2.5).init(KEY, (3,))["b"]
    np.testing.assert_array_equal(b, np.repeat([0, 2.5, 0, 0], 4))


@pytest.mark.parametrize(
    ("inputs", "features", "count"),
    [(1, 128, 67_850), (1, 256, 266_762), (28, 128, 81_674), (3, 128, 68_874)],
)
def test_parameters_of_a_classifier_with_ten_classes(inputs, features, count):
    params = lstm(features).init(KEY, (inputs,))
    head = features * 10 + 10
    assert sum(p.size for p in jax.tree.leaves(params)) + head == count


def test_identity_keeps_the_state_of_a_relu_network():
    start = initializers.identity(0.5)
    params = rnn(4, activation=jax.nn.relu, recurrent_init=start).init(KEY, (3,))
    np.testing.assert_array_equal(params["w_h"], 0.5 * np.eye(4))
    blocks = lstm(4, recurrent_init=initializers.identity()).init(KEY, (3,))["w_h"]
    np.testing.assert_array_equal(blocks, np.tile(np.eye(4), 4))
    with pytest.raises(ValueError, match=r"shape=\(3, 4\), but only a square matrix"):
        start(KEY, (3, 4))
    with pytest.raises(ValueError, match=r"shape=\(3, 3, 4, 4\)"):
        start(KEY, (3, 3, 4, 4))


def test_chrono_spreads_time_constants_evenly():
    b = initializers.chrono(784)(KEY, (20_000,))
    steps = np.exp(b)
    assert 1 <= steps.min() < 2 and 782 < steps.max() <= 783 * (1 + 1e-5)
    # Deviations of a uniform's quantiles from 20,000 draws are 0.35 % at most.
    quantiles = np.quantile((steps - 1) / 782, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.015)
    with pytest.raises(ValueError, match="longest=1, .* at least 2 steps"):
        initializers.chrono(1)


def test_uniform_gate_spreads_gates_evenly():
    kept = jax.nn.sigmoid(initializers.uniform_gate()(KEY, (20_000,)))
    quantiles = np.quantile(kept, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.015)
    few = jax.nn.sigmoid(initializers.uniform_gate()(KEY, (1000, 4)))
    assert 0.25 <= few.min() < 0.26 and 0.74 < few.max() <= 0.75 + 1e-6
    for features in (1, 2):  # 1/D to 1 - 1/D is empty, or a point
        b = initializers.uniform_gate()(KEY, (features,))
        np.testing.assert_array_equal(b, np.zeros(features))


@pytest.mark.parametrize(
    "drawn", [initializers.chrono(784), initializers.uniform_gate()]
)
def test_a_drawn_forget_bias_adds_to_what_bias_init_draws(drawn):
    def ones(key, shape, dtype):
        return jnp.ones(shape, dtype)

    i, f, g, o = np.split(lstm(16, forget_bias=drawn).init(KEY, (3,))["b"], 4)
    np.testing.assert_array_equal(i, -f)
    assert len(np.unique(f)) > 12 and not g.any() and not o.any()
    b = lstm(16, forget_bias=drawn, bias_init=ones).init(KEY, (3,))["b"]
    want = np.concatenate([1 + i, 1 + f, 1 + g, 1 + o])
    np.testing.assert_allclose(b, want, atol=1e-6)  # float32


@pytest.mark.parametrize(
    "make",
    [
        initializers.orthogonal,
        initializers.identity,
        lambda: initializers.pytorch_defaults(8)["recurrent_init"],
        lambda: initializers.chrono(784),
        initializers.uniform_gate,
    ],
)
def test_every_initialiser_draws_in_half_precision(make):
    init = make()
    half, full = (init(KEY, (8, 8), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    assert half.dtype == jnp.bfloat16 and jnp.isfinite(half).all()
    deviation = float(full.std())  # JAX's own draw other numbers in bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32).std(), deviation, rtol=0.3)
    blocks = initializers.per_gate(init, 2)(KEY, (8, 16), jnp.bfloat16)
    assert blocks.dtype == jnp.bfloat16 and blocks.shape == (8, 16)
