"""Runs on classes of which one is rare: weights, batches and losses."""

import jax
import numpy as np
import pytest

from experiments.config import check, override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment
from lstm_jax import data

RARE = np.repeat([0, 1], [95, 5]).astype(np.int32)


def dataset(train=RARE, classes=("common", "rare"), test=RARE):
    """Noise with a row that is brighter in the rare class."""
    rng = np.random.default_rng(0)

    def split(targets):
        pixels = rng.integers(0, 60, (len(targets), 8, 8, 1), np.uint8)
        pixels[np.flatnonzero(np.atleast_2d(targets.T)[0] == 1), 3] += 45
        return data.Split(pixels, targets)

    splits = {"train": split(train), "validation": split(test), "test": split(test)}
    return data.Dataset("made", splits, classes, ())


def experiment(made=None, **options):
    base = dict(steps=20, batch_size=20, baselines=False, augment__translate=0)
    config = check(override(preset("digits"), base | options))
    return Experiment(config, dataset=made or dataset())


def test_balanced_weights_are_measured_and_kept_with_the_run():
    made = experiment(task__class_weights="balanced", task__label_smoothing=0.0)
    assert made.spec.class_weights == pytest.approx([100 / 190, 10])
    assert experiment().spec.class_weights == []
    batch = {"targets": np.int32([0, 1]), "mask": np.ones(2, np.float32)}
    total, count = made.task.loss(np.zeros((2, 2), np.float32), batch)
    assert total / count == pytest.approx(np.log(2))
    assert count == pytest.approx(100 / 190 + 10)


def test_a_balanced_sampler_gives_every_class_equally_often():
    counts = []
    for sampler in ("shuffle", "balanced"):
        made = experiment(task__sampler=sampler, data_placement="stream")
        batches = [made.batches()(step)["targets"] for step in range(10)]
        counts.append(np.bincount(np.concatenate(batches)).tolist())
    assert counts == [[190, 10], [100, 100]]  # two epochs of 95 and 5
    # on the device the same rows are taken
    stream, resident = (
        experiment(task__sampler="balanced", data_placement=where).batches()(7)
        for where in ("stream", "resident")
    )
    np.testing.assert_array_equal(RARE[resident["rows"]], stream["targets"])


def test_the_focal_loss_is_of_its_gamma():
    logits = np.float32([[0, 2.0]])
    batch = {"targets": np.int32([0]), "mask": np.ones(1, np.float32)}
    p = np.exp(0) / (np.exp(0) + np.exp(2))
    for options, factor in (
        ({}, 1),
        ({"task.loss": "focal"}, (1 - p) ** 2),
        ({"task.loss": "focal", "task.gamma": 3.0}, (1 - p) ** 3),
    ):
        made = experiment(**{"task.label_smoothing": 0.0} | options)
        (total, _) = made.task.loss(logits, batch)
        assert total == pytest.approx(-factor * np.log(p), rel=1e-5)  # float32


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_gamma_of_no_focal_loss_is_refused(task):
    options = {"task": task, "task.gamma": 2.0}
    words = "task.gamma=2.0 has no effect on task.loss=cross_entropy; add --task.loss=f"
    with pytest.raises(UsageError, match=words):
        check(override(preset("digits"), options))
    check(override(preset("digits"), options | {"task.loss": "focal"}))


def test_labels_are_weighted_too():
    targets = np.float32([[0, 1], [0, 1], [1, 0], [0, 0]])
    made = experiment(
        dataset(targets, ("x", "y"), targets),
        **{"task": "multilabel", "task.class_weights": "balanced", "batch_size": 4},
    )
    weights = np.asarray(made.spec.class_weights)
    np.testing.assert_allclose(weights, [[4 / 6, 2], [1, 1]])
    batch = {"targets": targets, "mask": np.ones(4, np.float32)}
    assert made.task.loss(np.zeros((4, 2), np.float32), batch)[1] == pytest.approx(8)


def test_a_loss_of_another_task_is_left_when_the_task_changes():
    config = override(preset("digits-angle"), {"task.loss": "huber"})
    found = override(config, {"task": "classification"})
    assert found.task.loss == "cross_entropy"
    back = override(found, {"task": "regression"})
    assert back.task.loss == "mse"


@pytest.mark.slow
def test_a_rare_class_is_found_under_weights_or_balanced_batches():
    """After few steps the plain loss always predicts the common class."""
    from lstm_jax import training

    small = dict(model__features=8, model__layers=1, model__order="rows", steps=60)
    small |= dict(model__bidirectional=False, model__dropout=0.0)
    recalls = {}
    for options in (
        {},
        {"task.class_weights": "balanced"},
        {"task.sampler": "balanced"},
    ):
        made = experiment(**options, **small, task__label_smoothing=0.0)
        mesh = training.data_mesh(jax.devices()[:1])
        step, key = made.train_step(mesh), jax.random.key(0)
        state = training.init_state(made.init(key), made.optimizer, key, mesh)
        state = training.fit(state, step, steps=60, **made.feed())
        weights = training.weights(state)
        p = made.evaluator(mesh)(weights, made.dataset.splits["test"])[1]
        recalls[str(options)] = made.task.report(p, RARE)["per_class"][1]["recall"]
    plain, *others = recalls.values()
    assert plain < min(others), recalls
