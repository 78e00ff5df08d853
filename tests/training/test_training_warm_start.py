"""Weights from elsewhere, and parameters that move slowly or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.training import (
    data_mesh,
    flatten_params,
    freeze,
    init_state,
    lr_multipliers,
    make_optimizer,
    make_train_step,
    warm_start,
)


def params(seed, classes=3, width=4):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "layer_0": {"w": draw(2, width), "b": draw(width)},
        "layer_1": {"w": draw(width, width), "b": draw(width)},
        "head": {"kernel": draw(width, classes), "bias": draw(classes)},
    }


def forward(params, x):
    for layer in ("layer_0", "layer_1"):
        x = jnp.tanh(x @ params[layer]["w"] + params[layer]["b"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def test_what_fits_is_loaded_and_all_is_told():
    ours, theirs = params(0), params(1, classes=5)
    theirs["layer_9"] = theirs.pop("layer_1")
    filled, about = warm_start(ours, flatten_params(theirs), columns={0: 4, 2: 1})
    np.testing.assert_array_equal(filled["layer_0"]["w"], theirs["layer_0"]["w"])
    np.testing.assert_array_equal(filled["layer_1"]["w"], ours["layer_1"]["w"])
    kernel, other = filled["head"]["kernel"], theirs["head"]["kernel"]
    np.testing.assert_array_equal(kernel[:, 0], other[:, 4])
    np.testing.assert_array_equal(kernel[:, 2], other[:, 1])
    np.testing.assert_array_equal(kernel[:, 1], ours["head"]["kernel"][:, 1])
    assert filled["head"]["bias"][2] == theirs["head"]["bias"][1]
    assert set(about.loaded) == {"layer_0/w", "layer_0/b"}
    assert set(about.resized) == {"head/kernel", "head/bias"}
    assert set(about.skipped) == {"layer_9/w", "layer_9/b"}
    assert set(about.new) == {"layer_1/w", "layer_1/b"}


def test_a_head_of_other_classes_is_matched_by_class_even_if_as_wide():
    ours, theirs = params(0), params(1)
    kernel, other = ours["head"]["kernel"], theirs["head"]["kernel"]
    filled, about = warm_start(ours, flatten_params(theirs), columns={0: 2, 2: 0})
    wanted = np.stack([other[:, 2], kernel[:, 1], other[:, 0]], -1)
    np.testing.assert_array_equal(filled["head"]["kernel"], wanted)
    assert set(about.resized) == {"head/kernel", "head/bias"}
    filled, about = warm_start(ours, flatten_params(theirs), columns={})
    np.testing.assert_array_equal(filled["head"]["kernel"], kernel)
    assert set(about.new) == {"head/kernel", "head/bias"}
    filled, about = warm_start(ours, flatten_params(theirs))
    np.testing.assert_array_equal(filled["head"]["kernel"], other)
    assert about.new == about.resized == ()


def test_other_widths_are_left_alone():
    ours = params(0)
    filled, about = warm_start(ours, flatten_params(params(1, width=8, classes=5)))
    assert about.loaded == about.resized == ()
    for path, leaf in flatten_params(filled).items():
        np.testing.assert_array_equal(leaf, flatten_params(ours)[path])


def test_factors_by_pattern_the_last_holds():
    factors = flatten_params(
        lr_multipliers(params(0), {"layer": 0.1, "layer_0/|bias": 0.0})
    )
    assert factors == {
        "layer_0/w": 0.0,
        "layer_0/b": 0.0,
        "layer_1/w": 0.1,
        "layer_1/b": 0.1,
        "head/kernel": 1.0,
        "head/bias": 0.0,
    }


@pytest.mark.parametrize(
    "pattern, words",
    [
        ("encoder", "paths begin with head, layer_0, layer_1"),
        ("(", "is not a valid regex"),
    ],
)
def test_a_pattern_that_finds_nothing_is_refused(pattern, words):
    with pytest.raises(ValueError, match=words):
        lr_multipliers(params(0), {pattern: 0})


def test_frozen_parameters_stay_and_slow_ones_take_smaller_steps():
    rates = {"layer_0": 0.0, "head": 0.25}

    def loss_fn(params, batch, keys):
        params = freeze(params, rates)
        error = (forward(params, batch["x"]) ** 2).sum(-1)
        return (error.sum(), jnp.float32(len(error))), {}

    def after(rates):
        tx = make_optimizer(
            "sgd", 0.1, weight_decay=0.3, momentum=0.0, lr_multipliers=rates
        )
        mesh = data_mesh(jax.devices())
        state = init_state(params(0), tx, jax.random.key(0), mesh)
        step = make_train_step(loss_fn, tx, mesh)
        state, _ = step(step.put_state(state), {"x": np.ones((8, 2), np.float32)})
        return flatten_params(jax.device_get(state.params))

    begin, whole, slow = flatten_params(params(0)), after(None), after(rates)
    for path in begin:
        moved, want = slow[path] - begin[path], whole[path] - begin[path]
        if path.startswith("layer_0"):
            assert (moved == 0).all()
        else:
            factor = 0.25 if path.startswith("head") else 1.0
            assert np.abs(want).max() > 1e-3
            # differences of float32 numbers around 1
            np.testing.assert_allclose(moved, factor * want, rtol=1e-4, atol=3e-7)


def test_no_backward_pass_runs_through_what_is_frozen():
    x = jnp.ones((8, 2))

    def products(rates):
        def loss(params):
            return (forward(freeze(params, rates), x) ** 2).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params(0))).count("dot_general")

    # backward: two products a layer, but none for the input of the first
    assert products({"layer": 1.0}) == 3 + 5
    assert products({"layer": 0.0}) == 3 + 1
