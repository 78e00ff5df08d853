"""Detection: the matching by trying all, the loss and the counts by loops."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.metrics import SCORE_THRESHOLD, average_precision
from lstm_jax.metrics.boxes import match_counts
from lstm_jax.targets import CLASS, COLUMNS, CROWD, HIDDEN
from lstm_jax.tasks import Task, detection

NAMES, SIZE = ("cup", "spoon", "plate"), (8, 10)
K, M, Q = len(NAMES), 3, 5
SCALE = np.array([10, 8, 10, 8])  # width, height, width, height
# Compiling the matching takes longer than running it.
compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


@functools.cache
def made(sequential):
    """The task, and the loss of each of many images and its gradient, compiled."""
    task = detection(NAMES, SIZE, sequential=sequential)

    def one(outputs, targets):
        data = {"targets": targets[None], "mask": jnp.ones(1)}
        return task.loss(outputs[None], data)[0]

    return task, compiled(jax.vmap(jax.value_and_grad(one)))


def judge(sequential, outputs, targets):
    """Losses [N] and gradients [N, Q, 5 + K] of images."""
    arrays = jnp.asarray(outputs, jnp.float32), jnp.asarray(targets, jnp.float32)
    return tuple(np.asarray(x, np.float64) for x in made(sequential)[1](*arrays))


def corners(rng, *shape):
    """Of boxes, as shares of the image."""
    points = rng.random((*shape, 2, 2))
    return np.concatenate([points.min(-2), points.max(-2)], -1)


def random_pictures(rng, *shape):
    """Outputs [..., Q, 5 + K] and targets [..., M, 7], of 0 to M things."""
    outputs = rng.normal(size=(*shape, Q, 5 + K)) * 2
    outputs[..., :4] = corners(rng, *shape, Q)
    targets = np.zeros((*shape, M, COLUMNS))
    targets[..., :4] = corners(rng, *shape, M) * SCALE
    # what is not there, or is a crowd, may be in any row
    there = rng.random((*shape, M)) < 0.75
    targets[..., CLASS] = np.where(there, rng.integers(0, K, there.shape), -1)
    targets[..., CROWD] = rng.random(there.shape) < 0.15
    targets[..., HIDDEN] = rng.random(there.shape)
    return outputs.astype(np.float32), targets.astype(np.float32)


def distance(one, other):
    """5 L1 + 2 (1 - GIoU) of two boxes, by intervals."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - both
    width = max(one[2], other[2]) - min(one[0], other[0])
    height = max(one[3], other[3]) - min(one[1], other[1])
    giou = both / union - 1 + union / (width * height)
    return 5 * np.abs(one - other).sum() + 2 * (1 - giou)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def softmax(x):
    p = np.exp(np.float64(x) - np.max(x, -1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def real_things(targets):
    return targets[(targets[:, CLASS] >= 0) & (targets[:, CROWD] == 0)]


def least(outputs, targets, sequential):
    """The loss of one image where the matching is the best of all."""
    outputs, targets = np.float64(outputs), np.float64(targets)
    p, exists = softmax(outputs[:, 5:]), sigmoid(outputs[:, 4])
    things = real_things(targets)
    n = len(things)
    best = (np.inf, 0.0, ())
    for rows in itertools.permutations(range(n if sequential else len(outputs)), n):
        cost = loss = 0.0
        for row, thing in zip(rows, things, strict=True):
            far = distance(outputs[row, :4], thing[:4] / SCALE)
            sure = p[row, int(thing[CLASS])]
            cost += far - sure - (0 if sequential else exists[row])
            loss += far - np.log(sure)
        best = min(best, (cost, loss, rows))
    loss = best[1] / max(n, 1)
    if sequential:
        wanted = [np.log(exists[q] if q < n else 1 - exists[q]) for q in range(n + 1)]
        return loss - np.mean(wanted)
    for q in range(len(outputs)):
        right = exists[q] if q in best[2] else 1 - exists[q]
        loss -= 2 * (1 - right) ** 2 * np.log(right) / max(n, 1)
    return loss


@pytest.mark.parametrize("sequential", [True, False])
def test_the_loss_is_that_of_the_best_matching(sequential):
    outputs, targets = random_pictures(np.random.default_rng(0), 120)
    targets[0, :, CLASS] = -1  # nothing is there
    targets[1, :, CLASS], targets[1, :, CROWD] = 0, 0
    losses, _ = judge(sequential, outputs, targets)
    wanted = [least(*pair, sequential) for pair in zip(outputs, targets, strict=True)]
    np.testing.assert_allclose(losses, wanted, rtol=2e-5)  # float32, sums up to 100
    numbers = {len(real_things(rows)) for rows in targets}
    assert numbers == set(range(M + 1))


@pytest.mark.parametrize("sequential", [True, False])
def test_the_best_of_nearly_equal_answers_is_matched(sequential):
    """What an answer costs that may not be taken must not swallow small differences."""
    rng = np.random.default_rng(1)
    outputs, targets = random_pictures(rng, 120)
    outputs[..., :4] = np.float32([0.2, 0.2, 0.6, 0.6])
    outputs[..., :2] += rng.random((120, Q, 2)).astype(np.float32) / 1000
    outputs[..., 5:] = 8 * np.eye(K)[rng.integers(0, K, (120, Q))]
    targets[..., :4] = np.float32([2, 1.6, 6, 5])
    targets[..., :4] += rng.random((120, M, 4)).astype(np.float32) / 1000
    losses, _ = judge(sequential, outputs, targets)
    wanted = [least(*pair, sequential) for pair in zip(outputs, targets, strict=True)]
    np.testing.assert_allclose(losses, wanted, rtol=2e-5)  # float32


@pytest.mark.parametrize("sequential", [True, False])
def test_the_order_of_things_and_what_padding_holds_change_nothing(sequential):
    rng = np.random.default_rng(2)
    outputs, targets = random_pictures(rng, 120)
    losses, gradients = judge(sequential, outputs, targets)
    other = rng.permuted(np.repeat(np.arange(M)[None], 120, 0), axis=1)
    other = np.take_along_axis(targets, other[..., None], 1)
    none = other[..., CLASS] < 0
    other[none, :4] = 30 * rng.normal(size=(none.sum(), 4))
    other[none, CROWD] = rng.integers(0, 2, none.sum())
    other[none, HIDDEN] = rng.random(none.sum())
    assert none.any() and (other != targets).any((1, 2)).mean() > 0.5
    again, moved = judge(sequential, outputs, other)
    np.testing.assert_allclose(again, losses, rtol=1e-6)  # sums in another order
    np.testing.assert_allclose(moved, gradients, atol=1e-5)


@pytest.mark.parametrize("sequential", [True, False])
def test_gradients_are_those_of_differences(sequential):
    rng = np.random.default_rng(4)
    outputs, targets = random_pictures(rng, 120)
    _, gradients = judge(sequential, outputs, targets)
    step = 1e-6
    for n in range(8):
        for _ in range(12):
            place = rng.integers(Q), rng.integers(5 + K)
            ends = []
            for sign in (1, -1):
                moved = outputs[n].astype(np.float64)
                moved[place] += sign * step
                ends.append(least(moved, targets[n], sequential))
            wanted = (ends[0] - ends[1]) / (2 * step)
            # float32 rounding of slopes up to 10, and that of the differences
            assert gradients[n][place] == pytest.approx(wanted, abs=2e-4)


def test_only_answers_up_to_the_stop_are_judged():
    outputs, targets = random_pictures(np.random.default_rng(5), 120)
    _, gradients = judge(True, outputs, targets)
    for said, gradient, rows in zip(outputs, gradients, targets, strict=True):
        n = len(real_things(rows))
        np.testing.assert_array_equal(gradient[n + 1 :], 0)
        np.testing.assert_array_equal(np.delete(gradient[n:], 4, 1), 0)
        stop = sigmoid(said[: n + 1, 4]) - (np.arange(n + 1) < n)
        # float32 rounding
        np.testing.assert_allclose(gradient[: n + 1, 4], stop / (n + 1), atol=1e-6)
        assert (np.abs(gradient[:n, :4]).max(-1, initial=0) > 0).all()


@pytest.mark.parametrize("sequential", [True, False])
def test_gradients_are_finite_where_boxes_are_strange(sequential):
    rng = np.random.default_rng(6)
    outputs, targets = random_pictures(rng, 120)
    targets[..., CLASS], targets[..., CROWD] = 1, 0
    true = targets[..., :4] / np.float32(SCALE)
    outputs[:20, :M, :4] = true[:20]  # exact
    outputs[20:40, :, :4] = 0.5  # a point
    targets[30:40, :, :4] = np.float32(0.5 * SCALE)  # the same point
    outputs[40:60, :, :4] = [3, 3, 4, 4]  # outside of the image
    outputs[60:80, :, :4] = [0.6, 0.6, 0.2, 0.2]  # inside out
    outputs[80:100, :, 4:] = 200 * rng.choice([-1, 1], (20, Q, 1 + K))
    targets[100:110, :, 2:4] = targets[100:110, :, :2]  # things without an area
    losses, gradients = judge(sequential, outputs, targets)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradients).all()
    assert (np.abs(gradients).max((1, 2)) > 0).all()


@pytest.mark.parametrize("sequential, lengths", [(True, None), (False, (3, 1, 3, 2))])
def test_a_clip_shares_its_weight_among_its_frames(sequential, lengths):
    outputs, targets = random_pictures(np.random.default_rng(7), 4, 3)
    each, _ = judge(
        sequential,
        np.resize(outputs, (120, Q, 5 + K)),
        np.resize(targets, (120, M, COLUMNS)),
    )
    each = each[:12].reshape(4, 3)
    mask = np.array([1, 0, 1, 1], bool) if lengths is None else [1, 0.5, 0, 1]
    data = {"targets": jnp.asarray(targets), "mask": jnp.asarray(mask)}
    if lengths is not None:
        data["lengths"] = jnp.asarray(lengths, jnp.int32)
        late = np.arange(3) >= np.array(lengths)[:, None]
        outputs[late] = np.nan
        each[late] = np.nan
    outputs[np.equal(mask, 0)] = np.nan  # padding
    got = compiled(made(sequential)[0].loss)(jnp.asarray(outputs), data)
    wanted = np.dot(mask, np.nanmean(each, 1)), np.sum(mask)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)  # float32 sums


