"""Every cell of the table, on every engine, keeps every promise of `unroll`."""

import re
from functools import partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import CASES, RANDOM, READINGS, B, T, jit

from lstm_jax import bidirectional, lstm, unroll
from lstm_jax.cell import at_least_float32
from lstm_jax.engines.forms import ACCELERATOR

SOME = ["lstm", "lstm-everything", "gru", "conv-gru", "dropout", "composed"]
IN_NUMPY = [name for name, case in CASES.items() if case.one_step]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("name", IN_NUMPY)
def test_equals_the_numpy_loop(name, reading, reverse):
    params, xs, carry = conformance.problem(name)
    options = READINGS[reading]
    got = jit(
        lambda p, x, c: unroll(
            CASES[name].cell, p, x, c, reverse=reverse, return_carries=True, **options
        )
    )(params, xs, carry)
    ys, states = conformance.reading_in_numpy(name, params, xs, carry, options, reverse)
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(got.ys, ys, atol=1e-10)
    leaves = jax.tree.leaves(got.carries), jax.tree.leaves(got.carry), states
    for carries, last, wanted in zip(*leaves, strict=True):
        np.testing.assert_allclose(carries, wanted, atol=1e-10)
        np.testing.assert_array_equal(last, carries[0 if reverse else -1])


WAYS = {
    "as it is": {},
    "combined reverse step": {"reading": "combined", "reverse": True, "remat": "step"},
}
MORE_WAYS = {
    "reverse": {"reverse": True},
    "combined": {"reading": "combined"},
    "step": {"remat": "step"},
    "lengths": {"reading": "lengths"},
    "mask reverse": {"reading": "mask", "reverse": True},
    "resets": {"reading": "resets"},
    "resets reverse": {"reading": "resets", "reverse": True},
    "pieces": {"remat": 4},
    "combined reverse pieces": {"reading": "combined", "reverse": True, "remat": 4},
    "combined root": {"reading": "combined", "remat": "sqrt"},
    "truncated": {"truncate": 4},
    "combined reverse truncated": {
        "reading": "combined",
        "reverse": True,
        "truncate": 4,
        "remat": 2,
    },
}


def real_leaves(tree):
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def outcome(name, engine, at, *, reading="all", **options):
    """Outputs, all carries, and the gradients of a number that reads all of them."""
    options |= READINGS[reading] | {"engine": engine, "return_carries": True}

    def loss(*at):
        out = unroll(CASES[name].cell, *at, **options)
        ys = out.ys.astype(at_least_float32(out.ys.dtype))
        weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
        last = sum(jnp.sin(leaf).sum() for leaf in real_leaves(out.carry))
        every = sum((leaf**2).mean() for leaf in real_leaves(out.carries))
        return (ys * weights).sum() + last + every, out

    wanted = tuple(range(len(at)))
    return jit(jax.value_and_grad(loss, wanted, has_aux=True))(*at)


def assert_engines_agree(name, at, rtol, atol, **options):
    wanted, got = (outcome(name, engine, at, **options) for engine in ("scan", "vjp"))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), got, wanted)


