"""Classification against NumPy loops and against what its report must say."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.tasks import Task, classification
from lstm_jax.tasks.classification import one_against_rest

NAMES = ("a", "b", "c")


def batch(targets, mask=None):
    mask = np.ones(len(targets), np.float32) if mask is None else mask
    return {"targets": jnp.asarray(targets, jnp.int32), "mask": jnp.asarray(mask)}


def cross_entropy(logits, targets, smoothing=0.0):
    """[B] in float64, one example at a time."""
    result = []
    for x, target in zip(np.float64(logits), targets, strict=True):
        log_p = x - np.log(np.sum(np.exp(x)))
        q = np.full(len(x), smoothing / len(x))
        q[target] += 1 - smoothing
        result.append(-np.sum(q * log_p))
    return np.array(result)


def random_case(n, width, seed=0, signal=2.0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, width, n)
    logits = rng.normal(size=(n, width))
    logits[np.arange(n), targets] += signal
    return np.float32(logits), targets


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_loss_and_metrics_equal_numpy(dtype):
    logits, targets = random_case(7, 9)
    outputs = jnp.asarray(logits, dtype)
    logits = np.asarray(outputs, np.float64)  # what bfloat16 kept
    mask = np.float32([1, 1, 0, 1, 1, 0, 1])
    task = classification([str(k) for k in range(9)], label_smoothing=0.1, top_k=3)
    assert isinstance(task, Task)
    assert (task.outputs, task.monitor, task.mode) == (9, "accuracy", "max")
    with jax.numpy_dtype_promotion("strict"):
        loss = jax.jit(task.loss)(outputs, batch(targets, mask))
        metrics = jax.jit(task.metrics)(outputs, batch(targets, mask))
    # float32 sums of a handful of numbers near 1
    close = dict(rtol=1e-5)
    smooth = np.sum(cross_entropy(logits, targets, 0.1) * mask)
    plain = np.sum(cross_entropy(logits, targets) * mask)
    order = np.argsort(-logits, -1)
    np.testing.assert_allclose(loss, (smooth, 5), **close)
    np.testing.assert_allclose(metrics["loss"], (plain, 5), **close)
    right = np.sum((order[:, 0] == targets) * mask)
    top3 = np.sum((order[:, :3] == targets[:, None]).any(-1) * mask)
    np.testing.assert_array_equal(metrics["accuracy"], (right, 5))
    np.testing.assert_array_equal(metrics["top3_accuracy"], (top3, 5))
    assert set(metrics) == {"loss", "accuracy", "top3_accuracy"}
    assert all(v.dtype == jnp.float32 for pair in metrics.values() for v in pair)


def test_a_masked_example_changes_nothing_even_if_it_is_nan():
    task = classification(NAMES)
    logits, targets = random_case(4, 3)
    mask = np.array([True, True, False, True])
    broken = logits.copy()
    broken[2] = np.nan
    for f in (task.loss, lambda *a: task.metrics(*a)["accuracy"]):
        np.testing.assert_array_equal(
            f(jnp.asarray(broken), batch(targets, mask)),
            f(jnp.asarray(logits), batch(targets, mask)),
        )
    nothing = task.loss(jnp.asarray(logits), batch(targets, np.zeros(4, np.float32)))
    np.testing.assert_array_equal(nothing, (0, 0))


def test_gradient_is_probability_minus_label():
    task = classification(NAMES)
    logits, targets = random_case(4, 3)
    gradient = jax.grad(lambda x: task.loss(x, batch(targets))[0])(jnp.asarray(logits))
    expected = np.asarray(task.predict(jnp.asarray(logits))) - np.eye(3)[targets]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)  # float32 rounding


@pytest.mark.parametrize("width, named", [(5, False), (6, True)])
def test_top_k_only_with_more_classes_than_k(width, named):
    task = classification([str(k) for k in range(width)])
    logits, targets = random_case(20, width)
    assert (
        "top5_accuracy" in task.metrics(jnp.asarray(logits), batch(targets))
    ) is named
    report = task.report(np.asarray(task.predict(jnp.asarray(logits))), targets)
    assert ("top5_accuracy" in report) is named


def test_report_agrees_with_the_compiled_metrics_ties_included():
    logits, targets = random_case(200, 8)
    logits[:50] = 0.0  # a network that does not know: every class ties
    task = classification([str(k) for k in range(8)])
    metrics = task.metrics(jnp.asarray(logits), batch(targets))
    report = task.report(np.asarray(task.predict(jnp.asarray(logits))), targets)
    for name, (total, count) in metrics.items():
        assert report[name] == pytest.approx(float(total / count), rel=1e-5)


def test_report_by_hand():
    # true a a b b c; chosen a b b b a
    p = np.array(
        [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0, 1, 0], [0.5, 0.2, 0.3]]
    )
    report = classification(NAMES).report(p, np.array([0, 0, 1, 1, 2]))
    assert report["accuracy"] == pytest.approx(0.6)
    assert report["confusion_matrix"] == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    loss = -np.mean(np.log([0.8, 0.2, 0.8, 1, 0.3]))
    assert report["loss"] == pytest.approx(loss)
    a, b, c = report["per_class"]
    assert (a["precision"], a["recall"], a["f1"], a["support"]) == (0.5, 0.5, 0.5, 2)
    assert (b["precision"], b["recall"]) == (pytest.approx(2 / 3), 1.0)
    assert (c["precision"], c["recall"], c["f1"], c["support"]) == (0.0, 0.0, 0.0, 1)
    # pairs of (positive, negative) in the right order, a tie counts one half
    assert a["roc_auc"] == pytest.approx((3 + 2) / 6)
    assert b["roc_auc"] == 1.0 and c["roc_auc"] == 1.0
    assert report["macro"]["roc_auc"] == pytest.approx((5 / 6 + 2) / 3)
    assert report["macro"]["recall"] == pytest.approx(0.5)
    assert report["weighted"]["recall"] == pytest.approx(0.6)
    assert report["examples"] == 5 and report["classes"] == ["a", "b", "c"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_each_class_against_the_rest():
    p = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    (no, yes) = one_against_rest(p, np.array([1, 0, 0]))
    assert no[1].tolist() == [False, True, True] and yes[1].tolist() == [True, 0, 0]
    np.testing.assert_array_equal(no[0], p[:, 0])
    np.testing.assert_array_equal(yes[0], p[:, 1])


@pytest.mark.filterwarnings("error")
def test_an_absent_class_has_no_roc_and_no_nan():
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    task = classification(NAMES)
    report = task.report(p, np.array([0, 1, 1]))
    assert [row["roc_auc"] for row in report["per_class"]] == [1.0, 1.0, None]
    assert report["macro"]["roc_auc"] == 1.0
    json.dumps(report, allow_nan=False)
    alone = task.report(p, np.array([1, 1, 1]))
    assert [row["roc_auc"] for row in alone["per_class"]] == [None] * 3
    assert alone["macro"]["roc_auc"] is None
    json.dumps(alone, allow_nan=False)
    task.figures(p, np.array([1, 1, 1]))["roc"].canvas.draw()


def test_binary_and_a_certain_mistake():
    p = np.array([[1.0, 0.0], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    report = classification(("no", "yes")).report(p, np.array([1, 1, 0, 1]))
    assert report["accuracy"] == 0.75
    for row in report["per_class"]:
        assert row["roc_auc"] == pytest.approx(2 / 3)
    assert 20 < report["loss"] < 25  # a quarter of -log of the smallest float32


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(classes=["a"]), "got 1 class.*expected 2 or more"),
        (dict(classes=["a", "b", "a"]), r"appear twice: \['a'\]"),
        (dict(classes=NAMES, label_smoothing=1.0), r"label_smoothing=1.0.*\[0, 1\)"),
        (dict(classes=NAMES, label_smoothing=float("nan")), "label_smoothing=nan"),
        (dict(classes=NAMES, top_k=0), "top_k=0, wanted 1"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        classification(**arguments)


def test_refused_shapes_inside_the_step():
    task = classification(NAMES)
    with pytest.raises(ValueError, match=r"outputs have shape \(2, 4\).*head 3"):
        task.loss(jnp.zeros((2, 4)), batch([0, 1]))
    with pytest.raises(ValueError, match=r"targets \(3,\) and mask \(3,\) do not fit"):
        task.metrics(jnp.zeros((2, 3)), batch([0, 1, 2]))


GOOD = np.full((2, 3), 1 / 3)


@pytest.mark.parametrize(
    "predictions, targets, message",
    [
        (GOOD, [0, 1, 2], r"\(2, 3\) for 3 targets"),
        (GOOD[:0], [], r"\(0, 3\) for 0 targets; expected .* N >= 1"),
        (GOOD * np.nan, [0, 1], "2 of 2 predictions hold NaN.*lower learning rate"),
        (GOOD * 9, [0, 1], "not probabilities.*task.predict"),
        (GOOD, [0.0, 1.0], "dtype float64, wanted integers"),
        (GOOD, [0, 3], "run from 0 to 3, wanted 0 to 2 for 3 classes"),
    ],
)
@pytest.mark.parametrize("call", ["report", "figures"])
def test_refused_reports(call, predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        getattr(classification(NAMES), call)(predictions, np.array(targets))
