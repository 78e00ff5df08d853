"""Each diagnostic of a run fires on a network trained badly, and on no other."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from selection import slow_but
from sklearn.datasets import load_digits

from lstm_jax import inspect, lstm, rnn, training
from lstm_jax.inspect import diagnose, logged_updates, measure
from lstm_jax.models import SequenceClassifier, sequences

IMAGES, TARGETS = load_digits(return_X_y=True)
IMAGES = np.float32((IMAGES - 4.9) / 6.0).reshape(-1, 8, 8, 1)
TARGETS = np.int32(TARGETS)
BATCH, ROWS = 32, 20
# The rate is part of the state, so that one program serves all runs of a cell.
SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9)
CELLS = {"lstm": lstm(32), "relu": rnn(32, activation=jax.nn.relu)}


@functools.cache
def network(cell):
    """A reader of rows, its fresh params, its step, and its validation loss."""
    model = SequenceClassifier(sequences.rows(), (CELLS[cell],), 10, engine="scan")

    def losses(params, images, targets):
        outputs = model.apply({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)

    def loss(params, batch, keys):
        each = losses(params, batch["inputs"], batch["targets"])
        return (each.sum(), jnp.float32(BATCH)), {}

    mesh = training.data_mesh(jax.devices()[:1])
    step = training.make_train_step(loss, SGD, mesh)
    params = jax.jit(model.init)(jax.random.key(0), IMAGES[:1])["params"]
    validate = jax.jit(lambda p: losses(p, IMAGES[1200:], TARGETS[1200:]).mean())
    return model, params, mesh, step, validate


def trained(rate, cell="lstm", pictures=900, batch=BATCH, every=10, spoiled=None):
    """20 rows of `every` steps of SGD on the first digits, and the weights at the end.

    `batch` pictures make a batch of 32. Those of step `spoiled` have the wrong
    labels and a contrast of a hundred times what it should be.
    """
    _, params, mesh, step, validate = network(cell)
    state = training.init_state(params, SGD, jax.random.key(1), mesh)
    state.opt_state.hyperparams["learning_rate"] = jnp.float32(rate)

    def batch_at(at):
        some = np.random.default_rng(at).integers(0, pictures, batch)
        some = some.repeat(BATCH // batch)
        bad = at == spoiled
        return {
            "inputs": IMAGES[some] * (100 if bad else 1),
            "targets": (TARGETS[some] + bad) % 10,
        }

    rows = []
    state = training.fit(
        state,
        step,
        steps=ROWS * every,
        batch_at=batch_at,
        steps_per_execution=every,
        evaluate=lambda params: {"loss": validate(params)},
        eval_every=every,
        log_every=every,
        callbacks=[training.LambdaCallback(on_log=rows.append)],
    )
    return rows, state.params


def found(rows, measures=None):
    return {
        diagnostic.name: diagnostic
        for diagnostic in diagnose(measures, rows=rows, updates=logged_updates(rows))
    }


@pytest.fixture(scope="module")
def healthy():
    """A small LSTM that learned, measured; everything that can be judged is."""
    rows, params = trained(0.1)
    model = network("lstm")[0]
    assert rows[-1]["split"] == "validation" and rows[-1]["loss"] < 0.7  # from 2.3
    return found(rows, measure(model, params, IMAGES[-32:], TARGETS[-32:]))


def middle(values):
    return float(np.median(values))


# Of each diagnostic the run that is to have it, and its number from the losses of
# training `t` and of validation `v`, the gradient norms `g` and the ratios `u`.
SICK = {
    "large_updates": (dict(rate=30.0), lambda t, v, g, u: max(u)),
    "small_updates": (dict(rate=1e-8), lambda t, v, g, u: max(u)),
    "divergence": (dict(rate=100.0, every=1), lambda t, v, g, u: middle(t[-3:]) / t[0]),
    "gradient_spikes": (
        dict(rate=3e-3, cell="relu", spoiled=195),
        lambda t, v, g, u: g[19] / middle(g[14:19]),
    ),
    "oscillation": (
        dict(rate=0.15, batch=2, every=2),
        lambda t, v, g, u: middle(np.abs(np.diff(t[10:]))) / t[0],
    ),
    "plateau": (dict(rate=1e-4), lambda t, v, g, u: middle(t[15:]) / t[0]),
    "unfinished": (
        dict(rate=8e-3),
        lambda t, v, g, u: 1 - middle(t[15:]) / middle(t[10:15]),
    ),
    "overfitting": (
        dict(rate=0.1, pictures=40),
        lambda t, v, g, u: (
            middle(v[-3:]) / min(middle(v[max(k - 1, 0) : k + 2]) for k in range(ROWS))
        ),
    ),
}


@pytest.mark.parametrize("name", slow_but(SICK, "overfitting"))
def test_a_sick_run_is_told_and_a_healthy_one_is_not(name, healthy):
    options, number = SICK[name]
    rows, _ = trained(**options)
    diagnostics = found(rows)
    diagnostic = diagnostics[name]
    if name in ("plateau", "unfinished", "overfitting"):  # nothing else is wrong
        assert list(diagnostics) == [name]
    train = [row for row in rows if row["split"] == "train"]
    t, g = ([row[key] for row in train] for key in ("loss", "gradient_norm"))
    v = [row["loss"] for row in rows if row["split"] == "validation"]
    u = [x for row in train for key, x in row.items() if key.startswith("update_ratio")]
    assert diagnostic.number == pytest.approx(number(t, v, g, u), rel=1e-9)
    assert name not in healthy


def test_a_healthy_run_has_no_finding_at_all(healthy):
    assert healthy == {}


def test_the_network_with_a_spike_is_healthy_without():
    assert found(trained(3e-3, cell="relu")[0]) == {}


def test_every_kind_of_diagnostic_has_a_sick_network():
    """Those of gradients, gates and units are in test_diagnostics.py."""
    folder = Path(inspect.__file__).parent
    text = "".join(
        (folder / name).read_text() for name in ("diagnostics.py", "history.py")
    )
    kinds = set(re.findall(r'Diagnostic\(\s*"(\w+)"', text))
    measured = {"vanishing_gradients", "exploding_gradients", "short_memory"}
    assert kinds == {*SICK, *measured, "saturated_gates", "dead_units"}
