"""Initialisers: variances, orthogonality by gate, and the forget bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import initializers, lstm

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        (initializers.glorot(), 2 / (300 + 200)),
        (initializers.xavier(), 2 / (300 + 200)),
        (initializers.he(), 2 / 300),
        (initializers.lecun(), 1 / 300),
        (initializers.torch(64), 1 / 64 / 3),
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
