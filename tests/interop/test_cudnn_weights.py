"""The flat vector of cuDNN, beside JAX's reference for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import B, D, F, T, agree, draw, identical, ours
from jax.experimental import rnn
from selection import slow

from lstm_jax import bidirectional, lstm, unroll
from lstm_jax.interop import (
    from_cudnn,
    from_cudnn_carry,
    to_cudnn,
    to_cudnn_carry,
)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "layers, both",
    [
        (1, False),
        (2, True),
        slow(1, True),
        slow(2, False),
    ],
)
def test_equals_the_reference(layers, both):
    ways = 2 if both else 1
    sizes = dict(input_size=F, hidden_size=D, num_layers=layers, bidirectional=both)
    count = rnn.get_num_params_in_lstm(**sizes)
    weights = draw(0, count)
    xs = draw(1, B, T, F)
    states = tuple(draw(k, layers * ways, B, D) for k in (2, 3))
    lengths = np.array([2, 3], np.int32)
    cell = lstm(D)

    def run(weights, xs, states):
        ys, last = xs.swapaxes(0, 1), []
        every = from_cudnn(weights, F, D, layers=layers, bidirectional=both)
        carries = from_cudnn_carry(*states, bidirectional=both)
        for params, carry in zip(every, carries, strict=True):
            if both:
                cells = cell, cell
                ys, end = bidirectional(cells, params, ys, carry, lengths=lengths)
            else:
                ys, end = unroll(cell, params, ys, carry, lengths=lengths)
            last.append(end)
        return ys.swapaxes(0, 1), to_cudnn_carry(last)

    def their_run(weights, xs, states):
        parts = rnn.unpack_lstm_weights(weights, **sizes)
        named = dict(zip(("W_ih", "W_hh", "b_ih", "b_hh"), parts, strict=True))
        named |= dict(dropout=0.0, seq_lengths=jnp.asarray(lengths)) | sizes
        ys, *last = rnn.lstm_ref(xs, *states, **named)
        return ys, tuple(last)

    agree(run, their_run, weights, xs, states)


@pytest.mark.parametrize("both", [False, True])
def test_there_and_back_is_identical(both):
    def layer(inputs):
        return (ours("lstm", inputs),) * 2 if both else ours("lstm", inputs)

    params = (layer(F), layer(2 * D if both else D))
    flat = to_cudnn(params)
    identical(from_cudnn(flat, F, D, layers=2, bidirectional=both), params)
    with pytest.raises(ValueError, match=r"from_cudnn: .*weights is \(\d+,\) and not"):
        from_cudnn(flat[:-1], F, D, layers=2, bidirectional=both)


def test_weights_are_where_cudnn_reads_them():
    params = jax.tree.map(jnp.asarray, ours("lstm"))
    sizes = dict(input_size=F, hidden_size=D, num_layers=1, bidirectional=False)
    parts = rnn.unpack_lstm_weights(to_cudnn([params]), **sizes)
    w_ih, w_hh, b_ih, b_hh = (part[0] for part in parts)
    np.testing.assert_array_equal(w_ih, params["w_x"].T)
    np.testing.assert_array_equal(w_hh, params["w_h"].T)
    np.testing.assert_array_equal(b_ih, params["b"])
    assert not np.asarray(b_hh).any()
