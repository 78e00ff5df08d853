"""Flax's cells, Linen and NNX, by their own weights: the same in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import B, D, F, T, agree, draw, identical, ours
from selection import slow_but

from lstm_jax import conv_lstm, gru, lstm, rnn, unroll
from lstm_jax.interop import (
    from_flax_carry,
    from_linen,
    from_nnx,
    to_flax_carry,
    to_linen,
    to_nnx,
)

nn = pytest.importorskip("flax.linen", reason="Flax is compared with")
nnx = pytest.importorskip("flax.nnx", reason="Flax is compared with")
KERNEL = (3, 2)
LINEN = {
    "LSTMCell": ("lstm", lstm(D), nn.LSTMCell(D), {}),
    "OptimizedLSTMCell": ("lstm", lstm(D), nn.OptimizedLSTMCell(D), {}),
    "GRUCell": ("gru", gru(D), nn.GRUCell(D), {}),
    "SimpleCell": ("rnn", rnn(D), nn.SimpleCell(D), {}),
    "ConvLSTMCell": ("lstm", conv_lstm(D, KERNEL), nn.ConvLSTMCell(D, KERNEL), {}),
    "ConvLSTMCell-1D": ("lstm", conv_lstm(D, (3,)), nn.ConvLSTMCell(D, (3,)), {}),
    "ConvLSTMCell-without-bias": (
        "lstm",
        conv_lstm(D, KERNEL),
        nn.ConvLSTMCell(D, KERNEL, use_bias=False),
        {"bias": False},
    ),
}
NNX = {
    "LSTMCell": ("lstm", lstm(D), nnx.LSTMCell, {}),
    "OptimizedLSTMCell": ("lstm", lstm(D), nnx.OptimizedLSTMCell, {"optimized": True}),
    "GRUCell": ("gru", gru(D), nnx.GRUCell, {}),
    "SimpleCell": ("rnn", rnn(D), nnx.SimpleCell, {}),
}


def problem(kind, space=()):
    xs = draw(8, T, B, *space, F)
    states = tuple(draw(k, B, *space, D) for k in (9, 10))
    return xs, states if kind == "lstm" else states[0]


def runs(kind, cell, convert, step):
    """`agree`'s two functions, theirs by their step in a loop."""

    def run(weights, xs, states):
        carry = from_flax_carry(states, kind)
        ys, carry = unroll(cell, convert(weights), xs, carry, engine="scan")
        return ys, to_flax_carry(carry)

    def their_run(weights, xs, states):
        ys = []
        for x in xs:
            states, y = step(weights, states, x)
            ys.append(y)
        return jnp.stack(ys), states

    return run, their_run


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", slow_but(LINEN, "LSTMCell", "GRUCell", "ConvLSTMCell"))
def test_equals_linen(name):
    kind, cell, module, options = LINEN[name]
    space = (5, 4)[: len(getattr(module, "kernel_size", ()))]
    xs, states = problem(kind, space)
    with jax.numpy_dtype_promotion("standard"):
        blank = jax.eval_shape(module.init, jax.random.key(0), states, xs[0])["params"]
    leaves, tree = jax.tree.flatten(blank)
    weights = jax.tree.unflatten(
        tree, [draw(k, *leaf.shape) for k, leaf in enumerate(leaves)]
    )

    def step(weights, states, x):
        return module.apply({"params": weights}, states, x)

    agree(*runs(kind, cell, from_linen, step), weights, xs, states)

    params = ours(kind, kernel=getattr(module, "kernel_size", ()))
    if not options.get("bias", True):
        params["b"] = np.repeat([0.0, 1, 0, 0], D)
    back = to_linen(params, **options)
    assert jax.tree.structure(back) == tree
    assert [a.shape for a in jax.tree.leaves(back)] == [a.shape for a in leaves]
    identical(from_linen(back), params)
    model = {"RNN_0": {"cell": back}, "head": {"bias": 0.0}}
    identical(from_linen(model, prefix="RNN_0/cell/"), params)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", slow_but(NNX, "OptimizedLSTMCell", "GRUCell"))
def test_equals_nnx(name):
    kind, cell, Module, options = NNX[name]
    dtypes = dict(dtype=jnp.float64, param_dtype=jnp.float64)
    module = Module(F, D, rngs=nnx.Rngs(0), **dtypes)
    graph, state, rest = nnx.split(module, nnx.Param, ...)
    blank = nnx.to_pure_dict(state)
    leaves, tree = jax.tree.flatten(blank)
    weights = jax.tree.unflatten(
        tree, [draw(k, *leaf.shape) for k, leaf in enumerate(leaves)]
    )

    def step(weights, states, x):
        state = jax.tree.map(lambda a: a, nnx.state(module, nnx.Param))
        nnx.replace_by_pure_dict(state, weights)
        return nnx.merge(graph, state, rest)(states, x)

    xs, states = problem(kind)
    agree(*runs(kind, cell, from_nnx, step), weights, xs, states)

    params = ours(kind, gru_bias=False)
    back = to_nnx(params, **options)
    assert jax.tree.structure(back) == tree
    identical(from_nnx(back), params)


def test_a_bias_that_nnx_has_no_place_for_is_refused():
    with pytest.raises(ValueError, match="to_nnx: b_n is not zero"):
        to_nnx(ours("gru"))
