"""The Flax models equal the functions under them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from selection import slow

from lstm_jax import bidirectional, conv_lstm, lstm, rnn, unroll
from lstm_jax.models import (
    FrameEncoder,
    NNXRecurrent,
    Recurrent,
    SequenceClassifier,
    sequences,
)

B, T, F, D, K = 3, 6, 4, 5, 10
XS = jax.random.normal(jax.random.key(0), (B, T, F))
IMAGES = XS[..., None]  # [B, H=T, W=F, C=1]
LENGTHS = jnp.asarray([6, 0, 2])
MASK = jnp.asarray(np.random.default_rng(0).random((B, T)) < 0.5).at[2].set(False)


def test_linen_layer_equals_unroll():
    layer = Recurrent(lstm(D), reverse=True)
    variables = layer.init(jax.random.key(1), XS)
    ys, carry = layer.apply(variables, XS, lengths=LENGTHS)
    want = unroll(
        lstm(D),
        variables["params"]["cell"],
        XS.swapaxes(0, 1),
        lengths=LENGTHS,
        reverse=True,
    )
    np.testing.assert_array_equal(ys, want.ys.swapaxes(0, 1))
    np.testing.assert_array_equal(carry.c, want.carry.c)


def test_an_option_of_the_call_wins_over_that_of_the_layer():
    layer = Recurrent(lstm(D))
    variables = layer.init(jax.random.key(1), XS)
    got = layer.apply(variables, XS, reverse=True).ys
    want = Recurrent(lstm(D), reverse=True).apply(variables, XS).ys
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="'scna' is unknown"):
        layer.apply(variables, XS, engine="scna")


def test_a_layer_takes_every_option_batch_major():
    layer = Recurrent(lstm(4))
    xs = jax.random.normal(jax.random.key(0), (3, 5, 2))  # [B, T, F]
    params = layer.init(jax.random.key(1), xs)
    flags = jax.random.bernoulli(jax.random.key(2), 0.4, (2, 3, 5))
    options = {"mask": flags[0], "resets": flags[1]}
    got = layer.apply(params, xs, remat="step", return_carries=True, **options)
    options = {name: flag.T for name, flag in options.items()}
    want = unroll(
        layer.cell,
        params["params"]["cell"],
        xs.swapaxes(0, 1),
        engine="scan",
        **options,
    )
    np.testing.assert_allclose(got.ys.swapaxes(0, 1), want.ys, atol=1e-6)  # float32
    np.testing.assert_array_equal(got.carries.c[:, -1], got.carry.c)


def test_nnx_layer_equals_unroll_and_trains():
    layer = NNXRecurrent(lstm(D), (F,), rngs=nnx.Rngs(0))
    ys, _ = nnx.jit(lambda m, x: m(x, mask=MASK))(layer, XS)
    want = unroll(lstm(D), layer.params, XS.swapaxes(0, 1), mask=MASK.T)
    np.testing.assert_allclose(ys, want.ys.swapaxes(0, 1), atol=1e-6)
    grads = nnx.grad(lambda m: (m(XS).ys ** 2).sum())(layer)
    wanted = jax.grad(lambda p: (unroll(lstm(D), p, XS.swapaxes(0, 1)).ys ** 2).sum())(
        layer.params
    )
    leaves = jax.tree.leaves(grads)
    assert sorted(x.shape for x in leaves) == [(F, 20), (D, 20), (20,)]
    for leaf in leaves:
        match = next(w for w in wanted.values() if w.shape == leaf.shape)
        np.testing.assert_allclose(leaf, match, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "both_ways, pooling",
    [
        (True, "last"),
        (True, "max"),
        (False, "mean"),
        slow(True, "mean"),
        slow(False, "last"),
        slow(False, "max"),
    ],
)
def test_classifier_equals_its_parts_example_by_example(both_ways, pooling):
    model = SequenceClassifier(
        sequences.rows(), (lstm(D), rnn(D)), K, bidirectional=both_ways, pooling=pooling
    )
    params = model.init(jax.random.key(1), IMAGES)["params"]
    lengths = jnp.asarray([6, 1, 2])
    outputs = model.apply({"params": params}, IMAGES, lengths=lengths)
    for b, length in enumerate(lengths.tolist()):
        ys = XS[b, :length]
        for layer, cell in enumerate((lstm(D), rnn(D))):
            there = params[f"layer_{layer}"]
            if both_ways:
                back = params[f"layer_{layer}_backward"]
                ys = bidirectional((cell, cell), (there, back), ys).ys
            else:
                ys = unroll(cell, there, ys).ys
        if pooling == "last" and both_ways:
            pooled = jnp.concatenate([ys[-1, :D], ys[0, D:]])
        else:
            pooled = dict(last=ys[-1], mean=ys.mean(0), max=ys.max(0))[pooling]
        want = pooled @ params["head"]["kernel"] + params["head"]["bias"]
        # float32, sums in another order
        np.testing.assert_allclose(outputs[b], want, atol=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean", slow("max")])
def test_masked_steps_do_not_matter_and_no_steps_give_the_bias(pooling):
    model = SequenceClassifier(
        sequences.rows(), (lstm(D),), K, bidirectional=True, pooling=pooling
    )
    variables = model.init(jax.random.key(1), IMAGES)
    noise = jax.random.normal(jax.random.key(2), IMAGES.shape)
    other = jnp.where(MASK[:, :, None, None], IMAGES, noise)
    outputs = model.apply(variables, IMAGES, mask=MASK)
    np.testing.assert_array_equal(outputs, model.apply(variables, other, mask=MASK))
    np.testing.assert_array_equal(outputs[2], variables["params"]["head"]["bias"])
    assert (outputs[0] != outputs[2]).all()


def test_dropout_is_keyed_by_example():
    model = SequenceClassifier(sequences.rows(), (lstm(D),) * 2, K, dropout=0.5)
    variables = model.init(jax.random.key(1), IMAGES)
    keys = jax.random.split(jax.random.key(2), B)
    dropped = model.apply(variables, IMAGES, keys=keys)
    alone = model.apply(variables, IMAGES[1:2], keys=keys[1:2])
    np.testing.assert_allclose(dropped[1:2], alone, atol=1e-6)
    plain = model.apply(variables, IMAGES)
    assert (np.asarray(dropped) != np.asarray(plain)).any()
    many = jax.vmap(lambda k: model.apply(variables, IMAGES[:1], keys=k[None])[0])
    mean = many(jax.random.split(jax.random.key(3), 4000)).mean(0)
    # The head is linear in what the last dropout lets through, and inverted dropout
    # keeps means; the layer between bends a little. 4,000 draws.
    np.testing.assert_allclose(mean, plain[0], atol=0.05)


def test_half_precision_answers_in_float32():
    model = SequenceClassifier(sequences.rows(), (lstm(D),), K, dtype=jnp.bfloat16)
    variables = model.init(jax.random.key(1), IMAGES)
    half = model.apply(variables, IMAGES)
    full = model.clone(dtype=None).apply(variables, IMAGES)
    assert half.dtype == jnp.float32
    # bfloat16 keeps 8 bits
    np.testing.assert_allclose(half, full, atol=0.05)
    assert (np.asarray(half) != np.asarray(full)).any()


def test_unknown_pooling():
    model = SequenceClassifier(sequences.rows(), (lstm(D),), K, pooling="sum")
    with pytest.raises(ValueError, match="pooling='sum'; choose last, mean, max"):
        model.init(jax.random.key(1), IMAGES)


CLIPS = jax.random.normal(jax.random.key(3), (B, T, 9, 8, 2))


def test_an_encoder_reads_frame_by_frame():
    network = SequenceClassifier(
        sequences.frames(), (lstm(D),), K, encoder=FrameEncoder((4, 8))
    )
    params = network.init(jax.random.key(0), CLIPS)["params"]
    found = network.apply({"params": params}, CLIPS, lengths=LENGTHS)
    encoder = FrameEncoder((4, 8))
    features = [encoder.apply({"params": params["encoder"]}, c) for c in CLIPS]
    assert features[0].shape == (T, 32)  # four places of eight channels
    ys = unroll(lstm(D), params["layer_0"], jnp.stack(features, 1), lengths=LENGTHS).ys
    last = [ys[max(n - 1, 0), i] for i, n in enumerate(LENGTHS.tolist())]
    head = params["head"]
    wanted = jnp.stack(last) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    other = CLIPS.at[2, 2:].set(7.0)  # past the length of clip 2
    found_other = network.apply({"params": params}, other, lengths=LENGTHS)
    np.testing.assert_allclose(found[2], found_other[2], atol=1e-5)


def test_an_answer_for_every_step():
    network = SequenceClassifier(
        sequences.flat_frames(), (lstm(D),), K, per_step=True, bidirectional=True
    )
    params = network.init(jax.random.key(0), CLIPS)
    out = network.apply(params, CLIPS, lengths=LENGTHS)
    assert out.shape == (B, T, K)
    short = network.apply(params, CLIPS[2:, :2])
    np.testing.assert_allclose(out[2, :2], short[0], atol=1e-5)


def test_a_cut_gradient_changes_no_answer():
    def run(tbptt_steps):
        network = SequenceClassifier(
            sequences.flat_frames(), (lstm(D),), K, tbptt_steps=tbptt_steps
        )
        params = network.init(jax.random.key(0), CLIPS)
        return jax.value_and_grad(
            lambda clips: jnp.square(network.apply(params, clips)).sum()
        )(CLIPS)

    (whole, d_whole), (cut, d_cut) = run(None), run(2)
    np.testing.assert_allclose(cut, whole, rtol=1e-6)
    assert not d_cut[:, : T - 2].any() and d_whole[:, 0].any()


def test_a_convolutional_reader_averages_over_space():
    network = SequenceClassifier(sequences.frames(), (conv_lstm(D, (3, 3)),), K)
    params = network.init(jax.random.key(0), CLIPS)["params"]
    xs = CLIPS.swapaxes(0, 1)
    ys = unroll(conv_lstm(D, (3, 3)), params["layer_0"], xs).ys
    head = params["head"]
    wanted = ys[-1].mean((1, 2)) @ head["kernel"] + head["bias"]
    found = network.apply({"params": params}, CLIPS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_encoder_takes_small_frames():
    for side in (1, 2, 5):
        frames = jnp.ones((2, side, side, 1))
        encoder = FrameEncoder((4, 8))
        out = encoder.apply(encoder.init(jax.random.key(0), frames), frames)
        assert out.shape[0] == 2 and out.shape[1] in (8, 16, 32)