@pytest.mark.parametrize("sequential", [True, False])
def test_predictions_equal_a_loop(sequential):
    outputs, _ = random_pictures(np.random.default_rng(9), 2, 3)
    outputs[..., :4] = 2 * outputs[..., :4] - 0.5  # some beyond the image
    task, _ = made(sequential)
    assert isinstance(task, Task)
    assert (task.outputs, task.monitor, task.mode) == (5 + K, "f1", "max")
    got = np.asarray(compiled(task.predict)(jnp.asarray(outputs)))
    assert got.shape == (2, 3, Q, 6) and got.dtype == np.float32
    for place in np.ndindex(2, 3):
        before = 1.0
        for q, said in enumerate(outputs[place]):
            exists = sigmoid(said[4])
            before = before * exists if sequential else exists
            p = softmax(said[5:])
            inside = [min(max(v, 0), 1) for v in said[:4]] * SCALE
            wanted = [*inside, before * p.max(), p.argmax()]
            # float32 rounding of pixels up to 10
            np.testing.assert_allclose(got[place][q], wanted, atol=1e-5)


def things_apart(rng, pictures, crowds=0.0):
    """Predictions [N, 6, 6] and targets [N, 3, 7]; no two things touch."""
    targets = np.zeros((pictures, 3, COLUMNS))
    answers = np.zeros((pictures, 6, 6))
    for n in range(pictures):
        for m in range(3):
            low = np.array([3.4 * m, 0]) + rng.random(2)
            targets[n, m, :4] = [*low, *(low + 1 + rng.random(2))]
        targets[n, :, CLASS] = rng.integers(-1, K, 3)
        targets[n, :, CROWD] = rng.random(3) < crowds
        for q in range(6):
            near = targets[n, rng.integers(3)]
            answers[n, q, :4] = near[:4] + rng.normal(size=4) * 0.12
            other = rng.random() < 0.3
            answers[n, q, 5] = rng.integers(K) if other else max(near[CLASS], 0)
    answers[..., 4] = rng.random((pictures, 6)) * 1.2 - 0.05
    return answers, targets


