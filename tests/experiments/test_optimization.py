"""Keys of their own for all that is drawn; a rate that falls where nothing improves."""

import jax
import jax.numpy as jnp
import numpy as np
from small_runs import SMALL, SMALL_MODEL

from experiments import augmentation, optimization
from experiments.config import override, preset
from experiments.experiment import Experiment
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax import tasks, training

ABOUT = DataSpec("digits", list("ab"), [8, 8, 1], 2, [0.0], [1 / 255])
CHANGES = ["translate", "rotate", "zoom", "crop", "flip", "cutout", "erase", "noise"]
APPEARANCE = ["color_jitter", "rand_augment"]


def config_of(**options):
    return override(preset("digits"), SMALL | SMALL_MODEL | options)


def test_each_change_and_the_network_draw_from_keys_of_their_own(monkeypatch):
    drawn = []

    def change(images, keys, amount):
        drawn.append(keys)
        return images

    def mixup(images, keys, amount):
        drawn.append(keys)
        return images, jnp.ones(len(images)), jnp.arange(len(images))

    def apply(self, params, batch, keys):
        drawn.append(keys)
        return jnp.zeros((len(batch["inputs"]), 2)), None

    for name in CHANGES + APPEARANCE:
        monkeypatch.setattr(training, name, change)
    monkeypatch.setattr(training, "mixup", mixup)
    monkeypatch.setattr(Experiment, "apply", apply)
    monkeypatch.setattr(training, "cutmix", mixup)
    options = dict(augment__color_jitter=0.1, augment__rand_augment=9)
    config = config_of(augment__mixup=0.4, augment__cutmix=1, **options)
    loss = Experiment(config, ABOUT).loss
    batch = dict(inputs=jnp.zeros((3, 8, 8, 1), jnp.uint8), mask=jnp.ones(3))
    keys = jax.random.split(jax.random.key(0), 3)
    loss({}, batch | dict(targets=jnp.zeros(3, jnp.int32)), keys)
    assert len(drawn) == len(CHANGES) + len(APPEARANCE) + 3
    words = jax.random.key_data(jnp.stack([keys, *drawn])).reshape(-1, 2)
    assert len(np.unique(words, axis=0)) == len(words)


def test_the_rate_falls_only_where_the_metric_is_no_better():
    config = config_of(
        optimizer__schedule="plateau",
        optimizer__schedule__patience=1,
        optimizer__schedule__decay_rate=0.5,
    )
    tx = optimization.optimizer(config, optimization.schedule(config, steps=9))
    params = {"w": jnp.zeros((2, 2))}
    goals = (
        (tasks.classification(["a", "b"]), [0.2, 0.5, 0.8]),
        (tasks.regression(), [0.8, 0.5, 0.2]),
    )
    for goal, better in goals:
        (callback,) = optimization.plateau(config, goal)
        for values, wanted in ((better, 1.0), (better[::-1], 0.25)):
            state = training.TrainState(0, params, tx.init(params), None)
            for value in values:
                state = callback.on_evaluation(state, {goal.monitor: value})
            assert training.rate_scale(state) == wanted


def test_segmentation_moves_images_and_masks_alike():
    config = override(preset("segment-digits"), dict(augment__flip=1.0))
    kind = TASKS[config.task.name]
    image = np.arange(48, dtype=np.uint8).reshape(1, 6, 8, 1)
    batch = dict(inputs=image, targets=image[..., 0] % 3)
    moved = augmentation.move(
        config, kind, batch, jax.random.split(jax.random.key(0), 1)
    )
    np.testing.assert_allclose(moved["inputs"], image[:, :, ::-1], atol=1e-3)
    np.testing.assert_array_equal(moved["targets"], batch["targets"][:, :, ::-1])
    change = augmentation.changes(config, moves=False)
    again, _ = change(moved["inputs"], jax.random.split(jax.random.key(1), 1))
    np.testing.assert_allclose(again, moved["inputs"])  # not a second time


def test_detection_moves_boxes_and_drops_those_that_leave():
    config = override(preset("detect-digits"), dict(augment__flip=1.0))
    kind = TASKS[config.task.name]
    boxes = np.float32([[[1, 2, 3, 5, 4, 0, 0.5], [0, 0, 0, 0, -1, 0, 0]]])
    batch = dict(inputs=np.zeros((1, 6, 8, 1), np.uint8), targets=boxes)
    moved = augmentation.move(
        config, kind, batch, jax.random.split(jax.random.key(0), 1)
    )
    want = [[5, 2, 7, 5, 4, 0, 0.5], boxes[0, 1]]
    np.testing.assert_allclose(moved["targets"][0, 0], want[0], atol=1e-5)
    assert moved["targets"][0, 1, 4] == -1
    affine = training.random_affine(jax.random.split(jax.random.key(0), 1))
    away = affine._replace(shift=jnp.array([[0.0, 6.0]]))
    targets = kind.moved_targets(boxes, away, (6, 8))
    assert targets[0, 0, 4] == 4  # half of it is inside
    away = affine._replace(shift=jnp.array([[0.0, 6.9]]))
    assert kind.moved_targets(boxes, away, (6, 8))[0, 0, 4] == -1
