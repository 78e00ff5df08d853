"""Bootstrap intervals against repeated examples, scikit-learn, a known variance."""

import importlib

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from lstm_jax.metrics import bootstrap, example_losses
from lstm_jax.metrics.bootstrap import areas, weighted_scores
from lstm_jax.tasks import classification, forecasting, multilabel, regression

NOT_IN_REPORT = ("brier", "macro.average_precision")
RNG = np.random.default_rng(0)


def probabilities(n=60, width=6):
    logits = RNG.normal(size=(n, width)).round(1)
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True), RNG.integers(0, width, n)


def labels(shape=(40, 5, 3)):
    targets = (RNG.random(shape) < 0.4).astype(np.float32)
    targets[RNG.random(shape) < 0.2] = np.nan
    return RNG.random(shape).round(2), targets


def clips(n=9, time=5, horizon=2):
    shape = (n, time, 12, 12, 1)
    return RNG.random((n, horizon, *shape[2:]), np.float32), RNG.integers(
        0, 256, shape, np.uint8
    )


def numbers(n=50, outputs=2):
    targets = RNG.normal(5, 2, size=(n, outputs))
    return targets + RNG.normal(size=targets.shape), targets


TASKS = {
    "classification": (classification("abcdef"), probabilities()),
    "regression": (regression(2), numbers()),
    "forecasting": (forecasting(2), clips()),
    "multilabel": (multilabel("xyz"), labels()),
}


@pytest.fixture(params=TASKS)
def case(request):
    return TASKS[request.param]


def value(report, name):
    for part in name.split("."):
        report = report[part]
    return report


def test_weights_count_examples_as_often_as_a_report_of_repeated_ones(case):
    task, (predictions, targets) = case
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, (3, len(targets))).astype(float)
    weights[0] = 1
    found = weighted_scores(task.name, predictions, targets)(weights)
    assert len(found) >= 4
    for row, weight in enumerate(weights.astype(int)):
        again = np.repeat(np.arange(len(targets)), weight)
        report = task.report(predictions[again], targets[again])
        for name, values in found.items():
            if name == "brier":
                truth = np.eye(6)[targets[again]]
                wanted = ((predictions[again] - truth) ** 2).sum(-1).mean()
            elif task.name == "classification" and name == "macro.average_precision":
                wanted = np.mean(
                    [
                        average_precision_score(
                            targets[again] == k, predictions[again, k]
                        )
                        for k in range(6)
                    ]
                )
            else:
                wanted = value(report, name)
            # SSIM is a float32 mean; the others are float64 sums in another order
            close = 1e-5 if task.name == "forecasting" else 1e-9
            assert values[row] == pytest.approx(wanted, rel=close, abs=close), name


def test_the_chunk_that_fits_in_memory_changes_nothing(monkeypatch):
    predictions, targets = labels()
    whole = bootstrap("multilabel", predictions, targets, resamples=50)
    held = []

    def watched(scores, positive, weights):
        held.append(weights.size)
        return areas(scores, positive, weights)

    module = importlib.import_module("lstm_jax.metrics.bootstrap")
    monkeypatch.setattr(module, "areas", watched)
    monkeypatch.setattr(module, "CHUNK", 1000)
    parts = bootstrap("multilabel", predictions, targets, resamples=50)
    assert max(held) <= 1000
    for name, ends in whole.items():  # float64 sums in another order
        assert parts[name] == pytest.approx(ends, rel=1e-12), name


def test_curves_under_weights_equal_scikit_learn():
    rng = np.random.default_rng(2)
    scores, positive = rng.random(80).round(1), rng.random(80) < 0.4  # many ties
    weights = rng.integers(0, 4, (6, 80)).astype(float)
    found = areas(scores, positive, weights)
    for ours, theirs in zip(
        found, (roc_auc_score, average_precision_score), strict=True
    ):
        wanted = [theirs(positive, scores, sample_weight=w) for w in weights]
        # float64 sums in another order
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)
    assert np.isnan(areas(scores, positive, weights * positive)).all()
    assert np.isnan(areas(scores, positive, weights * ~positive)).all()
    assert np.isnan(areas(scores[:0], positive[:0], weights[:, :0])).all()


def test_intervals_hold_the_value_and_depend_on_the_seed_only(case):
    task, (predictions, targets) = case
    found = bootstrap(task.name, predictions, targets, resamples=300)
    report = task.report(predictions, targets)
    for name, (low, high) in found.items():
        assert low < high, name
        if task.name != "classification" or name not in NOT_IN_REPORT:
            assert low <= value(report, name) <= high, name
    assert found == bootstrap(task.name, predictions, targets, resamples=300)
    other = bootstrap(task.name, predictions, targets, resamples=300, seed=1)
    assert other != found and other.keys() == found.keys()


def test_the_width_is_that_of_the_binomial_distribution():
    p = np.zeros((1000, 2))
    p[:, 0] = 0.9
    p[:, 1] = 0.1
    targets = (np.arange(1000) < 200).astype(int)
    low, high = bootstrap("classification", p, targets, resamples=4000)["accuracy"]
    deviation = np.sqrt(0.8 * 0.2 / 1000)
    # 1.96 standard deviations; 4,000 draws tell a 97.5th percentile to 3 %
    assert high - 0.8 == pytest.approx(1.96 * deviation, rel=0.08)
    assert 0.8 - low == pytest.approx(1.96 * deviation, rel=0.08)
    narrow = bootstrap("classification", p, targets, level=0.5, resamples=4000)
    half = narrow["accuracy"][1] - narrow["accuracy"][0]
    assert half == pytest.approx(2 * 0.674 * deviation, rel=0.12)


@pytest.mark.filterwarnings("error")
def test_what_is_never_defined_has_no_interval():
    p, _ = probabilities()
    found = bootstrap("classification", p, np.full(60, 2), resamples=20)
    assert "macro.roc_auc" not in found and "accuracy" in found
    predictions, targets = labels()
    found = bootstrap("multilabel", predictions, targets * np.nan, resamples=20)
    assert found == {}
    found = bootstrap("regression", np.ones((4, 1)), np.zeros((4, 1)), resamples=20)
    assert "r2" not in found and found["mae"] == (1, 1)


def test_losses_of_examples_average_to_the_loss_of_the_report(case):
    task, (predictions, targets) = case
    losses = example_losses(task.name, predictions, targets)
    assert losses.shape == (len(targets),)
    report = task.report(predictions, targets)
    if task.name == "multilabel":
        entries = (~np.isnan(targets)).sum((1, 2))
        assert (losses * entries).sum() / entries.sum() == pytest.approx(report["loss"])
        alone = targets.copy()
        alone[3] = np.nan
        losses = example_losses(task.name, predictions, alone)
        assert np.isnan(losses).tolist() == [k == 3 for k in range(len(targets))]
        return
    name = {"regression": "mae", "forecasting": "mse"}.get(task.name, "loss")
    close = 1e-6 if task.name == "forecasting" else 1e-12  # float32 sums of a frame
    assert losses.mean() == pytest.approx(report[name], rel=close)
    worst = int(losses.argmax())
    if task.name == "classification":
        assert predictions[np.arange(60), targets].argmin() == worst


def test_mistakes():
    with pytest.raises(ValueError, match=r"level=95 is not in \(0, 1\)"):
        bootstrap("classification", *probabilities(), level=95)
    with pytest.raises(ValueError, match='task="counting", wanted one of'):
        bootstrap("counting", *probabilities())
