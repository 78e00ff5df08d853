import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_jax.training import make_optimizer, make_schedule


@pytest.mark.parametrize("name", ["constant", "cosine", "exponential", "step"])
def test_warm_up_is_linear_and_ends_at_the_rate(name):
    schedule = make_schedule(name, 0.5, 100, warmup_steps=4)
    rates = [float(schedule(t)) for t in range(5)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)


# Steps 0 ... 100 at a quarter, half, end; by hand from the docstring's equations.
@pytest.mark.parametrize(
    "name, options, wanted",
    [
        ("constant", {}, [2, 2, 2, 2]),
        ("cosine", {}, [2, 1 + np.sqrt(0.5), 1, 0]),
        ("cosine", {"end_fraction": 0.5}, [2, 1.5 + np.sqrt(0.125), 1.5, 1]),
        ("exponential", {"decay_rate": 0.0001}, [2, 0.2, 0.02, 0.0002]),
        ("exponential", {"end_fraction": 0.4}, [2, 2 * 0.1**0.25, 0.8, 0.8]),
        ("step", {}, [2, 2, 0.2, 0.02]),
        ("step", {"boundaries": (25, 26), "decay_rate": 0.5}, [2, 1, 0.5, 0.5]),
    ],
)
def test_schedule_values(name, options, wanted):
    schedule = make_schedule(name, 2.0, 100, **options)
    got = jax.vmap(schedule)(jnp.array([0, 25, 50, 100]))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
    assert got.dtype == jnp.float32


def test_one_cycle_is_that_of_optax():
    ours = make_schedule("one_cycle", 0.3, 200)
    theirs = optax.cosine_onecycle_schedule(200, 0.3)
    at = jnp.arange(200)
    # float32 rounding of cosines, next to a last rate of 1e-6
    with jax.numpy_dtype_promotion("standard"):
        wanted = jax.vmap(theirs)(at)
    np.testing.assert_allclose(jax.vmap(ours)(at), wanted, rtol=1e-5, atol=3e-7)


def test_restarts_are_cosines_one_after_another():
    whole = make_schedule("restarts", 0.3, 80, cycles=4, end_fraction=0.1)
    one = make_schedule("cosine", 0.3, 20, end_fraction=0.1)
    at = np.arange(80)
    np.testing.assert_allclose(
        jax.vmap(whole)(at), jax.vmap(one)(at % 20), rtol=1e-5, atol=1e-6
    )
    assert float(whole(80)) == pytest.approx(0.03)


def test_cosine_after_the_warm_up_and_beyond_the_end():
    schedule = make_schedule("cosine", 1.0, 110, warmup_steps=10)
    np.testing.assert_allclose(schedule(60), 0.5, rtol=1e-5)
    assert float(schedule(500)) == 0


@pytest.mark.parametrize(
    "args, options, words",
    [
        (("cosin", 1, 9), {}, "'cosin', .*did you mean 'cosine'"),
        (("zzz", 1, 9), {}, "want one of constant, .*, restarts, plateau$"),
        (("step", -1, 9), {}, "learning_rate: got -1, want 0 or more"),
        (("step", float("nan"), 9), {}, "learning_rate: got nan"),
        (("step", 1, 0), {}, "steps: got 0, want at least 1"),
        (("step", 1, 9), {"warmup_steps": -2}, "warmup_steps: got -2"),
        (("step", 1, 9), {"warmup_steps": 9}, "got 9, want less than steps=9"),
        (("cosine", 1, 9), {"end_fraction": 2}, "got 2, want at most 1"),
        (("cosine", 1, 9), {"end_fraction": -0.1}, "end_fraction: got -0.1"),
        (("step", 1, 9), {"decay_rate": -0.1}, "decay_rate: got -0.1"),
        (("restarts", 1, 9), {"cycles": 0}, "cycles: got 0, want 1 or more"),
        (
            ("step", 1, 9),
            {"boundaries": (2, 5), "warmup_steps": 3},
            r"boundaries: got \[2, 5\], want steps after warmup_steps=3",
        ),
    ],
)
def test_schedule_refuses(args, options, words):
    with pytest.raises(ValueError, match=words):
        make_schedule(*args, **options)


