"""Haiku's cores by their own weights: the same in float64."""

import jax
import jax.numpy as jnp
import pytest
from agreement import B, D, F, T, agree, draw, identical, ours

from lstm_jax import conv_lstm, lstm, rnn, unroll
from lstm_jax.interop import from_haiku, from_haiku_carry, to_haiku, to_haiku_carry

hk = pytest.importorskip("haiku", reason="Haiku is compared with, not required")

pytestmark = pytest.mark.slow  # compared in `make test-all`
SPACE = (5, 4)
CORES = {
    "LSTM": ("lstm", lstm(D), lambda: hk.LSTM(D), ()),
    "Conv1DLSTM": (
        "lstm",
        conv_lstm(D, (3,)),
        lambda: hk.Conv1DLSTM(SPACE[:1], D, 3),
        (3,),
    ),
    "Conv2DLSTM": (
        "lstm",
        conv_lstm(D, (3, 2)),
        lambda: hk.Conv2DLSTM(SPACE, D, (3, 2)),
        (3, 2),
    ),
    "VanillaRNN": ("rnn", rnn(D, activation=jax.nn.relu), lambda: hk.VanillaRNN(D), ()),
    "VanillaRNN-one-bias": (
        "rnn",
        rnn(D, activation=jax.nn.relu),
        lambda: hk.VanillaRNN(D, double_bias=False),
        (),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CORES)
def test_equals_haiku(name):
    kind, cell, make, kernel = CORES[name]
    core = hk.without_apply_rng(hk.transform(lambda x, state: make()(x, state)))
    space = SPACE[: len(kernel)]
    xs = draw(8, T, B, *space, F)
    states = tuple(draw(k, B, *space, D) for k in (9, 10))
    states = hk.LSTMState(*states) if kind == "lstm" else states[0]
    blank = core.init(jax.random.key(0), xs[0], states)
    leaves, tree = jax.tree.flatten(blank)
    weights = jax.tree.unflatten(
        tree, [draw(k, *leaf.shape) for k, leaf in enumerate(leaves)]
    )

    def run(weights, xs, states):
        carry = from_haiku_carry(states, kind)
        ys, carry = unroll(cell, from_haiku(weights), xs, carry, engine="scan")
        states = to_haiku_carry(carry)
        return ys, hk.LSTMState(*states) if kind == "lstm" else states

    def their_run(weights, xs, states):
        ys = []
        for x in xs:
            y, states = core.apply(weights, x, states)
            ys.append(y)
        return jnp.stack(ys), states

    agree(run, their_run, weights, xs, states)

    params = ours(kind, kernel=kernel)
    options = {"double_bias": False} if "one-bias" in name else {}
    back = to_haiku(params, **options)
    assert jax.tree.structure(back) == tree
    identical(from_haiku(back), params)
    model = {"net/" + path: leaves for path, leaves in back.items()}
    identical(from_haiku(model), params)
    prefix = "net/" + next(iter(back)).partition("/")[0] + "/"
    identical(from_haiku(model | {"head": {"b": 0.0}}, prefix=prefix), params)


def test_a_gru_of_haiku_is_another_cell():
    core = hk.transform(lambda x: hk.GRU(D)(x, jnp.zeros((B, D))))
    weights = core.init(jax.random.key(0), jnp.zeros((B, F)))
    with pytest.raises(NotImplementedError, match="Haiku's GRU resets"):
        from_haiku(weights)
    with pytest.raises(NotImplementedError, match="has no GRU that resets after"):
        to_haiku(ours("gru"))
