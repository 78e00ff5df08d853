"""Segmentation against scikit-learn and NumPy loops, with void pixels and padding."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from lstm_jax.metrics.confusion import confusion
from lstm_jax.targets import VOID
from lstm_jax.tasks import Task, segmentation
from lstm_jax.tasks.segmentation import scores

NAMES = ("background", "cup", "spoon", "plate")
K = len(NAMES)


def random_masks(rng, *shape, absent=None, void=0.1):
    """Masks and logits that are often right; one class in neither."""
    masks = rng.integers(0, K, shape)
    logits = rng.normal(size=(*shape, K)) + 1.5 * np.eye(K)[masks]
    if absent is not None:
        masks[masks == absent] = 0
        logits[..., absent] = -20
    masks[rng.random(shape) < void] = VOID
    return masks.astype(np.uint8), logits.astype(np.float32)


TASK = segmentation(NAMES)
measure, predict = jax.jit(TASK.metrics), jax.jit(TASK.predict)


def batch(targets, mask=None, lengths=None):
    mask = np.ones(len(targets)) if mask is None else mask
    result = {"targets": jnp.asarray(targets), "mask": jnp.asarray(mask, jnp.float32)}
    if lengths is not None:
        result["lengths"] = jnp.asarray(lengths, jnp.int32)
    return result


def known_pixels(targets, lengths):
    """Which pixels count, one frame at a time."""
    known = targets != VOID
    if lengths is not None:
        for row, length in zip(known, lengths, strict=True):
            row[length:] = False
    return known


def error(logits, targets, known, dice_weight):
    """The loss of one example, in float64."""
    z, labels = logits[known].astype(np.float64), targets[known].astype(int)  # [P, K]
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    entropy = -np.mean([np.log(row[k]) for row, k in zip(p, labels, strict=True)])
    dice = []
    for k in sorted(set(labels)):
        t = labels == k
        dice.append((2 * p[t, k].sum() + 1) / (p[:, k].sum() + t.sum() + 1))
    return entropy + dice_weight * (1 - np.mean(dice))


@pytest.mark.parametrize(
    "shape, lengths, dice_weight",
    [
        ((4, 5, 6), None, 1.0),
        ((4, 5, 6), None, 0.0),
        ((4, 3, 5, 4), None, 0.3),
        ((4, 3, 5, 4), (3, 1, 2, 3), 1.0),
    ],
)
def test_loss_and_metrics_equal_numpy(shape, lengths, dice_weight):
    rng = np.random.default_rng(len(shape))
    targets, logits = random_masks(rng, *shape, absent=2)
    logits[..., 2] = rng.normal(size=shape)  # the class occurs in the answers
    mask = (1, 0.5, 0, 1)
    task = segmentation(NAMES, dice_weight=dice_weight)
    assert isinstance(task, Task)
    assert (task.outputs, task.monitor, task.mode) == (K, "foreground_iou", "max")
    data = batch(targets, mask, lengths)
    got = jax.jit(task.loss)(jnp.asarray(logits), data)
    found = jax.jit(task.metrics)(jnp.asarray(logits), data)

    known, said = known_pixels(targets, lengths), logits.argmax(-1)
    loss = sum(
        m * error(*row, dice_weight)
        for m, *row in zip(mask, logits, targets, known, strict=True)
    )
    right = pixels = hits = union = 0.0
    for place in zip(*np.nonzero(known), strict=True):
        weight, true, answer = mask[place[0]], targets[place], said[place]
        right, pixels = right + weight * (true == answer), pixels + weight
        hits += weight * (true == answer != 0)
        # of the union of class k is what is k, or is said to be k
        union += weight * sum(k in (true, answer) for k in range(1, K))
    np.testing.assert_allclose(got, (loss, sum(mask)), rtol=1e-5)  # float32 sums
    np.testing.assert_allclose(found["loss"], got, rtol=1e-6)
    np.testing.assert_allclose(found["pixel_accuracy"], (right, pixels), rtol=1e-6)
    np.testing.assert_allclose(found["foreground_iou"], (hits, union), rtol=1e-6)
    assert set(found) == {"loss", "pixel_accuracy", "foreground_iou"}


def test_void_pixels_late_frames_and_padding_have_no_gradient():
    rng = np.random.default_rng(0)
    targets, logits = random_masks(rng, 3, 3, 4, 4, void=0.3)
    lengths, mask = (3, 2, 3), (1, 1, 0)
    known = known_pixels(targets, lengths)
    known[2] = False
    task = segmentation(NAMES)

    @jax.jit
    @jax.value_and_grad
    def judge(x, targets):
        return task.loss(x, batch(targets, mask, lengths))[0]

    loss, gradient = jax.tree.map(np.asarray, judge(jnp.asarray(logits), targets))
    np.testing.assert_array_equal(gradient[~known], 0)
    assert (np.abs(gradient[known]).max(-1) > 0).all()
    # ... and what is there does not matter.
    other = np.where(known, targets, VOID).astype(np.uint8)
    strange = np.where(known[..., None], logits, 50 * rng.normal(size=logits.shape))
    changed, _ = judge(jnp.asarray(strange, jnp.float32), other)
    np.testing.assert_allclose(changed, loss, rtol=1e-6)


def test_the_gradient_is_that_of_differences():
    rng = np.random.default_rng(5)
    targets, logits = random_masks(rng, 1, 3, 3)
    task = segmentation(NAMES)
    judge = jax.jit(jax.grad(lambda x: task.loss(x, batch(targets))[0]))
    gradient = np.asarray(judge(jnp.asarray(logits)))
    known, step = targets != VOID, 1e-5
    for place in np.ndindex(logits.shape):
        ends = []
        for sign in (1, -1):
            moved = logits.astype(np.float64)
            moved[place] += sign * step
            ends.append(error(moved[0], targets[0], known[0], 1.0))
        wanted = (ends[0] - ends[1]) / (2 * step)
        assert gradient[place] == pytest.approx(wanted, abs=1e-6)  # float32 rounding


def test_an_example_without_a_known_pixel_counts_for_nothing():
    rng = np.random.default_rng(1)
    targets, logits = random_masks(rng, 3, 4, 4)
    targets[1] = VOID
    lengths = (1, 1, 0)
    clips = batch(targets[:, None], lengths=lengths)
    got = measure(jnp.asarray(logits[:, None]), clips)
    known = known_pixels(targets[:, None], lengths)[0]
    alone = error(logits[:1], targets[:1], known, 1.0)
    np.testing.assert_allclose(got["loss"], (alone, 1), rtol=1e-5)  # float32 sums
    assert float(got["pixel_accuracy"][1]) == known.sum()


def test_a_clip_is_judged_as_one_tall_picture():
    rng = np.random.default_rng(2)
    targets, logits = random_masks(rng, 2, 3, 4, 5)
    tall = measure(
        jnp.asarray(logits.reshape(2, 12, 5, K)), batch(targets.reshape(2, 12, 5))
    )
    clip = measure(jnp.asarray(logits), batch(targets))
    for name, pair in clip.items():
        np.testing.assert_allclose(pair, tall[name], rtol=1e-6)


@pytest.mark.parametrize(
    "shape, absent",
    [((5, 6, 7), None), ((5, 6, 7), 0), ((5, 6, 7), 3), ((3, 2, 6, 7), 2)],
)
def test_report_equals_sklearn(shape, absent):
    rng = np.random.default_rng(shape[0])
    task = segmentation(NAMES)
    for _ in range(5):
        targets, logits = random_masks(rng, *shape, absent=absent or None)
        if absent == 0:
            targets[targets == 0] = 1  # said, but never true
        said = np.asarray(predict(jnp.asarray(logits)))
        assert said.dtype == np.uint8
        np.testing.assert_array_equal(said, logits.argmax(-1))
        report = task.report(said, targets)
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        true, answers = targets[targets != VOID], said[targets != VOID]
        occur = sorted({*true, *answers})
        if absent:
            assert absent not in occur
        options = dict(labels=range(K), average=None, zero_division=0)
        iou = metrics.jaccard_score(true, answers, **options)
        dice = metrics.f1_score(true, answers, **options)
        found = metrics.precision_score(true, answers, **options)
        recall = metrics.recall_score(true, answers, **options)
        for k, row in enumerate(report["per_class"]):
            assert (row["name"], row["pixels"]) == (NAMES[k], (true == k).sum())
            there = k in occur
            assert row["iou"] == (pytest.approx(iou[k]) if there else None)
            assert row["dice"] == (pytest.approx(dice[k]) if there else None)
            judged = k in answers
            assert row["precision"] == (pytest.approx(found[k]) if judged else None)
            judged = k in true
            assert row["recall"] == (pytest.approx(recall[k]) if judged else None)
        assert report["mean_iou"] == pytest.approx(iou[occur].mean())
        assert report["dice"] == pytest.approx(dice[occur].mean())
        accuracy = metrics.accuracy_score(true, answers)
        assert report["pixel_accuracy"] == pytest.approx(accuracy)
        front = metrics.jaccard_score(
            true, answers, labels=range(1, K), average="micro", zero_division=0
        )
        assert report["foreground_iou"] == pytest.approx(front)
        matrix = metrics.confusion_matrix(true, answers, labels=range(K))
        assert report["pixel_confusion"] == matrix.tolist()
        assert report["examples"] == shape[0]
        compiled = measure(jnp.asarray(logits), batch(targets))
        for name in ("pixel_accuracy", "foreground_iou"):
            total, count = compiled[name]
            assert report[name] == pytest.approx(float(total / count), rel=1e-6)


def test_padded_examples_change_no_metric():
    rng = np.random.default_rng(6)
    targets, logits = random_masks(rng, 4, 5, 5)
    data = batch(targets, (1, 1, 1, 0))
    few = measure(jnp.asarray(logits), data)
    logits[3] = np.nan
    many = measure(jnp.asarray(logits), data)
    for name, pair in few.items():
        np.testing.assert_array_equal(many[name], pair)
        assert np.isfinite(pair).all()


def test_confusions_are_by_example():
    rng = np.random.default_rng(3)
    targets, logits = random_masks(rng, 6, 5, 5)
    said = logits.argmax(-1)
    for found, true, answer in zip(
        confusion(said, targets, K), targets, said, strict=True
    ):
        known = true != VOID
        wanted = metrics.confusion_matrix(true[known], answer[known], labels=range(K))
        np.testing.assert_array_equal(found, wanted)


def test_nothing_known_is_no_number():
    nothing = np.full((2, 3, 3), VOID, np.uint8)
    report = segmentation(NAMES).report(np.zeros_like(nothing), nothing)
    for name in ("mean_iou", "dice", "pixel_accuracy", "foreground_iou"):
        assert report[name] is None
    assert {row["iou"] for row in report["per_class"]} == {None}
    only = scores(np.diag([5, 0, 0, 0]))
    assert (only["mean_iou"], only["foreground_iou"]) == (1, None)


def test_bars_are_the_ious():
    rng = np.random.default_rng(4)
    targets, logits = random_masks(rng, 2, 6, 6, absent=2)
    task = segmentation(NAMES)
    said = logits.argmax(-1).astype(np.uint8)
    (ax,) = task.figures(said, targets)["iou"].axes
    drawn = [bar.get_width() for bar in ax.patches]
    rows = task.report(said, targets)["per_class"]
    assert drawn == [row["iou"] or 0 for row in rows]
    words = [text.get_text() for text in ax.texts]
    assert words[2] == "does not occur" and words[1] == f"{rows[1]['iou']:.3f}"


def test_refusals_name_the_mistake():
    with pytest.raises(ValueError, match="1 classes, expected 2 to 255"):
        segmentation(("background",))
    with pytest.raises(ValueError, match="dice_weight=-1"):
        segmentation(NAMES, dice_weight=-1)
    task = segmentation(NAMES)
    targets, logits = random_masks(np.random.default_rng(0), 2, 3, 3)
    with pytest.raises(ValueError, match=r"outputs \(2, 3, 3, 3\) do not fit"):
        task.loss(jnp.asarray(logits[..., :3]), batch(targets))
    with pytest.raises(ValueError, match=r"mask has shape \(1,\), expected \(2,\)"):
        task.loss(jnp.asarray(logits), batch(targets, mask=np.ones(1)))
    with pytest.raises(ValueError, match="pixel of class 4, of 4 classes"):
        confusion(np.full((1, 2, 2), 4), np.zeros((1, 2, 2)), K)
    with pytest.raises(ValueError, match="expected the same, of 1 example or more"):
        confusion(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), K)
