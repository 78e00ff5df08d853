"""Frame by frame equals the whole clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow, slow_but

from lstm_jax import conv_lstm, gru, learned_carry, lstm, readout, st_lstm, stack
from lstm_jax.models import (
    EncoderForecaster,
    FrameEncoder,
    FrameForecaster,
    SequenceClassifier,
    sequences,
    stream,
)

T, FRAME = 7, (8, 8, 1)
READERS = {
    "last": dict(cells=(lstm(5), gru(4)), pooling="last"),
    "mean": dict(cells=(learned_carry(lstm(5)),), pooling="mean"),
    "max": dict(cells=(lstm(5),), pooling="max"),
    "per step": dict(cells=(lstm(5),), per_step=True),
    "cnn": dict(cells=(lstm(5),), encoder=FrameEncoder((4, 8))),
    "conv": dict(cells=(conv_lstm(3, (3, 3)),), order=sequences.frames()),
}


def clip():
    return jax.random.normal(jax.random.key(1), (1, T, *FRAME))


def streamed(network, params, frames):
    parts = stream(network, params, frames.shape[1:])
    step = jax.jit(parts.step, donate_argnums=0)
    state, outputs = parts.start(), []
    for frame in frames:
        state, output = step(state, frame)
        outputs.append(output)
    assert step._cache_size() == 1  # one program for every frame
    return np.stack(outputs)


@pytest.mark.parametrize("name", slow_but(READERS, "cnn"))
def test_a_reader_answers_as_it_does_to_the_clip_so_far(name):
    options = dict(READERS[name])
    spatial = name in ("cnn", "conv")
    options.setdefault("order", sequences.frames() if spatial else None)
    options["order"] = options["order"] or sequences.flat_frames()
    network = SequenceClassifier(outputs=3, **options)
    params = network.init(jax.random.key(0), clip())["params"]
    found = streamed(network, params, clip()[0])
    if network.per_step:
        wanted = network.apply({"params": params}, clip())[0]
    else:
        wanted = np.concatenate(
            [
                network.apply({"params": params}, clip(), lengths=jnp.array([t + 1]))
                for t in range(T)
            ]
        )
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize(
    "cell",
    [stack(conv_lstm(3, (3, 3))), slow(st_lstm(3, (3, 3)))],
)
def test_a_forecaster_says_the_next_frame(cell):
    network = FrameForecaster(readout(cell, 4), inputs=T, patch=2)
    params = network.init(jax.random.key(0), clip())["params"]
    wanted = network.apply({"params": params}, clip())[0]  # frames 1 to T - 1
    found = streamed(network, params, clip()[0])
    np.testing.assert_allclose(found[:-1], wanted, atol=2e-6)


def test_what_must_see_the_end_first_is_refused():
    network = SequenceClassifier(sequences.frames(), (lstm(3),), 2, bidirectional=True)
    with pytest.raises(ValueError, match="bidirectional"):
        stream(network, {}, FRAME)
    network = EncoderForecaster((conv_lstm(3, (3, 3)),), horizon=2)
    with pytest.raises(ValueError, match="EncoderForecaster"):
        stream(network, {}, FRAME)


def test_a_thousand_frames_in_constant_memory():
    network = SequenceClassifier(
        sequences.frames(), (conv_lstm(3, (3, 3)),), 2, per_step=True
    )
    frames = jax.random.normal(jax.random.key(2), (1000, 6, 6, 1))
    params = network.init(jax.random.key(0), frames[None, :2])["params"]
    wanted = np.asarray(network.apply({"params": params}, frames[None])[0])
    parts, frames = stream(network, params, frames.shape[1:]), np.asarray(frames)
    step = jax.jit(parts.step, donate_argnums=0)
    state, held, found = parts.start(), [], []
    for number, frame in enumerate(frames):
        state, output = step(state, frame)
        found.append(np.array(output))  # a copy: no view keeps the output
        if number % 50 == 5:
            held.append(sum(array.nbytes for array in jax.live_arrays()))
    assert len(held) == 20 and len(set(held)) == 1
    np.testing.assert_allclose(np.stack(found), wanted, atol=5e-6)