@pytest.mark.parametrize(
    "args, options, words",
    [
        (("adm",), {}, "optimizer: got 'adm', .*did you mean 'adam'"),
        (("sgd",), {"clip_by": "norm"}, "clip_by: .*did you mean 'global_norm'"),
        (("sgd",), {"momentum": -1}, "momentum: got -1"),
        (("sgd",), {"momentum": 1.0}, "momentum: got 1.0, want less than 1"),
        (("sgd",), {"weight_decay": -1}, "weight_decay: got -1"),
        (("sgd",), {"clip": 0.0}, "clip: got 0.0, want more than 0"),
    ],
)
def test_optimizer_refuses(args, options, words):
    with pytest.raises(ValueError, match=words):
        make_optimizer(*args, 0.1, **options)


def test_optimizer_refuses_a_negative_rate():
    with pytest.raises(ValueError, match="learning_rate: got -0.1"):
        make_optimizer("sgd", -0.1)


W, B = np.array([[3.0, -1.0], [2.0, 0.5]], "f"), np.array([1.0, -2.0], "f")
GW, GB = np.array([[0.6, 0.0], [-0.8, 0.0]], "f"), np.array([0.0, 2.4], "f")


def updates(*grads, name="sgd", **options):
    """The updates of W and B after each of `grads`."""
    params = {"w": jnp.asarray(W), "b": jnp.asarray(B)}
    tx = make_optimizer(name, make_schedule("constant", 0.1, 100), **options)
    state = tx.init(params)
    with jax.numpy_dtype_promotion("standard"):  # as in the train step
        for gw, gb in grads:
            update, state = tx.update({"w": gw, "b": gb}, state, params)
    return update["w"], update["b"]


def close(got, *wanted):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)  # adam's epsilon


def test_sgd_and_momentum():
    close(updates((GW, GB), momentum=0.0), -0.1 * GW, -0.1 * GB)
    twice = [(GW, GB), (GW, GB)]
    close(updates(*twice, momentum=0.5), -0.15 * GW, -0.15 * GB)
    nesterov = updates(*twice, momentum=0.5, nesterov=True)
    close(nesterov, -0.175 * GW, -0.175 * GB)  # g + 0.5 (g + 0.5 g)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_starts_with_the_sign(name):
    close(updates((GW, GB), name=name), -0.1 * np.sign(GW), -0.1 * np.sign(GB))


def test_rmsprop():
    # v = 0.1 g^2 after one step of decay 0.9: g / sqrt(v) = sign(g) sqrt(10)
    root = np.sqrt(10)
    close(
        updates((GW, GB), name="rmsprop"),
        -0.1 * root * np.sign(GW),
        -0.1 * root * np.sign(GB),
    )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_weight_decay_is_decoupled_and_spares_biases(name):
    plain = updates((GW, GB), name=name)
    decayed = updates((GW, GB), name=name, weight_decay=0.2)
    close(decayed, plain[0] - 0.1 * 0.2 * W, plain[1])


def test_clips():
    # the global norm is sqrt(0.36 + 0.64 + 5.76) = 2.6
    got = updates((GW, GB), momentum=0.0, clip=1.3)
    close(got, -0.05 * GW, -0.05 * GB)
    got = updates((GW, GB), momentum=0.0, clip=0.7, clip_by="value")
    close(got, -0.1 * np.clip(GW, -0.7, 0.7), -0.1 * np.clip(GB, -0.7, 0.7))
    got = updates((GW, GB), momentum=0.0, clip=0.1, clip_by="adaptive")
    # column norms: weights sqrt(13), gradient 1; the bias is one unit: sqrt(5), 2.4
    close(got, -0.1 * GW * 0.1 * np.sqrt(13), -0.1 * GB * 0.1 * np.sqrt(5) / 2.4)
