"""The table of cells that every promise of `unroll` is tested on: a cell, a line."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference
import reference_conv
import user_cells

from lstm_jax import (
    Cell,
    autoregressive,
    bottleneck_conv_lstm,
    conv_gru,
    conv_lstm,
    densely_connected,
    dropout,
    gru,
    learned_carry,
    lstm,
    readout,
    recurrent_dropout,
    repeat,
    residual,
    rnn,
    st_lstm,
    stack,
    zoneout,
)
from lstm_jax.cell import at_least_float32

T, B, D = 6, 4, 3
# How XLA compiles for users, where conftest.py has it compile faster.
FASTER = "--xla_cpu_use_fusion_emitters=false" in os.environ.get("XLA_FLAGS", "")
AS_FOR_USERS = {"xla_cpu_use_fusion_emitters": True} if FASTER else {}
IMAGE = (3, 2, 2)  # H W C


class Case(NamedTuple):
    """A cell, the shape of its input, and its step in NumPy where there is one."""

    cell: Cell
    feature_shape: tuple[int, ...] = (D,)
    one_step: Callable | None = None


CASES = {
    "lstm": Case(lstm(D), (2,), reference.lstm_step),
    "lstm-pixel": Case(lstm(D), (1,), reference.lstm_step),
    "lstm-peepholes": Case(
        lstm(D, peepholes=True), (2,), reference.lstm(peepholes=True)
    ),
    "lstm-layer-norm": Case(
        lstm(D, layer_norm=True), (2,), reference.lstm(layer_norm=True)
    ),
    "lstm-proj": Case(lstm(D, proj_size=2), (2,), reference.lstm(proj_size=2)),
    "lstm-cifg": Case(lstm(D, cifg=True), (2,), reference.lstm(cifg=True)),
    "lstm-everything": Case(
        lstm(D, peepholes=True, layer_norm=True, proj_size=2, cifg=True),
        (2,),
        reference.lstm(peepholes=True, layer_norm=True, proj_size=2, cifg=True),
    ),
    "lstm-no-bias": Case(
        lstm(D, layer_norm=True, use_bias=False), (2,), reference.lstm(layer_norm=True)
    ),
    "gru": Case(gru(D), (2,), reference.gru()),
    "gru-no-bias": Case(gru(D, use_bias=False), (2,), reference.gru()),
    "gru-reset-before": Case(
        gru(D, reset_after=False), (2,), reference.gru(reset_after=False)
    ),
    "gru-layer-norm": Case(
        gru(D, layer_norm=True), (2,), reference.gru(layer_norm=True)
    ),
    "gru-everything": Case(
        gru(D, reset_after=False, layer_norm=True, use_bias=False),
        (2,),
        reference.gru(reset_after=False, layer_norm=True),
    ),
    "rnn": Case(rnn(D), (2,), reference.rnn_step(np.tanh)),
    "rnn-no-bias": Case(rnn(D, use_bias=False), (2,), reference.rnn_step(np.tanh)),
    "rnn-relu": Case(
        rnn(D, activation=jax.nn.relu), (2,), reference.rnn_step(lambda z: z * (z > 0))
    ),
    "conv-lstm": Case(conv_lstm(D, (3, 3)), IMAGE, reference_conv.conv_lstm()),
    "conv-gru": Case(conv_gru(D, (2, 2)), IMAGE, reference_conv.conv_gru()),
    "conv-gru-reset-before": Case(
        conv_gru(D, (2, 2), reset_after=False, use_bias=False),
        IMAGE,
        reference_conv.conv_gru(reset_after=False, use_bias=False),
    ),
    "bottleneck": Case(
        bottleneck_conv_lstm(D, (3, 2)), IMAGE, reference_conv.bottleneck_conv_lstm
    ),
    "st-lstm": Case(
        st_lstm(D, (2, 2), layers=2, decouple=True), IMAGE, reference_conv.st_lstm(2)
    ),
    "unit": Case(user_cells.unit(D), (2,), user_cells.unit_step),
    "stack": Case(stack(lstm(D), gru(4), rnn(2)), (2,)),
    "residual": Case(residual(gru(D))),
    "densely-connected": Case(densely_connected(lstm(D), rnn(2)), (2,)),
    "repeat": Case(repeat(lstm(D), 2)),
    "readout": Case(readout(gru(4), D), (2,)),
    "learned-carry": Case(learned_carry(lstm(D)), (2,)),
    "zoneout": Case(zoneout(lstm(D), 0.2), (2,)),
    "dropout": Case(dropout(recurrent_dropout(gru(D), 0.3), 0.3), (2,)),
    "autoregressive": Case(autoregressive(lstm(D))),
    "composed": Case(residual(stack(lstm(4), zoneout(gru(D), 0.1)))),
}
RANDOM = ["zoneout", "dropout", "composed"]  # those that read a key

_rng = np.random.default_rng(3)
LENGTHS = np.array([T, 0, 3, 1])
HOLES = _rng.random((T, B)) < 0.7
STARTS = _rng.random((T, B)) < 0.3
READINGS = {
    "all": {},
    "lengths": {"lengths": LENGTHS},
    "mask": {"mask": HOLES},
    "resets": {"resets": STARTS},
    "combined": {"lengths": LENGTHS, "mask": HOLES, "resets": STARTS},
}


def arguments(reading: str = "all") -> dict[str, np.ndarray]:
    """All options of a reading; those it lacks hide nothing and start nothing.

    As arguments of a compiled program: one program then serves every reading.
    """
    none = {
        "lengths": np.full(B, T),
        "mask": np.ones((T, B), bool),
        "resets": np.zeros((T, B), bool),
    }
    return none | READINGS[reading]


@cache
def problem(name: str, dtype: Any = jnp.float64, batch: int = B, time: int = T):
    """`(params, xs, carry)` of a case, all random, made by NumPy: nothing compiles."""
    cell, feature_shape, _ = CASES[name]
    rng = np.random.default_rng(0)

    def shapes(key):
        params = cell.init(key, feature_shape, dtype)
        state = at_least_float32(dtype)
        return params, cell.carry(params, (batch,), feature_shape, state)

    def weights(leaf):
        """About as large as `init` makes them; vectors, some of which are gains."""
        noise = rng.standard_normal(leaf.shape)
        fan_in = np.prod(leaf.shape[:-1])
        noise = 0.8 * noise / np.sqrt(fan_in) if leaf.ndim > 1 else 0.5 + 0.3 * noise
        return jnp.asarray(noise, leaf.dtype)

    params, carry = jax.eval_shape(shapes, jax.random.key(0))
    params = jax.tree.map(weights, params)
    xs = jnp.asarray(rng.standard_normal((time, batch, *feature_shape)), dtype)
    return (
        params,
        xs,
        jax.tree.map(
            lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), leaf.dtype),
            carry,
        ),
    )


def reading_in_numpy(name: str, params, xs, carry, options: dict, reverse: bool):
    """`(ys, states after each step)` of the NumPy loop."""
    cell, feature_shape, one_step = CASES[name]
    time, batch = xs.shape[:2]
    valid = np.asarray(options.get("mask", np.ones((time, batch), bool)))
    within = np.arange(time)[:, None] < options.get("lengths", np.full(batch, time))
    resets = options.get("resets")
    fresh = cell.carry(params, (batch,), feature_shape, xs.dtype)
    return reference.run(
        one_step,
        jax.tree.map(np.asarray, params),
        np.asarray(xs),
        tuple(np.asarray(leaf) for leaf in jax.tree.leaves(carry)),
        valid & within,
        reverse,
        None if resets is None else np.asarray(resets) & within,
        tuple(np.asarray(leaf) for leaf in jax.tree.leaves(fresh)),
    )
