"""Every cell of the table, on every engine, keeps every promise of `unroll`."""

import re
from functools import cache, partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import AS_FOR_USERS, CASES, RANDOM, READINGS, B, T
from selection import slow, slow_but, slow_unless

from lstm_jax import bidirectional, lstm, unroll
from lstm_jax.cell import at_least_float32
from lstm_jax.engines.platforms import ACCELERATOR

SOME = ["lstm", "lstm-everything", "gru", "conv-gru", "dropout", "composed"]
IN_NUMPY = [name for name, case in CASES.items() if case.one_step]
WHOLE = "lstm", "lstm-everything", "gru", "conv-lstm", "stack", "composed"


def real_leaves(tree):
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def outcome(name, at, flipped=False, **options):
    """Outputs, all carries, and the gradients of a number that reads all of them.

    `flipped` tells that the steps are given last to first, so that the number is the
    same.
    """

    def loss(*at):
        out = unroll(CASES[name].cell, *at, return_carries=True, **options)
        ys = out.ys.astype(at_least_float32(out.ys.dtype))
        weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
        weights = jnp.where(flipped, jnp.flip(weights, 0), weights)
        last = sum(jnp.sin(leaf).sum() for leaf in real_leaves(out.carry))
        every = sum((leaf**2).mean() for leaf in real_leaves(out.carries))
        return (ys * weights).sum() + last + every, out

    wanted = tuple(range(len(at)))
    return jax.value_and_grad(loss, wanted, has_aux=True)(*at)


def as_on_accelerators(run):
    """`run`, and in it what is lowered for GPUs and TPUs, traced for here."""

    def other_form(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "lstm_jax.engines.scan.hoists_projection",
                lambda inputs: inputs.xs is not None,
            )
            patch.setattr(
                "lstm_jax.engines.vjp.by_platform",
                lambda run, *args: run(ACCELERATOR, *args),
            )
            return run(*args)

    return other_form


@cache
def forward(name):
    """Both engines from the first step to the last, in one program."""

    def run(at, flipped, options):
        scan = outcome(name, at, flipped, engine="scan", **options)
        return scan, outcome(name, at, flipped, engine="vjp", **options)

    return jax.jit(run)


@cache
def backward(name):
    """`vjp` from the last step to the first, in both of its forms, in one program."""

    def run(at, options):
        run = partial(outcome, name, engine="vjp", reverse=True, **options)
        return run(at, remat="step"), as_on_accelerators(run)(at)

    return jax.jit(run)


def flip(tree):
    return jax.tree.map(lambda leaf: np.flip(leaf, 0), tree)


def flipped(at, options):
    """The problem that, read forward, is this one in reverse."""
    params, xs, carry = at
    within = np.arange(T)[:, None] < options["lengths"]
    # A sequence ends before the step that starts the next.
    starts = np.roll(options["resets"] & within, -1, axis=0)
    starts[-1] = False
    told = {"mask": flip(options["mask"] & within), "resets": flip(starts)}
    return (params, flip(xs), carry), conformance.arguments() | told


def flip_outcome(found):
    (value, out), (d_params, d_xs, d_carry) = found
    out = out._replace(ys=flip(out.ys), carries=flip(out.carries))
    return (value, out), (d_params, flip(d_xs), d_carry)


@cache
def outcomes(name, reading, reverse):
    """What a reading of a case gives: `(scan, what equals it)`.

    In reverse, that of `scan` is of the flipped problem.
    """
    at, options = conformance.problem(name), conformance.arguments(reading)
    if not reverse:
        scan, vjp = forward(name)(at, False, options)
        return scan, [vjp]
    scan, _ = forward(name)(flipped(at, options)[0], True, flipped(at, options)[1])
    return flip_outcome(scan), backward(name)(at, options)


def assert_close(got, wanted, rtol=1e-10, atol=1e-11):
    """The same sums in another order, in float64."""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), got, wanted)


def assert_equals_the_numpy_loop(out, name, at, options, reverse):
    ys, states = conformance.reading_in_numpy(name, *at, options, reverse)
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(out.ys, ys, atol=1e-10)
    leaves = jax.tree.leaves(out.carries), jax.tree.leaves(out.carry), states
    for carries, last, wanted in zip(*leaves, strict=True):
        np.testing.assert_allclose(carries, wanted, atol=1e-10)
        np.testing.assert_array_equal(last, carries[0 if reverse else -1])


