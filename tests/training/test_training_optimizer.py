import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_jax.training import make_optimizer, make_schedule
from lstm_jax.training.optimizer import SCHEDULES


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
        ("exponential", {"decay_rate": 0.0001}, [2, 0.2, 0.02, 0.0002]),
        ("step", {}, [2, 2, 0.2, 0.02]),
        ("step", {"decay_rate": 0.5}, [2, 2, 1, 0.5]),
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
    whole = make_schedule("restarts", 0.3, 80, cycles=4)
    one = make_schedule("cosine", 0.3, 20)
    at = np.arange(80)
    np.testing.assert_allclose(
        jax.vmap(whole)(at), jax.vmap(one)(at % 20), rtol=1e-5, atol=1e-6
    )
    assert float(whole(80)) == pytest.approx(0, abs=1e-8)


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
        (("step", 1, 9), {"decay_rate": -0.1}, "decay_rate: got -0.1"),
        (("restarts", 1, 9), {"cycles": 0}, "cycles: got 0, want 1 or more"),
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


def run(grads, weights, name="sgd", schedule=0.1, **options):
    """Each step's updates `[T, …]` of the weights, and the weights after the last."""
    tx = make_optimizer(name, schedule, **options)
    params = {k: jnp.asarray(w) for k, w in weights.items()}
    state, updates = tx.init(params), []
    with jax.numpy_dtype_promotion("standard"):  # as in the train step
        for gradient in grads:
            update, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, update)
            updates.append(update)
    return jax.tree.map(lambda *x: np.stack(x), *updates), params


def by_hand(grads, w, name, rates, momentum=0.9, nesterov=False, decay=0.0):
    """The same of one leaf, from the papers' equations in float64.

    Reference: Sutskever et al. 2013 (momentum), Tieleman & Hinton 2012 (RMSprop),
    Kingma & Ba 2015 (Adam), Dozat 2016 (Nesterov), Loshchilov & Hutter 2019 (decay).
    """
    w, m, v, updates = np.float64(w), 0.0, 0.0, []
    for t, (g, rate) in enumerate(zip(np.float64(grads), rates, strict=True), start=1):
        if name == "sgd":
            m = momentum * m + g
            direction = g + momentum * m if nesterov else m
        elif name == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            direction = g / np.sqrt(v + 1e-8)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            mean = m / (1 - 0.9**t)
            if nesterov:
                mean = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
            direction = mean / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        updates.append(-rate * (direction + decay * w))
        w = w + updates[-1]
    return np.stack(updates), w


@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize(
    "name, options",
    [
        ("sgd", {"momentum": 0.0}),
        ("sgd", {}),
        ("sgd", {"momentum": 0.5, "nesterov": True}),
        ("rmsprop", {}),
        ("adam", {}),
        ("adam", {"nesterov": True}),
        ("adamw", {}),
    ],
)
def test_optimizers_step_by_step(name, options, decay):
    """Of gradients that grow and turn; decay is decoupled, and spares biases."""
    rng = np.random.default_rng(0)
    sizes = np.float32([1e-3, 1e-2, 3.0, 0.0, -1.0, 0.1, 1.0, 1.0])
    grads = [
        {"w": s * rng.normal(size=W.shape).astype("f"), "b": s * GB} for s in sizes
    ]
    schedule = make_schedule("cosine", 0.1, 10, warmup_steps=2)
    rates = [0.1 / 3, 0.2 / 3, *(0.05 * (1 + np.cos(np.pi * np.arange(6) / 8)))]
    got, last = run(
        grads, {"w": W, "b": B}, name, schedule, weight_decay=decay, **options
    )
    for leaf, start, own in (("w", W, decay), ("b", B, 0.0)):
        each = [g[leaf] for g in grads]
        want, end = by_hand(each, start, name, rates, decay=own, **options)
        # float32: 1 - 0.999^t keeps four digits at t = 1
        np.testing.assert_allclose(got[leaf], want, rtol=3e-4, atol=1e-7)
        np.testing.assert_allclose(last[leaf], end, rtol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_the_rate_of_its_step(name):
    schedule = make_schedule(name, 0.5, 12, warmup_steps=3, cycles=3)
    (got,) = run([{"b": GB}] * 12, {"b": B}, momentum=0.0, schedule=schedule)[
        0
    ].values()
    want = [-float(schedule(t)) * GB for t in range(12)]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)  # float32


def updates(*grads, **options):
    """The updates of W and B after the last of `grads`."""
    grads = [{"w": w, "b": b} for w, b in grads]
    found = run(grads, {"w": W, "b": B}, **options)[0]
    return found["w"][-1], found["b"][-1]


def close(got, *wanted):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)  # float32


def test_clips():
    # the global norm is sqrt(0.36 + 0.64 + 5.76) = 2.6
    got = updates((GW, GB), momentum=0.0, clip=1.3)
    close(got, -0.05 * GW, -0.05 * GB)
    got = updates((GW, GB), momentum=0.0, clip=0.7, clip_by="value")
    close(got, -0.1 * np.clip(GW, -0.7, 0.7), -0.1 * np.clip(GB, -0.7, 0.7))
    got = updates((GW, GB), momentum=0.0, clip=0.1, clip_by="adaptive")
    # column norms: weights sqrt(13), gradient 1; the bias is one unit: sqrt(5), 2.4
    close(got, -0.1 * GW * 0.1 * np.sqrt(13), -0.1 * GB * 0.1 * np.sqrt(5) / 2.4)