@pytest.fixture
def as_on_accelerators(monkeypatch):
    """What is lowered for GPUs and TPUs, run here."""
    monkeypatch.setattr(
        "lstm_jax.engines.scan.projects_together", lambda steps: steps.xs is not None
    )
    monkeypatch.setattr(
        "lstm_jax.engines.vjp.by_platform", lambda run, *args: run(ACCELERATOR, *args)
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_engine_vjp_equals_scan(name, way):
    # The same sums in another order, in float64.
    assert_engines_agree(name, conformance.problem(name), 1e-10, 1e-11, **WAYS[way])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("way", MORE_WAYS)
@pytest.mark.parametrize("name", SOME)
def test_engine_vjp_equals_scan_in_more_ways(name, way):
    assert_engines_agree(
        name, conformance.problem(name), 1e-10, 1e-11, **MORE_WAYS[way]
    )


@pytest.mark.usefixtures("x64", "as_on_accelerators")
@pytest.mark.parametrize(
    "name, way",
    [(name, "reverse") for name in CASES] + [(name, "combined") for name in SOME],
)
def test_engine_vjp_equals_scan_in_its_other_form(name, way):
    at = conformance.problem(name)
    assert_engines_agree(name, at, 1e-10, 1e-11, **MORE_WAYS[way])


@pytest.mark.usefixtures("x64", "as_on_accelerators")
@pytest.mark.parametrize("name", SOME)
def test_two_directions_in_one_loop_equal_one_after_the_other(name, monkeypatch):
    params, xs, carry = conformance.problem(name)
    half = jax.tree.map(lambda p: 0.5 * p, params)
    options = READINGS["lengths"] | {"return_carries": True, "remat": 2}

    def loss(*at):
        params, half, xs, carry = at
        cells, both = (CASES[name].cell,) * 2, (params, half)
        out = bidirectional(cells, both, xs, (carry, carry), **options)
        weights = jnp.cos(jnp.arange(out.ys.size, dtype=out.ys.dtype))
        last, every = (
            sum(jnp.sin(leaf).sum() for leaf in real_leaves(tree))
            for tree in (out.carry, out.carries)
        )
        return (out.ys * weights.reshape(out.ys.shape)).sum() + last + every, out

    found, loops = [], []
    for platform in ("cpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        run = jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))
        at = params, half, xs, carry
        loops.append(run.lower(*at).as_text().count("stablehlo.while"))
        found.append(run(*at))
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-11)
    jax.tree.map(close, *found)
    assert loops[1] * 2 == loops[0]  # half the steps, one after another


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_engines_draw_the_same(name, reverse):
    options = {"key": jax.random.key(7), "reverse": reverse, "reading": "combined"}
    at = conformance.problem(name)[:2]  # the carry, too, is drawn from the key
    assert_engines_agree(name, at, 1e-10, 1e-11, **options)
    quiet = outcome(name, "vjp", at)[0][1]
    drawn = outcome(name, "vjp", at, key=jax.random.key(7))[0][1]
    assert np.abs(np.asarray(drawn.ys - quiet.ys)).max() > 1e-3


@pytest.mark.parametrize("name", SOME)
def test_engines_agree_in_float32(name):
    at = conformance.problem(name, jnp.float32)
    # Float32 keeps 24 bits; a few sums of a few hundred terms lose some of them.
    assert_engines_agree(name, at, 1e-4, 1e-5, reading="combined")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_engines_agree_in_bfloat16(name):
    params, xs, carry = conformance.problem(name, jnp.float32)
    at = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), xs, carry
    options = {"reading": "combined", "dtype": jnp.bfloat16}
    (_, wanted), wanted_grads = outcome(name, "scan", at, **options)
    (_, got), grads = outcome(name, "vjp", at, **options)
    assert got.ys.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(got.carries)} == {
        jnp.dtype("float32")
    }
    # The forward pass is the same; XLA may keep more bits within one of its kernels
    # than bfloat16 has. In the backward pass scan rounds each of T sums to 8 bits.
    close = partial(np.testing.assert_allclose, rtol=0.02, atol=0.02)
    jax.tree.map(lambda a, b: close(*map(np.float32, (a, b))), got, wanted)

    def near(a, b):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        assert np.linalg.norm(a - b) <= 0.05 * np.linalg.norm(b) + 0.02

    jax.tree.map(near, grads, wanted_grads)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_vmap_a_square_batch_and_frames_equal_the_whole(name):
    """vmap over params; a batch of two axes; one step at a time with a kept carry."""
    cell = CASES[name].cell
    params, xs, carry = conformance.problem(name)
    run = jit(partial(unroll, cell, engine="vjp"))
    whole = run(params, xs, carry)
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-11)

    pair = jax.tree.map(lambda p: jnp.stack([0.5 * p, p]), params)
    close(jax.vmap(run, (0, None, None))(pair, xs, carry).ys[1], whole.ys)

    def square(x):
        return x.reshape(2, B // 2, *x.shape[1:])

    squares = jax.vmap(square)(xs), jax.tree.map(square, carry)
    close(run(params, *squares).ys.reshape(whole.ys.shape), whole.ys)

    for t in range(T):
        y, carry = run(params, xs[t : t + 1], carry)
        close(y[0], whole.ys[t])
    jax.tree.map(close, carry, whole.carry)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"repeat"}))