def meet(answer, thing):
    """Whether an answer has the class of a thing, and half or more in common."""
    width = min(answer[2], thing[2]) - max(answer[0], thing[0])
    height = min(answer[3], thing[3]) - max(answer[1], thing[1])
    both = max(width, 0) * max(height, 0)
    sizes = ((b[2] - b[0]) * (b[3] - b[1]) for b in (answer, thing))
    if thing[CROWD]:
        whole = next(sizes)
    else:
        whole = sum(sizes) - both
    return answer[5] == thing[CLASS] and both / whole >= 0.5


def test_f1_while_training_equals_a_loop():
    """Things are apart, so that no answer meets two: right ones are things met."""
    answers, targets = things_apart(np.random.default_rng(10), 40, crowds=0.2)
    outputs = np.zeros((40, 6, 5 + K))
    outputs[..., :4] = answers[..., :4] / SCALE
    score = np.clip(answers[..., 4], 1e-3, 1 - 1e-3)
    outputs[..., 4] = np.log(score / (1 - score))
    outputs[..., 5:] = 60 * np.eye(K)[answers[..., 5].astype(int)]
    mask = np.arange(40) % 3 > 0
    said = right = true = 0
    for n in np.flatnonzero(mask):
        sure, things = answers[n][score[n] >= SCORE_THRESHOLD], real_things(targets[n])
        said, true = said + len(sure), true + len(things)
        right += sum(any(meet(a, thing) for a in sure) for thing in things)
    assert 10 < right < min(said, true)
    outputs[~mask] = np.nan  # padding
    task = detection(NAMES, SIZE, sequential=False)
    data = {"targets": jnp.asarray(targets, jnp.float32), "mask": jnp.asarray(mask)}
    got = compiled(task.metrics)(jnp.asarray(outputs, jnp.float32), data)
    assert set(got) == {"loss", "f1"}
    np.testing.assert_array_equal(got["f1"], (2 * right, said + true))
    wanted = [
        least(*pair, False) for pair in zip(outputs[mask], targets[mask], strict=True)
    ]
    # float32, costs up to 100
    np.testing.assert_allclose(got["loss"], (sum(wanted), mask.sum()), rtol=1e-4)


