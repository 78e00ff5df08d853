"""Multi-label classification against NumPy loops, with unknown answers and padding."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.tasks import Task, multilabel
from lstm_jax.tasks.multilabel import known_entries

NAMES = ("rain", "snow", "hail")


def case(shape=(6, 3), seed=0, unknown=0.2):
    """Logits and targets with some NaN."""
    rng = np.random.default_rng(seed)
    targets = np.float32(rng.random(shape) < 0.4)
    logits = np.float32(2 * targets - 1 + 1.5 * rng.normal(size=shape))
    targets[rng.random(shape) < unknown] = np.nan
    return logits, targets


def batch(targets, mask=None, lengths=None):
    mask = np.ones(len(targets), np.float32) if mask is None else np.float32(mask)
    result = {"targets": jnp.asarray(targets), "mask": jnp.asarray(mask)}
    if lengths is not None:
        result["lengths"] = jnp.asarray(lengths, jnp.int32)
    return result


def loops(logits, targets, mask, lengths):
    """Cross-entropy, right answers and known entries, one entry at a time."""
    loss = right = count = 0.0
    for place in np.ndindex(targets.shape):
        q, x = targets[place], np.float64(logits[place])
        if np.isnan(q) or (lengths is not None and place[1] >= lengths[place[0]]):
            continue
        p = 1 / (1 + np.exp(-x))
        loss -= mask[place[0]] * np.log(p if q else 1 - p)
        right += mask[place[0]] * ((p >= 0.5) == bool(q))
        count += mask[place[0]]
    return loss, right, count


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "shape, lengths", [((4, 3), None), ((4, 5, 3), None), ((4, 5, 3), (5, 2, 3, 0))]
)
def test_loss_and_metrics_equal_numpy(shape, lengths, dtype):
    logits, targets = case(shape)
    outputs = jnp.asarray(logits, dtype)
    logits = np.asarray(outputs, np.float64)  # what bfloat16 kept
    mask = [1, 0.5, 0, 1]
    task = multilabel(NAMES)
    assert isinstance(task, Task)
    assert (task.outputs, task.monitor, task.mode) == (3, "loss", "min")
    with jax.numpy_dtype_promotion("strict"):
        got = jax.jit(task.loss)(outputs, batch(targets, mask, lengths))
        metrics = jax.jit(task.metrics)(outputs, batch(targets, mask, lengths))
    loss, right, count = loops(logits, targets, mask, lengths)
    np.testing.assert_allclose(got, (loss, count), rtol=1e-5)  # float32 sums
    np.testing.assert_allclose(metrics["loss"], (loss, count), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (right, count), rtol=1e-6)
    assert set(metrics) == {"loss", "accuracy"}
    assert all(v.dtype == jnp.float32 for pair in metrics.values() for v in pair)


def test_unknown_and_padded_entries_have_no_gradient():
    logits, targets = case((2, 4, 3))
    lengths = (4, 2)
    task = multilabel(NAMES)
    data = batch(targets, lengths=lengths)
    gradient = jax.grad(lambda x: task.loss(x, data)[0])(jnp.asarray(logits))
    known = ~np.isnan(targets) & (np.arange(4) < np.array(lengths)[:, None])[..., None]
    p = 1 / (1 + np.exp(-logits))
    expected = np.where(known, p - np.nan_to_num(targets), 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)  # float32 rounding
    np.testing.assert_array_equal(np.asarray(gradient)[~known], 0)
    nothing = task.loss(jnp.asarray(logits), batch(targets * np.nan))
    np.testing.assert_array_equal(nothing, (0, 0))


def test_whole_numbers_and_truth_values_are_targets():
    logits, targets = case(unknown=0)
    task = multilabel(NAMES)
    wanted = task.loss(jnp.asarray(logits), batch(targets))
    for dtype in (np.int32, bool):
        got = task.loss(jnp.asarray(logits), batch(targets.astype(dtype)))
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(40, 3), (10, 4, 3)])
def test_report_equals_loops_and_the_compiled_metrics(shape):
    logits, targets = case(shape)
    task = multilabel(NAMES)
    p = np.asarray(task.predict(jnp.asarray(logits)))
    report = task.report(p, targets)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["task"], report["examples"]) == ("multilabel", shape[0])
    for name, (total, count) in task.metrics(
        jnp.asarray(logits), batch(targets)
    ).items():
        assert report[name] == pytest.approx(float(total / count), rel=1e-5)
        assert report["known"] == count
    for k, row in enumerate(report["per_label"]):
        q, x = targets[..., k].ravel(), p[..., k].ravel().astype(np.float64)
        q, x = q[~np.isnan(q)] == 1, x[~np.isnan(q)]
        assert (row["name"], row["support"], row["known"]) == (
            NAMES[k],
            q.sum(),
            len(q),
        )
        pairs = [(a > b) + 0.5 * (a == b) for a in x[q] for b in x[~q]]
        assert row["roc_auc"] == pytest.approx(np.mean(pairs))
        # precision at each positive, from the most certain down
        at = [np.mean(q[x >= value]) for value in x[q]]
        assert row["average_precision"] == pytest.approx(np.mean(at))
        hits = np.sum(q & (x >= 0.5))
        assert row["precision"] == pytest.approx(hits / np.sum(x >= 0.5))
        assert row["recall"] == pytest.approx(hits / q.sum())
        assert row["f1"] == pytest.approx(2 * hits / (q.sum() + np.sum(x >= 0.5)))
    for name, value in report["macro"].items():
        each = [row[name] for row in report["per_label"]]
        assert value == pytest.approx(np.mean(each))


@pytest.mark.filterwarnings("error")
def test_labels_without_both_answers_and_without_any():
    p = np.full((4, 3), 0.3)
    p[:2, 0] = 0.8
    targets = np.array([[1, 0, np.nan], [0, 0, np.nan], [1, 0, np.nan], [0, 0, np.nan]])
    task = multilabel(NAMES)
    report = task.report(p, targets)
    rain, snow, hail = report["per_label"]
    assert rain["roc_auc"] == 0.5
    assert snow["roc_auc"] is None and snow["f1"] is None and snow["known"] == 4
    assert hail["known"] == 0 and hail["support"] == 0
    assert report["macro"]["roc_auc"] == 0.5
    task.figures(p, targets)["roc"].canvas.draw()

    nothing = task.report(p, targets * np.nan)
    assert (nothing["examples"], nothing["known"]) == (4, 0)
    assert nothing["loss"] is None and nothing["accuracy"] is None
    assert set(nothing["macro"].values()) == {None}
    json.dumps(nothing, allow_nan=False)
    ax = task.figures(p, targets * np.nan)["roc"].axes[0]
    assert "no curve" in ax.texts[0].get_text()


def test_pairs_hold_known_entries_only():
    p = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    targets = np.array([[1, np.nan], [0, 1], [np.nan, np.nan]])
    (a, b) = known_entries(p, targets, 2)
    assert a[0].tolist() == [0.2, 0.6] and a[1].tolist() == [True, False]
    assert b[0].tolist() == [0.4] and b[1].tolist() == [True]


def test_a_certain_mistake_costs_what_float32_can_say():
    p = np.array([[1.0], [0.0]])
    assert multilabel(["a"]).report(p, np.array([[0.0], [1.0]]))[
        "loss"
    ] == pytest.approx((25 + 126) / 2 * np.log(2))


@pytest.mark.parametrize("width, named", [(1, 1), (3, 3), (14, 10)])
def test_roc_figure(width, named):
    logits, targets = case((200, width))
    task = multilabel([f"${k}" for k in range(width)])
    p = np.asarray(task.predict(jnp.asarray(logits)))
    figure = task.figures(p, targets)["roc"]
    figure.canvas.draw()
    ax = figure.axes[0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    rows = task.report(p, targets)["per_label"]
    hardest = sorted(rows, key=lambda row: row["roc_auc"])[:named]
    wanted = {f"{row['roc_auc']:.4f}  \\{row['name']}" for row in hardest}
    assert set(labels) == wanted and len(labels) == named
    assert len(ax.lines) == width + 1 + (width > 1)  # the diagonal, and a mean


@pytest.mark.parametrize(
    "labels, message",
    [([], "got 0 labels.*expected 1"), (["a", "b", "a"], r"appear twice: \['a'\]")],
)
def test_refused_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        multilabel(labels)


@pytest.mark.parametrize(
    "outputs, targets, mask, lengths, message",
    [
        ((2, 4), (2, 4), 2, None, r"outputs have shape \(2, 4\).*head 3 outputs"),
        ((2, 5, 3), (2, 3), 2, None, r"targets \(2, 3\) and mask \(2,\) do not fit"),
        ((2, 3), (2, 3), 3, None, r"mask \(3,\) do not fit.*mask \(2,\)"),
        ((2, 5, 3), (2, 5, 3), 2, (1, 2, 3), r"lengths have shape \(3,\), expected"),
    ],
)
def test_refused_shapes_inside_the_step(outputs, targets, mask, lengths, message):
    task = multilabel(NAMES)
    data = batch(np.zeros(targets, np.float32), np.ones(mask), lengths)
    for f in (task.loss, task.metrics):
        with pytest.raises(ValueError, match=message):
            f(jnp.zeros(outputs), data)


P = np.full((2, 3), 0.5)


@pytest.mark.parametrize(
    "predictions, targets, message",
    [
        (P, np.zeros((3, 3)), r"\(2, 3\) and targets \(3, 3\)"),
        (P[:0], np.zeros((0, 3)), "N >= 1"),
        (P * np.nan, np.zeros((2, 3)), "6 of 6 predictions hold NaN.*learning rate"),
        (P * 3, np.zeros((2, 3)), "not probabilities.*task.predict"),
        (P, P, "other numbers than 0, 1 and NaN"),
    ],
)
@pytest.mark.parametrize("call", ["report", "figures"])
def test_refused_reports(call, predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        getattr(multilabel(NAMES), call)(predictions, targets)
