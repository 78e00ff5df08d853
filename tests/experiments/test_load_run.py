"""A trained run answers with the checkpoint that its configuration chooses."""

import dataclasses

import jax
import numpy as np
import pytest
from small_runs import SMALL, SMALL_MODEL

from experiments import optimization
from experiments.choices import to_dict
from experiments.config import override, preset
from experiments.experiment import Experiment
from experiments.run.load_run import load_run
from experiments.run.sealed import write_sealed
from experiments.spec import DataSpec
from lstm_jax import training


@pytest.mark.parametrize("select, wanted", [("best", 1.0), ("last", 2.0)])
def test_the_chosen_checkpoint_answers(select, wanted, tmp_path):
    config = override(
        preset("digits"), SMALL | SMALL_MODEL | dict(test_checkpoint=select)
    )
    about = DataSpec("digits", list("ab"), [8, 8, 1], 2, [0.0], [1 / 255])
    values = to_dict(config)
    saved = dict(preset="digits", config=values, data=dataclasses.asdict(about))
    write_sealed(tmp_path / "config.json", saved)

    def blank():
        key = jax.random.key(0)
        params = Experiment(config, about).init(key)
        tx = optimization.optimizer(config, optimization.schedule(config, steps=1))
        return training.TrainState(np.int32(0), params, tx.init(params), key)

    shapes = jax.eval_shape(blank)
    with training.Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step, accuracy in ((1, 0.9), (2, 0.4)):
            tree = jax.tree.map(
                lambda leaf, n=step: np.full(leaf.shape, n, leaf.dtype),
                shapes._replace(key=None),
            )
            state = tree._replace(key=jax.random.key(0))
            checkpoints.save(step, state, values, {"accuracy": accuracy})
    params = load_run(tmp_path)[-1]
    assert jax.tree.leaves(params)
    assert all((leaf == wanted).all() for leaf in jax.tree.leaves(params))
