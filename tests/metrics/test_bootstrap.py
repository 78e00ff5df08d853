"""Bootstrap intervals against repeated examples, scikit-learn, a known variance."""

import importlib

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from lstm_jax.metrics import bootstrap
from lstm_jax.metrics.ranking import areas
from lstm_jax.targets import COLUMNS, VOID
from lstm_jax.tasks import (
    classification,
    detection,
    forecasting,
    multilabel,
    regression,
    segmentation,
    text_recognition,
)

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


def masks(shape=(12, 6, 7), classes=4):
    targets = RNG.integers(0, classes, shape).astype(np.uint8)
    wrong = RNG.integers(0, classes, shape).astype(np.uint8)
    predictions = np.where(RNG.random(shape) < 0.6, targets, wrong)
    targets[RNG.random(shape) < 0.1] = VOID
    return predictions, targets


def boxes(n=20, things=4):
    targets = np.zeros((n, things, COLUMNS), np.float32)
    targets[..., :2] = RNG.random((n, things, 2)) * 10
    targets[..., 2:4] = targets[..., :2] + 2 + 6 * RNG.random((n, things, 2))
    targets[..., 4] = RNG.integers(-1, 3, (n, things))
    moved = targets[..., :4] + 0.4 * RNG.normal(size=(n, things, 4))
    scores, classes = RNG.random((n, things, 1)), np.abs(targets[..., 4:5])
    return np.concatenate([moved, scores, classes], -1).astype(np.float32), targets


def lines(n=15, length=8):
    ends = np.arange(length) < RNG.integers(1, length + 1, (n, 1))
    targets = RNG.integers(1, 5, (n, length)) * ends
    wrong = RNG.integers(0, 5, targets.shape)
    predictions = np.zeros((n, length, 4), np.float32)
    predictions[..., 0] = np.where(RNG.random(targets.shape) < 0.9, targets, wrong)
    return predictions, targets


TASKS = {
    "classification": (classification("abcdef"), probabilities()),
    "classification, top 2": (classification("abcdef", top_k=2), probabilities()),
    "regression": (regression(2), numbers()),
    "forecasting": (forecasting(2), clips()),
    "multilabel": (multilabel("xyz"), labels()),
    "segmentation": (segmentation("abcd"), masks()),
    "detection": (detection("abc", (20, 20), sequential=False), boxes()),
    "recognition": (text_recognition("abcd"), lines()),
}


AVERAGED = {  # what of a report their losses of examples average to
    "classification": "loss",
    "regression": "mae",
    "forecasting": "mse",
    "multilabel": "loss",
}


def intervals(task, predictions, targets, **options):
    scores = task.weighted_scores(predictions, targets)
    return bootstrap(scores, len(targets), **options)


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
    found = task.weighted_scores(predictions, targets)(weights)
    assert len(found) >= 2
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
    whole = intervals(multilabel("xyz"), predictions, targets, resamples=50)
    held = []

    def watched(scores, positive, weights):
        held.append(weights.size)
        return areas(scores, positive, weights)

    ranking = importlib.import_module("lstm_jax.metrics.ranking")
    monkeypatch.setattr(ranking, "areas", watched)
    for name in ("bootstrap", "ranking"):
        module = importlib.import_module(f"lstm_jax.metrics.{name}")
        monkeypatch.setattr(module, "CHUNK", 1000)
    parts = intervals(multilabel("xyz"), predictions, targets, resamples=50)
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
    found = intervals(task, predictions, targets, resamples=300)
    report = task.report(predictions, targets)
    for name, (low, high) in found.items():
        assert low < high, name
        if task.name != "classification" or name not in NOT_IN_REPORT:
            assert low <= value(report, name) <= high, name
    assert found == intervals(task, predictions, targets, resamples=300)
    other = intervals(task, predictions, targets, resamples=300, seed=1)
    assert other != found and other.keys() == found.keys()


def test_the_width_is_that_of_the_binomial_distribution():
    p = np.zeros((1000, 2))
    p[:, 0] = 0.9
    p[:, 1] = 0.1
    targets = (np.arange(1000) < 200).astype(int)
    low, high = intervals(classification("ab"), p, targets, resamples=4000)["accuracy"]
    deviation = np.sqrt(0.8 * 0.2 / 1000)
    # 1.96 standard deviations; 4,000 draws tell a 97.5th percentile to 3 %
    assert high - 0.8 == pytest.approx(1.96 * deviation, rel=0.08)
    assert 0.8 - low == pytest.approx(1.96 * deviation, rel=0.08)


@pytest.mark.filterwarnings("error")
def test_what_is_never_defined_has_no_interval():
    p, _ = probabilities()
    found = intervals(classification("abcdef"), p, np.full(60, 2), resamples=20)
    assert "macro.roc_auc" not in found and "accuracy" in found
    predictions, targets = labels()
    found = intervals(multilabel("xyz"), predictions, targets * np.nan, resamples=20)
    assert found == {}
    found = intervals(regression(), np.ones((4, 1)), np.zeros((4, 1)), resamples=20)
    assert "r2" not in found and found["mae"] == (1, 1)


@pytest.mark.parametrize("name", AVERAGED)
def test_losses_of_examples_average_to_the_loss_of_the_report(name):
    task, (predictions, targets) = TASKS[name]
    losses = task.example_losses(predictions, targets)
    assert losses.shape == (len(targets),)
    report = task.report(predictions, targets)
    if task.name == "multilabel":
        entries = (~np.isnan(targets)).sum((1, 2))
        assert (losses * entries).sum() / entries.sum() == pytest.approx(report["loss"])
        alone = targets.copy()
        alone[3] = np.nan
        losses = task.example_losses(predictions, alone)
        assert np.isnan(losses).tolist() == [k == 3 for k in range(len(targets))]
        return
    close = 1e-6 if task.name == "forecasting" else 1e-12  # float32 sums of a frame
    assert losses.mean() == pytest.approx(report[AVERAGED[name]], rel=close)
    worst = int(losses.argmax())
    if task.name == "classification":
        assert predictions[np.arange(60), targets].argmin() == worst


def dice_error(report):
    matrix = np.asarray(report["pixel_confusion"])
    both = matrix[1:].sum() + matrix[:, 1:].sum()
    return 1 - 2 * np.trace(matrix[1:, 1:]) / both


@pytest.mark.parametrize(
    "name, loss",
    [
        ("segmentation", dice_error),
        ("detection", lambda report: 1 - report["f1"]),
        ("recognition", lambda report: report["cer"]),
    ],
)
def test_losses_of_examples_are_those_of_a_report_of_one(name, loss):
    task, (predictions, targets) = TASKS[name]
    wanted = [
        loss(task.report(predictions[k : k + 1], targets[k : k + 1]))
        for k in range(len(targets))
    ]
    assert len(set(wanted)) > 3
    losses = task.example_losses(predictions, targets)
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)  # float64 in another order
