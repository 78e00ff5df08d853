"""Keys of their own for all that is drawn; a rate that falls where nothing improves."""

import jax
import jax.numpy as jnp
import numpy as np
from small_runs import SMALL, SMALL_MODEL

from experiments import optimization
from experiments.config import override, preset
from experiments.experiment import Experiment
from experiments.spec import DataSpec
from lstm_jax import tasks, training

ABOUT = DataSpec("digits", list("ab"), [8, 8, 1], 2, [0.0], [1 / 255])
CHANGES = ["translate", "rotate", "crop", "flip", "cutout", "noise"]


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

    for name in CHANGES:
        monkeypatch.setattr(training, name, change)
    monkeypatch.setattr(training, "mixup", mixup)
    monkeypatch.setattr(Experiment, "apply", apply)
    config = config_of(augment__mixup=0.4)
    loss = Experiment(config, ABOUT).loss
    batch = dict(inputs=jnp.zeros((3, 8, 8, 1), jnp.uint8), mask=jnp.ones(3))
    keys = jax.random.split(jax.random.key(0), 3)
    loss({}, batch | dict(targets=jnp.zeros(3, jnp.int32)), keys)
    assert len(drawn) == len(CHANGES) + 2
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
