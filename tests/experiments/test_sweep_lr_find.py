"""The range test: its rates, its losses against a plain loop, what it suggests."""

import json
import math

import jax
import numpy as np
import optax
import pytest

from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment, load_data
from experiments.search import learning_rate as lr_find
from lstm_jax import data, training

TINY = dict(
    accelerator="cpu",
    batch_size=16,
    model__cell="rnn",
    model__order="rows",
    model__bidirectional=False,
    model__features=8,
    model__layers=1,
    model__dropout=0.0,
    augment__translate=0,
)


def test_losses_are_those_of_a_plain_loop(monkeypatch):
    """SGD by hand, without dropout and shifts, at rates that matter from the start."""
    monkeypatch.setattr(lr_find, "LOWEST", 1e-2)
    monkeypatch.setattr(lr_find, "HIGHEST", 1.0)
    monkeypatch.setattr(lr_find, "STEPS", 12)
    options = TINY | dict(
        optimizer="sgd",
        optimizer__momentum=0.0,
        optimizer__clip=None,
        optimizer__schedule="plateau",  # none of these three has a say
        optimizer__schedule__warmup_steps=5,
        optimizer__ema=0.9,
        seed=3,
    )
    found = lr_find.lr_find("digits", **options)
    rates = np.geomspace(1e-2, 1, 12)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-12)

    config = override(preset("digits"), options)
    dataset = load_data(config)
    about = Experiment(config, dataset=dataset).spec
    goal, forward = Experiment(config, about).task, Experiment(config, about).outputs
    key, _ = jax.random.split(jax.random.key(3))
    params, split = Experiment(config, about).init(key), dataset.splits["train"]

    @jax.value_and_grad
    def loss(params, batch):
        logits = forward(params, batch["inputs"])
        smooth = optax.smooth_labels(jax.nn.one_hot(batch["targets"], 10), 0.1)
        return optax.softmax_cross_entropy(logits, smooth).mean()

    loss, losses = jax.jit(loss), []
    for step, rate in enumerate(rates.astype(np.float32)):
        batch = data.train_batch(split, 16, seed=3, step=step)
        value, gradient = loss(params, batch)
        losses.append(float(value))
        down = jax.tree.map(lambda g, rate=rate: rate * g, gradient)
        params = jax.tree.map(np.subtract, params, down)
    assert goal.name == "classification"
    # float32 sums in another order, over 12 updates
    np.testing.assert_allclose(found.losses, losses, rtol=2e-5)
    assert max(losses) / min(losses) > 1.05


def test_the_suggestion_trains_and_what_is_beyond_does_not(command, own_folder):
    flags = [
        f"--{name.replace('__', '.').replace('_', '-')}={value}"
        for name, value in TINY.items()
        if not isinstance(value, bool)
    ]
    code, out, err = command(
        "sweep", "digits", "--lr-find", "--model.no-bidirectional", *flags
    )
    assert (code, err) == (0, "")
    folder = own_folder / "runs" / "lr_find" / "digits"
    saved = json.loads((folder / "lr_find.json").read_text())
    assert f"suggested: --lr={saved['rate']:g}, a tenth of" in out
    assert sorted(p.name for p in folder.iterdir()) == ["lr_find.json", "lr_find.png"]
    rates, losses = np.array(saved["rates"]), np.array(saved["losses"])
    np.testing.assert_allclose(rates, np.geomspace(1e-6, 10, 200)[: len(rates)])
    window = [np.mean(losses[max(0, n - 10) : n + 11]) for n in range(len(losses))]
    np.testing.assert_allclose(saved["smoothed"], window, rtol=1e-12)
    lowest = rates[int(np.argmin(window))]
    assert saved["lowest"] == lowest
    assert abs(saved["rate"] / lowest - 0.1) <= 0.005  # two digits of it
    assert rates[10] < saved["steepest"] < lowest
    # at the suggestion it still falls, and beyond the lowest it rises
    at = int(np.searchsorted(rates, saved["rate"]))
    assert window[at] < window[0] and window[-1] > min(window) * 1.1


def curve(rates):
    """Flat, a fall that is steepest at 1e-3, lowest at 2e-2, then away."""
    x = np.log10(rates)
    fall = 1 / (1 + np.exp(-4 * (x + 3)))
    return 2.3 - 1.8 * fall + 0.5 * np.exp(3 * (x + 1.2))


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_of_a_known_curve(noise):
    rates = np.geomspace(1e-6, 10, 200)
    clean = curve(rates)
    least = rates[np.argmin(clean)]
    rng = np.random.default_rng(0)
    losses = (clean + noise * rng.standard_normal(200))[clean < 5].tolist()
    found = lr_find.suggest(rates.tolist(), lr_find.smooth(losses))
    # the bottom is flat: half a decade either side is less than the noise of a mean
    assert abs(math.log10(found.lowest / least)) < 0.5
    assert found.rate == pytest.approx(found.lowest / 10, rel=0.05)
    if not noise:
        assert abs(math.log10(found.steepest / 1e-3)) < 0.1


def test_a_loss_that_does_not_fall_suggests_nothing():
    rates = np.geomspace(1e-6, 10, 200).tolist()
    rng = np.random.default_rng(0)
    losses = lr_find.smooth((2.3 + 0.02 * rng.standard_normal(200)).tolist())
    found = lr_find.suggest(rates, losses)
    assert found == (None, None, None)
    assert "decreases at no learning rate" in lr_find._words(found, losses)


def test_it_ends_where_the_loss_leaves_for_good():
    def ends(losses):
        return next((n for n in range(1, 201) if lr_find.diverged(losses[:n])), None)

    assert ends([2.0] * 50 + [math.nan]) == 51
    assert ends([2.0] * 200) is None
    assert ends([2.0] * 50 + [9.0] + [2.0] * 50) is None  # one spike is none
    # of 2 and then 20: the mean is 20 - 18 * 0.9^n, above 8 from n = 4 on; the mean of
    # 50 twos has a weight of 1 - 0.9^50, which moves no step
    assert ends([2.0] * 50 + [20.0] * 50) == 54


def test_what_diverges_at_once_is_not_the_rates_fault(monkeypatch, own_folder):
    monkeypatch.setattr(lr_find, "_losses", lambda *_: [2.3, 2.2])
    with pytest.raises(training.Diverged, match="within 2 steps.*not the cause"):
        lr_find.lr_find("digits", **TINY)
    assert not list(own_folder.iterdir())


def test_many_processes_are_refused(own_folder):
    with pytest.raises(UsageError, match="does not support --distributed"):
        lr_find.lr_find("digits", distributed=True, **TINY)
    assert not list(own_folder.iterdir())
