"""Models are random where their cells are, and an example by its own key."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from selection import slow, slow_but

from lstm_jax import conv_gru, dropout, lstm, readout, recurrent_dropout, rnn, zoneout
from lstm_jax.models import (
    DenseDetector,
    EncoderForecaster,
    FrameForecaster,
    NNXRecurrent,
    Recurrent,
    RecurrentDetector,
    Segmenter,
    SequenceClassifier,
    sequences,
)

B, T = 3, 4
KEYS = jax.random.split(jax.random.key(5), B)
ROWS = jax.random.normal(jax.random.key(1), (B, T, 4, 1))
CLIPS = jax.random.uniform(jax.random.key(2), (B, T, 4, 4, 1))
IMAGES = CLIPS[:, 0]
NOISY = zoneout(dropout(rnn(4), 0.5), 0.5)
NOISY_MAPS = zoneout(dropout(conv_gru(2, (1, 1)), 0.5), 0.5)
MODELS = {
    "classifier": (SequenceClassifier(sequences.rows(), (NOISY,), 2), ROWS),
    "both ways": (
        SequenceClassifier(
            sequences.rows(), (NOISY,), 2, bidirectional=True, per_step=True
        ),
        ROWS,
    ),
    "encoder_forecaster": (EncoderForecaster((NOISY_MAPS,), horizon=2), CLIPS),
    "forecaster": (FrameForecaster(readout(NOISY_MAPS, 1), inputs=2), CLIPS),
    "renet": (Segmenter(2, widths=(2,), renet=(NOISY,)), CLIPS[:, :2]),
    "memory": (Segmenter(2, widths=(2,), recurrent_cell=NOISY_MAPS), CLIPS),
    "skips": (Segmenter(2, widths=(2, 2), skips=(NOISY_MAPS,)), IMAGES),
    "detector": (DenseDetector(2, widths=(2,), recurrent_cell=NOISY_MAPS), CLIPS),
    "emitter": (
        RecurrentDetector(
            recurrent_dropout(dropout(rnn(4), 0.5), 0.5), 2, 2, widths=(4,)
        ),
        IMAGES,
    ),
}


def drawn(network, inputs):
    """Random params, without a program that draws them."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype), shapes
    )


def problem(name):
    network, inputs = MODELS[name]
    return network, drawn(network, inputs), inputs


@pytest.mark.parametrize("name", slow_but(MODELS, "both ways", "forecaster", "emitter"))
def test_random_in_training_by_the_keys_of_examples(name):
    network, params, inputs = problem(name)
    run = jax.jit(lambda inputs, keys: network.apply(params, inputs, keys=keys))
    order = np.array([2, 0, 1])
    out = run(inputs, KEYS)
    # Float32, a batch in another order.
    np.testing.assert_allclose(run(inputs[order], KEYS[order]), out[order], atol=1e-4)
    other = run(inputs, KEYS[order])
    assert (np.abs(out - other).reshape(B, -1).max(1) > 1e-3).all()


def test_random_by_a_stream_of_linen_and_deterministic_without():
    network, params, inputs = problem("classifier")
    run = partial(network.apply, params, inputs)
    quiet, drawn = run(), run(rngs={"dropout": jax.random.key(1)})
    assert np.abs(quiet - drawn).max() > 1e-3
    plain = network.clone(cells=(zoneout(rnn(4), 0.5),))  # dropout does nothing
    np.testing.assert_allclose(quiet, plain.apply(params, inputs), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["memory", "emitter", slow("forecaster"), slow("renet")]
)
def test_every_model_reads_the_stream(name):
    network, params, inputs = problem(name)
    key = jax.random.key(1)
    by_stream = jax.make_jaxpr(
        lambda key: network.apply(params, inputs, rngs={"dropout": key})
    )(key)
    assert "random_bits" in str(by_stream)
    quiet = jax.make_jaxpr(lambda: network.apply(params, inputs))()
    assert "random_bits" not in str(quiet)


def test_keys_cost_nothing_where_no_cell_draws():
    network = SequenceClassifier(sequences.rows(), (lstm(3), rnn(3)), 2)
    params = jax.eval_shape(network.init, jax.random.key(0), ROWS)

    def program(keys):
        run = jax.jit(lambda params: network.apply(params, ROWS, keys=keys))
        return run.lower(params).as_text()

    assert program(KEYS) == program(None)


def test_scheduled_sampling_draws_for_each_example():
    network = FrameForecaster(readout(conv_gru(2, (1, 1)), 1), inputs=2)
    params = drawn(network, CLIPS)
    run = jax.jit(
        lambda clips, keys: network.apply(params, clips, sampling=(0.5, 0.5), keys=keys)
    )
    out, order = run(CLIPS, KEYS), np.array([2, 0, 1])
    np.testing.assert_allclose(run(CLIPS[order], KEYS[order]), out[order], atol=1e-6)
    same = jnp.broadcast_to(CLIPS[:1], CLIPS.shape)
    assert np.abs(np.diff(run(same, KEYS), axis=0)).max() > 1e-4


def test_linen_layer_draws_from_its_stream_or_its_key():
    layer, xs, key = Recurrent(NOISY), ROWS[..., 0], jax.random.key(3)
    variables = layer.init(jax.random.key(1), xs)
    quiet = layer.apply(variables, xs).ys
    one, same, other = (
        layer.apply(variables, xs, rngs={"dropout": k}).ys
        for k in (key, key, jax.random.key(4))
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - quiet).max() > 1e-3 and np.abs(one - other).max() > 1e-3


def test_nnx_layer_draws_from_its_stream_until_it_is_evaluated():
    xs = ROWS[..., 0]
    layer = NNXRecurrent(NOISY, (4,), rngs=nnx.Rngs(0))
    run = nnx.jit(lambda layer, xs: layer(xs).ys)
    one, other = run(layer, xs), run(layer, xs)
    assert np.abs(one - other).max() > 1e-3
    layer.eval()
    np.testing.assert_array_equal(layer(xs).ys, layer(xs).ys)
    plain = NNXRecurrent(rnn(4), (4,), rngs=nnx.Rngs(0))
    assert not nnx.state(plain, nnx.RngState)  # nothing to draw, nothing to keep
