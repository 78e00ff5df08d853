"""Curves that look sick and are not; those of sick runs are in test_sick_runs.py."""

import numpy as np
import pytest

from lstm_jax.inspect import diagnose, read_history


def rows(train, validation=None, **columns):
    """Rows every 50 steps, as a run writes them."""
    made = []
    for k, loss in enumerate(train):
        row = {"step": 50 * (k + 1), "split": "train", "loss": loss}
        made.append(row | {name: values[k] for name, values in columns.items()})
    for k, loss in enumerate(validation if validation is not None else ()):
        made.append({"step": 50 * (k + 1), "split": "validation", "loss": loss})
    return made


def noise(count, size, seed=0):
    return 1 + size * np.random.default_rng(seed).standard_normal(count)


STEPS = np.arange(20)
FALLING = 2.3 * np.exp(-STEPS / 4) + 0.1


def names(made):
    return [diagnostic.name for diagnostic in read_history(made)]


@pytest.mark.parametrize("seed", range(5))
def test_a_good_run_is_silent(seed):
    loss = FALLING * noise(20, 0.05, seed)
    validation = (FALLING + 0.1) * noise(20, 0.05, seed + 10)
    norms = np.exp(-STEPS / 8) * noise(20, 0.2, seed + 20) + 0.05
    assert names(rows(loss, validation, gradient_norm=norms)) == []


def test_a_short_curve_is_not_judged():
    assert names(rows([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])) == []
    assert names([]) == []


def test_a_validation_loss_above_the_training_loss_is_no_overfitting():
    assert names(rows(FALLING, FALLING + 0.5)) == []


def test_both_losses_rising_is_no_overfitting():
    rising = np.r_[FALLING[:10], FALLING[10] + 0.02 * np.arange(10)]
    assert "overfitting" not in names(rows(rising, rising))


def test_a_converged_run_is_no_plateau():
    assert names(rows(np.r_[FALLING, np.full(20, 0.1)])) == []


def test_gradients_that_fade_and_come_back_a_little_are_no_spike():
    norms = np.geomspace(1, 1e-4, 20)
    norms[15] *= 50
    assert names(rows(FALLING, gradient_norm=norms)) == []


def test_rows_come_with_other_diagnostics():
    made = rows([2.3, 2.0, None])
    assert [f.name for f in diagnose(rows=made, updates={"w": 1.0})] == [
        "large_updates",
        "divergence",
    ]


@pytest.mark.parametrize("broken", [None, float("nan"), float("inf")])
def test_what_is_no_number(broken):
    (found,) = read_history(rows([2.3, 2.0, broken]))
    assert found.name == "divergence" and "step 150" in found.words
    (found,) = read_history(rows(FALLING[:3], gradient_norm=[1.0, broken, 1.0]))
    assert found.name == "gradient_spikes" and "step 100" in found.words