def exact_counts(answers, targets):
    """Sure answers, right ones and things; answers within a crowd are none."""
    said = right = true = 0
    for rows, truth in zip(answers, targets, strict=True):
        free, crowds = real_things(truth), truth[truth[:, CROWD] == 1]
        true += len(free)
        for answer in sorted(
            rows[rows[:, 4] >= SCORE_THRESHOLD], key=lambda row: -row[4]
        ):
            met = [k for k, thing in enumerate(free) if meet(answer, thing)]
            if met:
                free, right = np.delete(free, met[0], 0), right + 1
            if met or not any(meet(answer, crowd) for crowd in crowds):
                said += 1
    return said, right, true


@pytest.mark.parametrize("clips", [False, True])
def test_report_equals_loops_and_coco(clips):
    answers, targets = things_apart(np.random.default_rng(11), 60, crowds=0.2)
    targets[..., HIDDEN] = np.random.default_rng(12).choice([0, 0.7], (60, 3))
    said, right, true = exact_counts(answers, targets)
    assert 20 < right < min(said, true)
    task, _ = made(True)
    shapes = ((20, 3, 6, 6), (20, 3, 3, 7)) if clips else (answers.shape, targets.shape)
    given = answers.reshape(shapes[0]), targets.reshape(shapes[1])
    np.testing.assert_array_equal(match_counts(*given), (said, right, true))
    report = task.report(*given)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["precision"] == pytest.approx(right / said)
    assert report["recall"] == pytest.approx(right / true)
    assert report["f1"] == pytest.approx(2 * right / (said + true))
    assert report["examples"] == 60 and report["classes"] == list(NAMES)
    coco = average_precision(answers, targets, K)
    for name in ("ap", "ap50", "ap75", "ar", "ar50"):
        assert report[name] == coco[name]
    for row, name, wanted in zip(
        report["per_class"], NAMES, coco["per_class"], strict=True
    ):
        assert row == {"name": name, **wanted}
    hidden = average_precision(answers, targets, K, hidden=True)
    assert report["hidden"] == {"ap50": hidden["ap50"], "ar50": hidden["ar50"]}
    assert hidden["ap50"] != coco["ap50"]
    # The answers that are sure, judged by COCO alone, find as many things.
    sure = answers.copy()
    sure[sure[..., 4] < SCORE_THRESHOLD, 4] = -1
    rows = average_precision(sure, targets, K)["per_class"]
    found = sum(row["ar50"] * row["things"] for row in rows)
    assert found == pytest.approx(right)

    (ax,) = task.figures(*given)["precision_recall"].axes
    curves = average_precision(answers, targets, K, curves=True)["curves"]
    for line, at in zip(ax.lines, (0, 5, 8), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), curves[at])


