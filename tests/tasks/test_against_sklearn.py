"""Each metric equals scikit-learn's: random answers, ties, empty classes, one class.

Equal means equal: our numbers are its own, or sums of the same terms in its order.
"""

import numpy as np
import pytest
from sklearn import metrics as sk

from lstm_jax.metrics import average_precisions, brier
from lstm_jax.tasks import classification, multilabel, regression
from lstm_jax.tasks.classification import one_against_rest
from lstm_jax.tasks.multilabel import known_entries

WIDTH = 7
CASES = ("random", "ties", "empty class", "two classes only", "one class only")


def answers(kind, seed, count=203):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, WIDTH, count)
    if kind == "empty class":
        targets[(targets == 3) | (targets == 5)] = 4
    if kind == "two classes only":
        targets = np.where(targets > 3, 5, 2)
    if kind == "one class only":
        targets = np.full(count, 2)
    logits = rng.normal(size=(count, WIDTH)) + 1.5 * np.eye(WIDTH)[targets]
    if kind == "ties":
        logits = np.round(logits)
    p = np.exp(logits)
    if kind == "empty class":
        p[:, 5] = 0  # nor is that class ever chosen
    return p / p.sum(-1, keepdims=True), targets


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on classes that are absent
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", CASES)
def test_classification(kind, seed):
    p, targets = answers(kind, seed)
    chosen, labels = p.argmax(-1), np.arange(WIDTH)
    task = classification([f"class {k}" for k in labels], top_k=5)
    report = task.report(p, targets)
    assert report["accuracy"] == sk.accuracy_score(targets, chosen)
    # No true class has a probability below 2e-16, which counts as 2e-16 there.
    assert report["balanced_accuracy"] == sk.balanced_accuracy_score(targets, chosen)
    assert report["loss"] == sk.log_loss(targets, p, labels=labels)
    # Of equal scores scikit-learn takes the later class, we the earlier one.
    top5 = sk.top_k_accuracy_score(WIDTH - 1 - targets, p[:, ::-1], k=5, labels=labels)
    assert report["top5_accuracy"] == top5
    options = dict(labels=labels, zero_division=0)
    for average in ("macro", "weighted"):
        for name, score in (
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
        ):
            wanted = score(targets, chosen, average=average, **options)
            assert report[average][name] == wanted
    table = sk.classification_report(targets, chosen, output_dict=True, **options)
    areas = []
    for k, row in enumerate(report["per_class"]):
        for ours, theirs in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("support", "support"),
        ):
            assert row[ours] == table[str(k)][theirs]
        positive = targets == k
        if positive.any() and not positive.all():
            areas.append(sk.roc_auc_score(positive, p[:, k]))
            assert row["roc_auc"] == areas[-1]
        else:
            assert row["roc_auc"] is None
    if areas:
        assert report["macro"]["roc_auc"] == np.mean(areas)
    else:
        assert report["macro"]["roc_auc"] is None
    if kind in ("random", "ties"):
        ovr = sk.roc_auc_score(targets, p, multi_class="ovr", average="macro")
        assert report["macro"]["roc_auc"] == ovr
    matrix = sk.confusion_matrix(targets, chosen, labels=labels)
    assert report["confusion_matrix"] == matrix.tolist()
    found = average_precisions(one_against_rest(p, targets))
    for k, precision in enumerate(found):
        positive = targets == k
        if positive.any() and not positive.all():
            assert precision == sk.average_precision_score(positive, p[:, k])
        else:
            assert precision is None


@pytest.mark.parametrize("kind", CASES)
def test_brier_score(kind):
    p, targets = answers(kind, 0)
    truth = np.eye(WIDTH)[targets]
    wanted = np.mean([np.sum((a - b) ** 2) for a, b in zip(p, truth, strict=True)])
    assert brier(p, targets) == wanted
    try:
        score = sk.brier_score_loss(
            targets, p, labels=np.arange(WIDTH), scale_by_half=False
        )
    except (TypeError, ValueError):
        pytest.skip("this scikit-learn has the Brier score of two classes only")
    assert brier(p, targets) == score


def test_brier_score_of_two_classes_is_twice_that_of_one_probability():
    p, targets = answers("random", 1)
    p = p[:, :2] / p[:, :2].sum(-1, keepdims=True)
    targets = (targets > 3).astype(int)
    wanted = 2 * sk.brier_score_loss(targets, p[:, 1])
    assert brier(p, targets) == pytest.approx(wanted, rel=1e-13)  # 1 - p rounds


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(101, 4), (17, 9, 4)])
def test_multilabel(shape, seed):
    rng = np.random.default_rng(seed)
    targets = (rng.random(shape) < 0.4).astype(np.float32)
    p = 1 / (1 + np.exp(-rng.normal(size=shape) - targets))
    p[..., 1] = np.round(p[..., 1], 1)  # ties, at 0.5 too
    targets[rng.random(shape) < 0.1] = np.nan
    targets[..., 2] = 0  # no positive one
    task = multilabel("abcd")
    report = task.report(p, targets)
    known = ~np.isnan(targets)
    flat, truth = p[known], targets[known] == 1
    assert report["accuracy"] == sk.accuracy_score(truth, flat >= 0.5)
    assert report["loss"] == sk.log_loss(truth, flat)
    found = average_precisions(known_entries(p, targets, 4))
    rows = []
    for k, row in enumerate(report["per_label"]):
        of_label = known[..., k]
        x, q = p[..., k][of_label], targets[..., k][of_label] == 1
        if k == 2:
            assert row["roc_auc"] is None and found[k] is None
            continue
        rows.append(
            {
                "roc_auc": sk.roc_auc_score(q, x),
                "average_precision": sk.average_precision_score(q, x),
                "f1": sk.f1_score(q, x >= 0.5),
                "precision": sk.precision_score(q, x >= 0.5),
                "recall": sk.recall_score(q, x >= 0.5),
            }
        )
        for name, value in rows[-1].items():
            assert row[name] == value
        assert found[k] == rows[-1]["average_precision"]
    for name, value in report["macro"].items():
        assert value == np.mean([row[name] for row in rows])


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression(outputs):
    rng = np.random.default_rng(outputs)
    targets = rng.normal(size=(150, outputs)).round(1)
    predictions = targets + rng.normal(size=targets.shape)
    report = regression(outputs).report(predictions, targets)
    assert report["mae"] == sk.mean_absolute_error(targets, predictions)
    assert report["rmse"] == np.sqrt(sk.mean_squared_error(targets, predictions))
    assert report["r2"] == sk.r2_score(targets, predictions)
    for k, row in enumerate(report["per_output"]):
        t, p = targets[:, k], predictions[:, k]
        assert row["mae"] == sk.mean_absolute_error(t, p)
        assert row["rmse"] == np.sqrt(sk.mean_squared_error(t, p))
        assert row["r2"] == sk.r2_score(t, p)
