"""Layers in one call equal the runs that they are made of."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit
from selection import slow

from lstm_jax import (
    RNNCarry,
    bidirectional,
    conv_lstm,
    gru,
    lstm,
    recurrent_layers,
    rnn,
    unroll,
    zoneout,
)
from lstm_jax.keys import fold_in, split_key
from lstm_jax.randomness import step_dropout

T, B, F, D = 5, 3, 2, 4
LENGTHS = np.array([5, 0, 3])
KEY = jax.random.key(5)
XS = jax.random.normal(jax.random.key(1), (T, B, F))


def equal(got, want):
    # Float32, the same sums in another order.
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), got, want)


def total(out):
    ys, carry = out
    weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
    return (ys * weights).sum() + sum(x.sum() for x in jax.tree.leaves(carry)), out


def gradients(run, *at):
    return jit(jax.value_and_grad(lambda *at: total(run(*at)), (0, 1), has_aux=True))(
        *at
    )


def by_hand(params, carry, xs, *, cells, merge, rate, key, **options):
    """The composition of `unroll` or `bidirectional` over two layers."""
    carries = []
    for layer, (cell, p, c) in enumerate(zip(cells, params, carry, strict=True)):
        own = None
        if key is not None:
            drop_key, own = split_key(fold_in(key, layer))
            xs = step_dropout(xs, rate, drop_key) if layer else xs
        if merge is None:
            xs, last = unroll(cell, p, xs, c, key=own, **options)
        else:
            xs, last = bidirectional((cell, cell), p, xs, c, key=own, **options)
        if merge == "sum":
            xs = xs[..., :D] + xs[..., D:]
        carries.append(last)
    return xs, tuple(carries)


@pytest.mark.parametrize(
    "key, merge",
    [
        (None, None),
        (None, "sum"),
        (KEY, "concat"),
        slow(None, "concat"),
        slow(KEY, None),
        slow(KEY, "sum"),
    ],
)
def test_layers_equal_the_composition_gradients_included(merge, key):
    cells = rnn(D), rnn(D, activation=jax.nn.relu)
    layers = recurrent_layers(
        cells, bidirectional=merge is not None, dropout=0.5, merge=merge or "concat"
    )
    params = layers.init(jax.random.key(0), (F,))
    pair = (RNNCarry(jnp.ones((B, D))),) * 2
    carry = pair if merge is None else (pair, pair)
    options = dict(lengths=LENGTHS, engine="scan", key=key)
    got = gradients(
        lambda p, c: tuple(layers.apply(p, XS, c, **options)), params, carry
    )
    hand = partial(by_hand, xs=XS, cells=cells, merge=merge, rate=0.5, **options)
    equal(got, gradients(hand, params, carry))
    assert got[0][1][0].shape == (T, B, 2 * D if merge == "concat" else D)


def test_one_cell_for_all_layers():
    layers = recurrent_layers(lstm(D), num_layers=3)
    params = layers.init(jax.random.key(0), (F,))
    assert [p["w_x"].shape[0] for p in params] == [F, D, D]
    out = jit(layers.apply)(params, XS)
    want = by_hand(
        params, [None] * 3, XS, cells=[lstm(D)] * 3, merge=None, rate=0, key=None
    )
    equal(tuple(out), want)


def test_layers_of_images():
    layers = recurrent_layers(conv_lstm(2, (3, 3)), 2, bidirectional=True)
    params = jax.eval_shape(lambda: layers.init(KEY, (4, 4, 1)))
    assert [p[0]["w_x"].shape[-2] for p in params] == [1, 4]
    clips = jax.ShapeDtypeStruct((T, B, 4, 4, 1), jnp.float32)
    assert jax.eval_shape(layers.apply, params, clips).ys.shape == (T, B, 4, 4, 4)


def test_chunks_with_dropout_and_keys_of_examples_equal_the_whole():
    layers = recurrent_layers(zoneout(rnn(D), 0.5), 2, dropout=0.5)
    params = layers.init(jax.random.key(0), (F,))
    keys = jax.random.split(KEY, B)

    @jit
    def run(xs, carry, first_step):
        return layers.apply(params, xs, carry, key=keys, first_step=first_step)

    xs, start = XS[:4], (RNNCarry(jnp.zeros((B, D))),) * 2
    whole = run(xs, start, 0)
    first = run(xs[:2], start, 0)
    second = run(xs[2:], first.carry, 2)
    equal(jnp.concatenate([first.ys, second.ys]), whole.ys)
    equal(second.carry, whole.carry)
    other = run(xs[:2], start, 2)
    assert np.abs(first.ys - other.ys).max() > 1e-2


def test_every_carry_of_every_layer():
    layers = recurrent_layers((gru(D), lstm(3)))
    params = layers.init(jax.random.key(0), (F,))
    out = jit(partial(layers.apply, return_carries=True))(params, XS)
    equal(out.carries[0].h[-1], out.carry[0].h)
    equal(out.carries[1].h, out.ys)


def test_mistakes_are_named():
    for options, what in [
        (dict(num_layers=0), "num_layers=0, but it is an integer >= 1"),
        (dict(dropout=1.0), r"dropout=1.0, but it lies in \[0, 1\)"),
        (dict(merge="mean"), "merge='mean'; pass 'concat' or 'sum'"),
    ]:
        with pytest.raises(ValueError, match=what):
            recurrent_layers(lstm(D), **options)
    for cells, number in [((), None), ((lstm(D),) * 2, 3)]:
        with pytest.raises(ValueError, match=f"{len(cells)} cells and num_layers"):
            recurrent_layers(cells, number)
    layers = recurrent_layers(lstm(D), 2)
    params = layers.init(jax.random.key(0), (F,))
    with pytest.raises(ValueError, match="carry has 1 entries, but there are 2 layers"):
        layers.apply(params, XS, (None,))
    with pytest.raises(ValueError, match="reverse is not supported"):
        layers.apply(params, XS, reverse=True)
