"""Class weights, focal losses and thresholds, against loops and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight

from lstm_jax.tasks import classification, multilabel
from lstm_jax.tasks.classification import balanced_class_weights
from lstm_jax.tasks.multilabel import (
    balanced_label_weights,
    best_thresholds,
    scores_at,
)

NAMES = ("a", "b", "c")


def case(shape, classes, seed=0):
    rng = np.random.default_rng(seed)
    logits = np.float32(2 * rng.normal(size=shape))
    targets = rng.integers(0, classes, shape[:1] if classes > 2 else shape)
    mask = np.float32(rng.random(shape[0]) < 0.7)
    return logits, targets, mask


def batch(targets, mask, dtype=jnp.int32):
    return {"targets": jnp.asarray(targets, dtype), "mask": jnp.asarray(mask)}


def test_balanced_class_weights_are_scikit_learns():
    targets = np.repeat([0, 1, 2], [95, 3, 2])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    np.testing.assert_allclose(balanced_class_weights(targets, 3), wanted, rtol=1e-12)
    # a class without examples, and examples without a class
    targets = np.array([0, 0, 0, 2, -1, -1])
    np.testing.assert_allclose(balanced_class_weights(targets, 3), [4 / 6, 1, 2])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(), (0.4, 1.0, 7.0)])
def test_a_weighted_focal_loss_equals_loops(gamma, smoothing, weights):
    logits, targets, mask = case((9, 3), 3)
    options = dict(gamma=gamma, label_smoothing=smoothing, class_weights=weights)
    task = classification(NAMES, **options)
    total = count = 0.0
    for x, target, weight in zip(np.float64(logits), targets, mask, strict=True):
        p = np.exp(x) / np.exp(x).sum()
        q = np.full(3, smoothing / 3)
        q[target] += 1 - smoothing
        weight = weight * (weights[target] if weights else 1)
        total += weight * -(q * (1 - p) ** gamma * np.log(p)).sum()
        count += weight
    with jax.numpy_dtype_promotion("strict"):
        got = jax.jit(task.loss)(logits, batch(targets, mask))
        plain = jax.jit(task.metrics)(logits, batch(targets, mask))["loss"]
    np.testing.assert_allclose(got, (total, count), rtol=1e-5)  # float32 sums
    # The metric is the cross-entropy of all alike, whatever is minimised.
    wanted = classification(NAMES).loss(logits, batch(targets, mask))
    np.testing.assert_allclose(plain, wanted, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_focal_loss_has_a_gradient_where_a_class_is_certain(gamma):
    logits = jnp.asarray([[200.0, 0, 0], [0, 200.0, 0]])
    data = batch([0, 0], [1.0, 1.0])
    task = classification(NAMES, gamma=gamma)
    gradient = jax.grad(lambda x: task.loss(x, data)[0])(logits)
    assert np.isfinite(gradient).all() and not gradient[0].any()
    np.testing.assert_allclose(gradient[1], [-1, 1, 0], atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("weights", [(), ((0.5, 3.0), (1.0, 1.0), (4.0, 0.6))])
def test_a_loss_of_labels_equals_loops(gamma, weights):
    logits, targets, mask = case((9, 3), 2)
    targets = np.float32(targets)
    targets[2, 1] = np.nan
    task = multilabel(NAMES, gamma=gamma, class_weights=weights)
    total = count = 0.0
    for n, k in np.ndindex(targets.shape):
        if np.isnan(targets[n, k]):
            continue
        q, p = int(targets[n, k]), 1 / (1 + np.exp(-np.float64(logits[n, k])))
        p_true = p if q else 1 - p
        weight = mask[n] * (weights[k][q] if weights else 1)
        total -= weight * (1 - p_true) ** gamma * np.log(p_true)
        count += weight
    data = batch(targets, mask, jnp.float32)
    got = jax.jit(task.loss)(logits, data)
    np.testing.assert_allclose(got, (total, count), rtol=1e-5)  # float32 sums
    plain = multilabel(NAMES).loss(logits, data)
    np.testing.assert_allclose(task.metrics(logits, data)["loss"], plain, rtol=1e-6)


def test_under_balanced_weights_yes_and_no_of_a_label_count_alike():
    targets = np.float32([[0, 1], [0, 1], [0, np.nan], [1, 1]])
    weights = balanced_label_weights(targets, 2)
    np.testing.assert_allclose(weights, [[4 / 6, 2], [1, 1]])  # no only, yes only: 1


@pytest.mark.parametrize(
    "make, weights",
    [(classification, (1, 2)), (classification, (1, 0, 2)), (multilabel, (1, 2, 3))],
)
def test_other_weights_are_refused(make, weights):
    with pytest.raises(ValueError, match="class_weights have shape"):
        make(NAMES, class_weights=weights)
    with pytest.raises(ValueError, match="gamma=-1"):
        make(NAMES, gamma=-1)


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_have_the_largest_f1(seed):
    rng = np.random.default_rng(seed)
    truth = np.float32(rng.random((30, 3)) < [0.1, 0.5, 0.9])
    truth[:2] = [[0, 0, 0], [1, 1, 1]]
    p = np.round(np.clip(0.3 * truth + 0.6 * rng.random(truth.shape), 0, 1), 1)
    truth[rng.random(truth.shape) < 0.1] = np.nan
    truth[:2] = [[0, 0, 0], [1, 1, 1]]
    found = best_thresholds(p, truth, 3)
    rows = scores_at(p, truth, found)
    for k in range(3):
        known = ~np.isnan(truth[:, k])
        cuts = [*np.linspace(0, 1, 201), 0.5]
        q, score = truth[known, k], p[known, k]
        each = [sk.f1_score(q, score >= cut, zero_division=0) for cut in cuts]
        assert rows[k]["f1"] == pytest.approx(max(each), rel=1e-12)
        said = score >= found[k]
        assert rows[k]["recall"] == pytest.approx(sk.recall_score(q, said))
        assert rows[k]["precision"] == pytest.approx(sk.precision_score(q, said))
        if each[-1] == max(each):
            assert found[k] == 0.5  # nothing is gained by another one


def test_a_label_of_one_answer_keeps_its_threshold():
    p, truth = np.full((4, 1), 0.2), np.ones((4, 1), np.float32)
    assert best_thresholds(p, truth, 1).tolist() == [0.5]
    assert scores_at(p, truth, [0.5]) == [None]