def cells_read(names):
    """`name, reverse, reading`: `WHOLE` in every way, the others in the hardest."""
    return [
        slow_unless(
            name in WHOLE or (not reverse and reading == "combined"),
            *(name, reverse, reading),
        )
        for name in names
        for reverse in (False, True)
        for reading in READINGS
    ]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name, reverse, reading", cells_read(IN_NUMPY))
def test_equals_the_numpy_loop(name, reverse, reading):
    at, options = conformance.problem(name), conformance.arguments(reading)
    scan, others = outcomes(name, reading, reverse)
    for (_, out), _ in (scan, *others):
        assert_equals_the_numpy_loop(out, name, at, options, reverse)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name, reverse, reading", cells_read(CASES))
def test_engine_vjp_equals_scan(name, reverse, reading):
    scan, others = outcomes(name, reading, reverse)
    for other in others:
        assert_close(other, scan)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("name", ["lstm", slow("conv-gru")])
def test_what_is_not_asked_for_changes_nothing(name, reading, reverse):
    """Without the options that a reading lacks, and without gradients."""
    at = conformance.problem(name)
    run = partial(unroll, CASES[name].cell, reverse=reverse, return_carries=True)
    out = jax.jit(run)(*at, **READINGS[reading])
    assert_equals_the_numpy_loop(out, name, at, READINGS[reading], reverse)


WAYS = {
    "as it is": {},
    "reverse": {"reverse": True},
    "reverse combined": {"reverse": True, "reading": "combined"},
    "step": {"remat": "step"},
    "pieces": {"remat": 4},
    "combined reverse pieces": {"reading": "combined", "reverse": True, "remat": 4},
    "combined root": {"reading": "combined", "remat": "sqrt"},
    "truncated": {"tbptt_steps": 4},
    "combined reverse truncated": {
        "reading": "combined",
        "reverse": True,
        "tbptt_steps": 4,
        "remat": 2,
    },
}


QUICK_WAYS = [
    ("lstm", "as it is"),
    ("lstm", "combined reverse pieces"),
    ("lstm", "combined reverse truncated"),
    ("conv-gru", "as it is"),
    ("composed", "as it is"),
]


