"""Plateaus, early stopping and averages of weights: by what they do to a run."""

import jax
import jax.numpy as jnp
import linear_model as linear
import numpy as np
import optax
import pytest

from lstm_jax.training import (
    Checkpoints,
    EarlyStopping,
    LambdaCallback,
    average_weights,
    data_mesh,
    fit,
    init_state,
    make_optimizer,
    make_train_step,
    rate_scale,
    scale_on_plateau,
    weights,
)
from lstm_jax.training.plateau import (
    evaluations_without_improvement,
    lower_on_plateau,
)


def start(parallel="jit", rate=0.1, **options):
    tx = make_optimizer("sgd", rate, **options)
    mesh = data_mesh(jax.devices())
    state = init_state(linear.params(), tx, jax.random.key(3), mesh)
    return state, make_train_step(linear.loss_fn, tx, mesh, parallel)


def slower(state, means):
    return lower_on_plateau(state, means["value"], factor=0.5, patience=2)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_the_rate_falls_on_a_plateau(parallel):
    """Values by hand: better, worse twice (halved), worse twice (halved), better."""
    values = iter([5.0, 5.0, 6.0, 5.0, 5.0, 1.0])
    state, step = start(parallel, plateau=True)
    rows = []
    last = fit(
        state,
        step,
        steps=6,
        batch_at=linear.batch_at,
        evaluate=lambda params: {"value": next(values)},
        eval_every=1,
        log_every=1,
        schedule=lambda count: 0.1,
        callbacks=[LambdaCallback(on_log=rows.append, on_evaluation=slower)],
    )
    rates = [row["learning_rate"] for row in rows if row["split"] == "train"]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.05, 0.05, 0.025], rtol=1e-6)
    assert rate_scale(last) == 0.25


def test_a_smaller_rate_makes_smaller_updates():
    tx = optax.chain(optax.sgd(0.1), scale_on_plateau())
    params = {"w": jnp.ones(3)}
    state = Holder(tx.init(params))
    before, _ = tx.update(params, state.opt_state, params)
    for _ in range(3):  # the first is the best so far
        state = lower_on_plateau(state, 1.0, factor=0.25, patience=2)
    after, _ = tx.update(params, state.opt_state, params)
    np.testing.assert_allclose(after["w"], 0.25 * before["w"], rtol=1e-6)


class Holder:
    """A state with nothing but the optimizer's."""

    def __init__(self, opt_state):
        self.opt_state = opt_state

    def _replace(self, opt_state):
        return Holder(opt_state)


def test_a_run_cut_on_a_plateau_goes_on_with_the_same_bits(tmp_path):
    def evaluate(params):
        return {"value": 1.0}  # never better

    def run(state, step, steps, save=None):
        return fit(
            state,
            step,
            steps=steps,
            batch_at=linear.batch_at,
            evaluate=evaluate,
            eval_every=1,
            callbacks=[LambdaCallback(on_evaluation=slower, on_save=save)],
        )

    state, step = start(plateau=True, ema=0.9)
    whole = run(state, step, 8)
    with Checkpoints(tmp_path, monitor="value") as kept:
        run(state, step, 4, lambda n, state, means: kept.save(n, state, {}, means))
        half, at, _ = kept.restore_latest(state)
    assert at == 4 and rate_scale(half) == 0.5
    resumed = run(half, step, 8)
    assert rate_scale(resumed) == rate_scale(whole) == 0.125
    for a, b in zip(
        jax.tree.leaves((resumed.params, resumed.opt_state)),
        jax.tree.leaves((whole.params, whole.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_the_average_is_that_of_its_equation():
    state, step = start(ema=0.9)
    carried, seen = step.put_state(state), []
    for number in range(5):
        carried, _ = step(carried, linear.batch_at(number))
        seen.append(np.asarray(step.get_state(carried).params["w"], np.float64))
    parts = 0.9 ** np.arange(4, -1, -1)
    wanted = np.tensordot(parts / parts.sum(), seen, 1)
    # five additions in float32
    np.testing.assert_allclose(
        weights(step.get_state(carried))["w"], wanted, rtol=2e-6, atol=1e-6
    )


def test_the_first_average_is_the_first_weights_however_slow_it_is():
    """1 - decay has one digit left in float32; the initial weights may not show."""
    tx = average_weights(1 - 1e-6)
    start = {"w": jnp.float32(100.0)}
    state = Holder(tx.init(start))
    _, state.opt_state = tx.update({"w": jnp.float32(-99.0)}, state.opt_state, start)
    # 1e-6 of the change, of an exponential in float32
    np.testing.assert_allclose(weights(state)["w"], 1.0, rtol=1e-4)


def test_the_average_is_what_is_evaluated_and_is_steadier():
    def distances(**options):
        state, step = start(rate=0.3, **options)
        found = []
        fit(
            state,
            step,
            steps=60,
            batch_at=linear.batch_at,
            evaluate=lambda params: found.append(np.asarray(params["w"])) or {},
            eval_every=1,
        )
        return np.std(found[30:], axis=0).mean()

    assert distances(ema=0.9) < 0.5 * distances()


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay: got"):
        average_weights(decay)


def test_the_run_ends_when_it_is_enough():
    values = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    saved = []
    state, step = start()
    last = fit(
        state,
        step,
        steps=50,
        batch_at=linear.batch_at,
        evaluate=lambda params: {"value": next(values)},
        eval_every=5,
        callbacks=[
            EarlyStopping("value", "min", patience=2),
            LambdaCallback(
                on_save=lambda n, state, means: saved.append(
                    (n, int(state.step), means)
                )
            ),
        ],
    )
    assert int(last.step) == 20
    assert saved[-1] == (20, 20, {"value": 2.0})


def test_waiting_against_a_loop():
    rng = np.random.default_rng(0)
    for mode, sign in (("max", 1), ("min", -1)):
        for delta in (0.0, 0.2):
            values = rng.normal(size=30).round(1).tolist()
            best, since = None, 0
            for n, value in enumerate(values, start=1):
                if best is None or sign * value > sign * best + delta:
                    best, since = value, 0
                else:
                    since += 1
                assert evaluations_without_improvement(values[:n], mode, delta) == since
    assert evaluations_without_improvement([], "max") == 0
    # a log has null for NaN
    assert evaluations_without_improvement([0.5, float("nan"), None], "max") == 2