def test_nothing_to_find_and_nothing_found():
    answers, targets = things_apart(np.random.default_rng(13), 3)
    task, _ = made(True)
    targets[..., CLASS] = np.abs(targets[..., CLASS])
    nobody, nothing = answers.copy(), targets.copy()
    nobody[..., 4], nothing[..., CLASS] = -1, -1
    names = ("ap", "precision", "recall", "f1")
    report = task.report(nobody, nothing)
    assert [report[name] for name in names] == [None] * 4
    report = task.report(nobody, targets)
    assert [report[name] for name in names] == [0, None, 0, 0]
    report = task.report(answers, nothing)
    assert [report[name] for name in names] == [None, 0, None, 0]


def test_refusals_name_the_mistake():
    with pytest.raises(ValueError, match="0 classes in images of 8x10"):
        detection((), SIZE, sequential=True)
    with pytest.raises(ValueError, match="3 classes in images of 0x10"):
        detection(NAMES, (0, 10), sequential=True)
    task, _ = made(True)
    data = {"targets": jnp.zeros((2, M, COLUMNS)), "mask": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"outputs \(2, 5, 7\) do not fit"):
        task.loss(jnp.zeros((2, Q, 7)), data)
    with pytest.raises(ValueError, match="3 predictions for 3 objects and the stop"):
        task.loss(jnp.zeros((2, M, 5 + K)), data)
    with pytest.raises(ValueError, match=r"mask has shape \(1,\), expected \(2,\)"):
        task.loss(jnp.zeros((2, Q, 5 + K)), data | {"mask": jnp.ones(1)})
    answers, targets = things_apart(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match=r"shape \(2, 6, 6\) for targets \(3, 3, 7\)"):
        task.report(answers[:2], targets)
    answers[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="1 of . predictions hold NaN"):
        task.report(answers, targets)