def both_engines(name, at, *, reading="all", key=None, **how):
    """Outcomes of scan and of vjp, of one program, with only what is asked for."""

    def run(at, options):
        return [outcome(name, at, engine=e, **options, **how) for e in ("scan", "vjp")]

    return jax.jit(run)(at, READINGS[reading] | {"key": key})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name, way",
    [
        slow_unless((name, way) in QUICK_WAYS, name, way)
        for name in SOME
        for way in WAYS
    ],
)
def test_engine_vjp_equals_scan_in_more_ways(name, way):
    assert_close(*both_engines(name, conformance.problem(name), **WAYS[way]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", slow_but(SOME, "lstm"))
def test_engine_vjp_equals_scan_in_its_other_form(name):
    both = as_on_accelerators(partial(both_engines, name, reading="combined"))
    assert_close(*both(conformance.problem(name)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name, remat",
    [slow_unless(name != "gru", name, None) for name in ("lstm", "gru", "dropout")]
    + [slow(name, 2) for name in SOME],
)
def test_two_directions_in_one_loop_equal_one_after_the_other(name, remat, monkeypatch):
    params, xs, carry = conformance.problem(name)
    half = jax.tree.map(lambda p: 0.5 * np.asarray(p), params)
    options = READINGS["lengths"] | {"return_carries": True, "remat": remat}

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

    @as_on_accelerators
    def lower(*at):
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True)).lower(*at)

    found, loops = [], []
    for platform in ("cpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        at = params, half, xs, carry
        lowered = lower(*at)
        loops.append(lowered.as_text().count("stablehlo.while"))
        found.append(lowered.compile()(*at))
    assert_close(*found)
    assert loops[1] * 2 == loops[0]  # half the steps, one after another


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_engines_draw_the_same(name, reverse):
    options = {"key": jax.random.key(7), "reverse": reverse, "reading": "combined"}
    at = conformance.problem(name)[:2]  # the carry, too, is drawn from the key
    scan, vjp = both_engines(name, at, **options)
    assert_close(vjp, scan)
    run = jax.jit(partial(unroll, CASES[name].cell, reverse=reverse))
    quiet = run(*at, **READINGS["combined"])
    assert np.abs(np.asarray(vjp[0][1].ys - quiet.ys)).max() > 1e-3


@pytest.mark.parametrize("name", slow_but(SOME, "lstm-everything", "conv-gru"))
def test_engines_agree_in_float32(name):
    at = conformance.problem(name, jnp.float32)
    # Float32 keeps 24 bits; a few sums of a few hundred terms lose some of them.
    scan, vjp = both_engines(name, at, reading="combined")
    assert_close(vjp, scan, 1e-4, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_engines_agree_in_bfloat16(name):
    params, xs, carry = conformance.problem(name, jnp.float32)
    at = jax.tree.map(lambda p: np.asarray(p, jnp.bfloat16), params), xs, carry
    both = both_engines(name, at, reading="combined", dtype=jnp.bfloat16)
    ((_, wanted), wanted_grads), ((_, got), grads) = both
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
    run = jax.jit(partial(unroll, cell, engine="vjp"))
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


@pytest.mark.optimized
@pytest.mark.parametrize(
    "name",
    slow_but([name for name in CASES if name != "repeat"], "lstm", "zoneout"),
)
def test_the_backward_loop_copies_no_stack(name):
    """XLA copies a stack, in every step, if it cannot prove an update in place safe.

    Not for `repeat`, which has a loop over its layers after the one over time.
    """
    params, xs, _ = conformance.problem(name, jnp.float32, time=77)

    def loss(params):
        return (unroll(CASES[name].cell, params, xs, engine="vjp").ys ** 2).sum()

    gradient = jax.jit(jax.grad(loss), compiler_options=AS_FOR_USERS)
    text = gradient.lower(params).compile().as_text()
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

    def run(xs, carry):
        both = [
            jax.value_and_grad(partial(last, tbptt_steps=k))(xs, carry)
            for k in (None, 4)
        ]
        return *both, jax.grad(partial(last, tbptt_steps=4), 1)(xs[:4], carry)

    (value, whole), (cut_value, cut), first = jax.jit(run)(xs, carry)
    close = partial(np.testing.assert_allclose, atol=1e-12)
    close(cut_value, value)
    close(cut[4:], whole[4:])
    assert not np.asarray(cut[:4]).any() and np.asarray(whole[:4]).any()
    assert np.asarray(first.c).any()  # the first piece reads what was given


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_a_packed_row_equals_its_sequences_alone(engine):
    """Resets within one row, read in both directions."""
    params, xs, carry = conformance.problem("gru", time=9)
    cell = CASES["gru"].cell
    resets, hidden = np.zeros((9, B), bool), np.ones((9, B), bool)
    resets[[3, 7], 1] = True
    hidden[3, 1] = False  # the step that starts a sequence may itself be masked
    sequences = (0, 3), (3, 7), (7, 9)

    def run(xs, carry):
        def ys(*args, **options):
            return unroll(cell, params, *args, engine=engine, **options).ys

        for reverse in (False, True):
            packed = ys(xs, resets=resets, reverse=reverse)[:, 1]
            for begin, end in sequences:
                yield packed[begin:end], ys(xs[begin:end, 1], reverse=reverse)
        packed = ys(xs, carry, resets=resets, mask=hidden)
        yield packed[4:7, 1], ys(xs[4:7, 1])

    for packed, alone in jax.jit(lambda *at: list(run(*at)))(xs, carry):
        np.testing.assert_allclose(packed, alone, atol=1e-12)


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


@pytest.mark.optimized
@pytest.mark.parametrize(
    "engine, remat",
    [
        ("vjp", None),
        slow("vjp", "sqrt"),
        slow("scan", None),
    ],
)
def test_half_precision_weight_gradients_are_one_float32_sum(engine, remat):
    """bfloat16, T = 784: the published trap of gradients summed in bfloat16."""
    cell = lstm(32)
    params = jax.jit(lambda key: cell.init(key, (1,), jnp.bfloat16))(jax.random.key(0))
    xs = jax.random.uniform(jax.random.key(1), (784, 8, 1), jnp.bfloat16)

    def gradient(params, xs, engine, **options):
        def loss(params):
            ys = unroll(cell, params, xs, engine=engine, **options).ys
            return ys.astype(jnp.float32).sum()

        return jax.grad(loss)(params)["w_h"].astype(jnp.float32)

    @partial(jax.jit, compiler_options=AS_FOR_USERS)
    def error(params, xs):
        wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        exact = gradient(wide, xs.astype(jnp.float32), "scan")
        off = gradient(params, xs, engine, remat=remat) - exact
        return jnp.linalg.norm(off) / jnp.linalg.norm(exact)

    if engine == "vjp":
        # What is left is the forward pass in bfloat16 and one rounding to it, 2⁻⁹.
        assert error(params, xs) < 0.003
    else:
        assert error(params, xs) > 0.08
