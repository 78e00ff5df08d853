"""Findings of gradients, gates and units fire on sick networks, not on healthy ones."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import chooses, flag, options, override, preset
from lstm_jax import inspect, lstm, rnn
from lstm_jax.initializers import chrono
from lstm_jax.inspect import diagnose, measure_cell

B, D, F = 8, 16, 4
LSTM, TANH = lstm(D), rnn(D)  # made once, so that programs are compiled once
RELU = rnn(D, activation=jax.nn.relu)


def last(ys):
    return ys[-1].sum()


def measured(cell, time, **changes):
    """Of a fresh cell, whose params then go through a function each."""
    params = cell.init(jax.random.key(0), (F,))
    params |= {name: change(params[name]) for name, change in changes.items()}
    xs = jax.random.normal(jax.random.key(1), (time, B, F))
    return measure_cell(cell, params, xs, last)


def names(diagnostics):
    return [diagnostic.name for diagnostic in diagnostics]


def test_a_long_memory_is_healthy():
    """Fresh, over 784 steps; its gates i and f sit at their ends on purpose."""
    measures = measured(lstm(D, forget_bias=chrono(784)), 784)
    gates = measures.layers[0].gates
    assert np.mean(gates["f"].saturated) > 0.9
    assert diagnose(measures) == []


def test_vanishing_and_short_memory_of_a_small_recurrence():
    found = diagnose(measured(TANH, 784, w_h=lambda w: 0.5 * w))
    assert names(found) == ["vanishing_gradients", "short_memory"]
    assert found[0].number > 1e30 and "at least" in found[0].words  # 0.5^784 is 0
    assert "over 784 steps (cell: h)" in found[0].words
    assert "--model.cell=lstm" in found[0].suggestion
    assert found[1].number <= 4  # 0.5^4 < 0.1


def test_exploding():
    eye, ones = (lambda w: 1.5 * jnp.eye(D)), jnp.ones_like
    (found,) = diagnose(measured(RELU, 40, w_h=eye, b=ones))
    assert found.name == "exploding_gradients"
    assert "grow 2e6-fold back over 40 steps" in found.words
    # from the first of 39 steps to the first of their last 3
    assert found.number == pytest.approx(1.5**36, rel=0.05)


def test_overflow_is_exploding():
    cell = rnn(D, activation=lambda z: z)

    def eye(w):
        return 1.5 * jnp.eye(D)

    (found, *_) = diagnose(measured(cell, 784, w_h=eye, w_x=lambda w: 1e-30 * w))
    assert found.name == "exploding_gradients" and found.number == np.inf


def test_a_forgetful_lstm():
    found = diagnose(measured(LSTM, 40, b=lambda b: b.at[D : 2 * D].set(-5.0)))
    assert names(found) == ["vanishing_gradients", "short_memory"]
    assert found[1].number < 3
    assert "--model.cell.forget-bias=chrono" in found[1].suggestion


def test_saturated_gates():
    sick = measured(LSTM, 40, w_x=lambda w: 30 * w, w_h=lambda w: 30 * w)
    found = {f.name: f for f in diagnose(sick)}
    assert found["saturated_gates"].number > 0.8


def test_dead_relus():
    sick = measured(RELU, 40, b=lambda b: b.at[: D // 2].set(-50.0))
    (found,) = [f for f in diagnose(sick) if "dead" in f.name]
    assert found.number == 0.5
    assert found.words.startswith("8 of 16 units")
    assert "leaky_relu" in found.suggestion


def test_updates_that_are_no_numbers_are_too_large():
    (found,) = diagnose(updates={"w": float("nan")})
    assert found.name == "large_updates"
    assert diagnose(updates={"w": 1e-3, "v": 2e-2}) == diagnose() == []


def test_suggestions_name_flags_that_exist():
    files = [
        Path(inspect.__file__).with_name(n) for n in ("diagnostics.py", "history.py")
    ]
    flags = {f for file in files for f in re.findall(r"--[a-z.-]+", file.read_text())}
    digits = preset("digits")
    kinds = [
        override(digits, {option.name: word})
        for option in options(digits)
        if chooses(digits, option.name)
        for word in option.words
    ]
    known = {flag(option.name) for config in kinds for option in options(config)}
    assert len(flags) > 10 and flags <= known


def test_the_worst_layer_is_named():
    (healthy,) = measured(LSTM, 40).layers
    still = np.ones_like(healthy.still)
    layers = (healthy, healthy._replace(name="layer_1", still=still))
    (found,) = diagnose(inspect.Measures(layers))
    assert found.name == "dead_units" and "layer_1" in found.words