def test_the_backward_loop_copies_no_stack(name):
    """XLA copies a stack, in every step, if it cannot prove an update in place safe.

    Not for `repeat`, which has a loop over its layers after the one over time.
    """
    params, xs, _ = conformance.problem(name, jnp.float32, time=77)

    def loss(params):
        return (unroll(CASES[name].cell, params, xs, engine="vjp").ys ** 2).sum()

    text = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
    loops = text.split("ENTRY ")[0]
    assert "f32[77," in loops
    assert not re.findall(r"= f32\[77,\S* copy\(", loops)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_a_cut_gradient_stops_at_its_piece_and_the_carry_goes_on(engine):
    params, xs, carry = conformance.problem("lstm")
    cell = CASES["lstm"].cell

    def last(xs, carry, **options):
        return unroll(cell, params, xs, carry, engine=engine, **options).ys[-1].sum()

    whole, cut = (jax.grad(partial(last, truncate=k))(xs, carry) for k in (None, 4))
    close = partial(np.testing.assert_allclose, atol=1e-12)
    close(last(xs, carry, truncate=4), last(xs, carry))
    close(cut[4:], whole[4:])
    assert not np.asarray(cut[:4]).any() and np.asarray(whole[:4]).any()
    first = jax.grad(partial(last, truncate=4), 1)(xs[:4], carry)
    assert np.asarray(first.c).any()  # the first piece reads what was given


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_a_packed_row_equals_its_sequences_alone(engine):
    """Resets within one row, read in both directions."""
    params, xs, carry = conformance.problem("gru", time=9)
    cell = CASES["gru"].cell
    resets = np.zeros((9, B), bool)
    resets[[3, 7], 1] = True
    for reverse in (False, True):
        run = partial(unroll, cell, params, reverse=reverse, engine=engine)
        ys = run(xs, resets=resets).ys[:, 1]
        for begin, end in ((0, 3), (3, 7), (7, 9)):
            alone = run(xs[begin:end, 1]).ys
            np.testing.assert_allclose(ys[begin:end], alone, atol=1e-12)
    hidden = np.ones((9, B), bool)
    hidden[3, 1] = False  # the step that starts a sequence may itself be masked
    ys = unroll(cell, params, xs, carry, resets=resets, mask=hidden, engine=engine).ys
    alone = unroll(cell, params, xs[4:7, 1], engine=engine).ys
    np.testing.assert_allclose(ys[4:7, 1], alone, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_a_run_without_inputs(engine):
    params, _, carry = conformance.problem("lstm")
    zeros = jnp.zeros((5, B, 2))
    cell = CASES["lstm"].cell

    def loss(params, carry, xs, **options):
        out = unroll(cell, params, xs, carry, engine=engine, **options)
        return (out.ys**2).sum(), out

    grad = jax.value_and_grad(loss, (0, 1), has_aux=True)
    got, want = grad(params, carry, None, length=5), grad(params, carry, zeros)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-11), got, want)
    out = unroll(cell, params, None, length=3, lengths=np.array([3, 1]))
    assert out.ys.shape == (3, 2, 3) and not np.asarray(out.ys[1:, 1]).any()


def test_half_precision_weight_gradients_are_one_float32_sum():
    """bfloat16, T = 784: the published trap of gradients summed in bfloat16."""
    cell = lstm(32)
    params = cell.init(jax.random.key(0), (1,), jnp.bfloat16)
    xs = jax.random.uniform(jax.random.key(1), (784, 8, 1), jnp.bfloat16)

    def gradient(params, xs, engine, **options):
        def loss(params):
            ys = unroll(cell, params, xs, engine=engine, **options).ys
            return ys.astype(jnp.float32).sum()

        return jax.jit(jax.grad(loss))(params)["w_h"].astype(jnp.float32)

    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    exact = gradient(wide, xs.astype(jnp.float32), "scan")

    def error(*args, **options):
        off = gradient(params, xs, *args, **options) - exact
        return float(jnp.linalg.norm(off) / jnp.linalg.norm(exact))

    # What is left is the forward pass in bfloat16 and one rounding to it, 2⁻⁹.
    assert error("vjp") < 0.003 and error("vjp", remat="sqrt") < 0.003
    assert error("scan") > 0.08
