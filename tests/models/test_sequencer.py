"""LSTMs along rows and columns of a map of convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import gru, lstm, unroll
from lstm_jax.models import BiLSTM2D, Sequencer
from lstm_jax.models.blocks import ConvBlock, to_patches


def random(*shape):
    rng = np.random.default_rng(sum(shape))
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def init(network, *inputs):
    return jax.jit(network.init)(jax.random.key(0), *inputs)


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)


def test_rows_and_columns_are_read_both_ways():
    """One line of each, by `unroll`."""
    cell, x, ways = lstm(3), random(2, 4, 4, 6), ("forward", "backward")
    network = BiLSTM2D(cell)
    variables = init(network, x)
    params, y = variables["params"], normed(x)

    @jax.jit
    def run(forward, backward, line):  # [B, T, C]
        xs = line.swapaxes(0, 1)
        there = unroll(cell, forward, xs).ys
        back = unroll(cell, backward, xs, reverse=True).ys
        return jnp.concatenate([there, back], -1).swapaxes(0, 1)

    row = run(*(params[f"x_{way}"] for way in ways), y[:, 1])
    column = run(*(params[f"y_{way}"] for way in ways), y[:, :, 2])
    mixed = jnp.concatenate([row[:, 2], column[:, 1]], -1)  # where they cross
    want = x[:, 1, 2] + mixed @ params["out"]["kernel"] + params["out"]["bias"]
    got = jax.jit(network.apply)(variables, x)
    np.testing.assert_allclose(got[:, 1, 2], want, atol=2e-5)  # float32 sums


@pytest.mark.slow
def test_a_sequencer_is_its_parts():
    cell = gru(2)
    network = Sequencer(outputs=4, widths=(8, 16), cells=(cell,), patch=2)
    x = random(2, 7, 6, 3)  # padded to 8x6, of which the map is 4x3, then 2x2
    variables = init(network, x)
    params = variables["params"]

    @jax.jit
    def parts(params, x):
        y = to_patches(jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))[None], 2)[0]
        assert y.shape == (2, 4, 3, 12)
        y = ConvBlock(8, 1).apply({"params": params["stage_0"]}, y)
        pooled = [
            [y[:, i : i + 2, j : j + 2].max((1, 2)) for j in (0, 2)] for i in (0, 2)
        ]
        y = jnp.stack([jnp.stack(row, 1) for row in pooled], 1)
        y = ConvBlock(16, 2).apply({"params": params["stage_1"]}, y)
        y = BiLSTM2D(cell).apply({"params": params["mix_0"]}, y)
        first, second = params["mlp_0_in"], params["mlp_0_out"]
        hidden = jax.nn.gelu(normed(y) @ first["kernel"] + first["bias"])
        y = y + hidden @ second["kernel"] + second["bias"]
        head = params["head"]
        return normed(y).mean((1, 2)) @ head["kernel"] + head["bias"]

    got = jax.jit(network.apply)(variables, x)
    np.testing.assert_allclose(got, parts(params, x), atol=2e-5)  # float32 sums


@pytest.mark.slow
def test_every_pixel_counts_and_examples_do_not_mix():
    network = Sequencer(outputs=2, widths=(4, 8), cells=(lstm(3),))
    x = random(2, 9, 8, 1)
    variables = init(network, x)

    def total(x):
        return network.apply(variables, x)[0].sum()

    slope = np.asarray(jax.jit(jax.grad(total))(x))
    # Max-pooling lets one of four pixels through, but the convolutions before it see
    # their neighbours.
    assert (slope[0] != 0).mean() > 0.95 and not slope[1].any()


def test_dropout_is_by_the_keys_of_examples():
    network = Sequencer(outputs=5, widths=(8,), cells=(), dropout=0.5)
    x = jnp.repeat(random(1, 6, 6, 1), 4, 0)
    variables = init(network, x)
    keys = jax.random.split(jax.random.key(1), 2)[jnp.array([0, 1, 0, 1])]
    out = jax.jit(network.apply)(variables, x, keys=keys)
    np.testing.assert_allclose(out[:2], out[2:], rtol=1e-6)
    assert np.abs(out[0] - out[1]).max() > 1e-3
    still = jax.jit(network.apply)(variables, x)
    np.testing.assert_allclose(still[0], still[1], rtol=1e-6)


def test_outputs_are_float32():
    network = Sequencer(outputs=2, widths=(4,), cells=(lstm(3),), dtype=jnp.bfloat16)
    # Flax's norms mix bfloat16 and float32.
    with jax.numpy_dtype_promotion("standard"):
        out, _ = jax.eval_shape(
            network.init_with_output, jax.random.key(0), random(1, 4, 4, 1)
        )
    assert out.dtype == jnp.float32
