"""The LSTM's options, every combination, against the NumPy step."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lstm_jax import initializers, lstm, stack, unroll
from lstm_jax.cell import step
from lstm_jax.engines.jaxpr_analysis import fused_adds, trace_step

pytestmark = pytest.mark.slow  # as a whole; the table of cells is not

T, B, F, D, P = 5, 3, 2, 4, 3
KEY = jax.random.key(0)
NAMES = ("peepholes", "layer_norm", "proj_size", "cifg")


def options(on):
    """Arguments of `lstm` for one combination of flags."""
    chosen = dict(zip(NAMES, on, strict=True))
    return chosen | {"proj_size": P if chosen["proj_size"] else None}


def label(on):
    return "-".join(n for n, flag in zip(NAMES, on, strict=True) if flag) or "plain"


def problem(cell, width=F):
    """Random params (none at its special initial value), inputs and carry."""
    rng = np.random.default_rng(0)
    params = cell.init(KEY, (width,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)
    xs = jnp.asarray(rng.standard_normal((T, B, width)))
    carry = cell.carry(params, (B,), (width,), jnp.float64)
    carry = jax.tree.map(lambda c: c + 0.5 * rng.standard_normal(c.shape), carry)
    return params, xs, carry


ALL = list(product([False, True], repeat=4))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
@pytest.mark.parametrize("on", ALL, ids=label)
def test_every_combination_equals_the_numpy_step(on, engine):
    cell = lstm(D, **options(on))
    params, xs, carry = problem(cell)
    run = jax.jit(lambda *at: unroll(cell, *at, engine=engine))
    ys, last = run(params, xs, carry)
    want_ys, states = reference.run(
        reference.lstm(**options(on)),
        jax.tree.map(np.asarray, params),
        np.asarray(xs),
        tuple(map(np.asarray, carry)),
        np.ones((T, B), bool),
    )
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(ys, want_ys, atol=1e-10)
    for got, want in zip(last, states, strict=True):
        np.testing.assert_allclose(got, want[-1], atol=1e-10)
    assert cell.equations == (None if any(on) else "lstm")


def test_the_options_reference_is_the_plain_one_without_options():
    rng = np.random.default_rng(1)
    p = {"w_x": (F, 4 * D), "w_h": (D, 4 * D), "b": (4 * D,)}
    p = {name: rng.standard_normal(shape) for name, shape in p.items()}
    state, x = (rng.standard_normal(D), rng.standard_normal(D)), rng.standard_normal(F)
    (c, h), _ = reference.lstm()(p, state, x)
    (want_c, want_h), _ = reference.lstm_step(p, state, x)
    np.testing.assert_allclose(c, want_c, atol=1e-14)  # float64, sums of two terms
    np.testing.assert_allclose(h, want_h, atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("cifg", [False, True])
def test_other_gates_and_activations(cifg):
    cell = lstm(D, gate_fn=jax.nn.hard_sigmoid, activation=jax.nn.soft_sign, cifg=cifg)
    params, xs, carry = problem(cell)
    xs = 3 * xs  # some gates reach 0 and 1
    ys, _ = unroll(cell, params, xs, carry)
    one = reference.lstm(
        gate_fn=reference.hard_sigmoid,
        activation=lambda z: z / (1 + np.abs(z)),
        cifg=cifg,
    )
    want, _ = reference.run(
        one,
        jax.tree.map(np.asarray, params),
        np.asarray(xs),
        tuple(map(np.asarray, carry)),
        np.ones((T, B), bool),
    )
    np.testing.assert_allclose(ys, want, atol=1e-10)
    assert cell.equations is None


@pytest.mark.parametrize("change", [{"gate_fn": jax.nn.relu6}, {"activation": jnp.sin}])
def test_equations_are_claimed_for_the_plain_network_only(change):
    assert lstm(D, gate_fn=jax.nn.sigmoid, activation=jnp.tanh).equations == "lstm"
    assert lstm(D, **change).equations is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
@pytest.mark.parametrize(
    "on",
    [
        (True, False, False, False),
        (False, True, False, True),
        (False, False, True, False),
        (True, True, True, False),
        (True, True, True, True),
    ],
    ids=label,
)
def test_gradients_against_central_differences(on, engine):
    cell = lstm(D, **options(on))
    at = problem(cell)

    @jax.jit
    def loss(params, xs, carry):
        ys, last = unroll(cell, params, xs, carry, engine=engine)
        weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
        return (ys * weights).sum() + sum(jnp.sin(leaf).sum() for leaf in last)

    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(*at)
    rng = np.random.default_rng(2)
    leaves, tree = jax.tree.flatten(at)
    for moved, grad in enumerate(jax.tree.leaves(grads)):  # each param by itself
        way = rng.standard_normal(grad.shape)
        values = []
        for eps in (1e-6, -1e-6):
            there = list(leaves)
            there[moved] = there[moved] + eps * way
            values.append(loss(*tree.unflatten(there)))
        # Truncation eps² times third derivatives, and rounding 1e-15 / eps.
        np.testing.assert_allclose(
            (grad * way).sum(), (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-7
        )
        assert np.abs(grad).max() > 0


@pytest.mark.parametrize("on", ALL, ids=label)
def test_a_step_in_half_precision_keeps_the_dtypes_of_its_carry(on):
    cell = lstm(D, **options(on))
    half = cell.init(KEY, (F,), jnp.bfloat16)
    assert {p.dtype for p in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}
    full = jax.tree.map(lambda p: p.astype(jnp.float32), half)
    x = jax.random.normal(KEY, (B, F))
    carry = cell.carry(full, (B,), (F,))
    carry = jax.tree.map(
        lambda c: c + jnp.linspace(-1, 1, c.size).reshape(c.shape), carry
    )
    for dtype in (jnp.float32, jnp.bfloat16):
        held = jax.tree.map(lambda c, dtype=dtype: c.astype(dtype), carry)
        new, y = step(cell, half, held, cell.project(half, x))
        assert new.c.dtype == new.h.dtype == y.dtype == dtype
    new, y = step(cell, half, carry, cell.project(half, x))
    want, want_y = step(cell, full, carry, cell.project(full, x))
    # bfloat16 rounds by 2⁻⁹, here a pre-activation of at most 4 or so, twice.
    np.testing.assert_allclose(new.c, want.c, atol=0.03)
    np.testing.assert_allclose(y, want_y, atol=0.03)


@pytest.mark.parametrize("engine", ["scan", "vjp"])
@pytest.mark.parametrize("on", [ALL[0], ALL[-1]], ids=label)
def test_half_precision_params_train_with_a_float32_carry(on, engine):
    cell = lstm(D, **options(on))
    params = cell.init(KEY, (F,), jnp.bfloat16)
    xs = jax.random.normal(KEY, (T, B, F))

    @jax.jit
    @jax.grad
    def grad(params, carry):
        ys, carry = unroll(cell, params, xs, carry, engine=engine)
        assert ys.dtype == jnp.bfloat16
        assert carry.c.dtype == carry.h.dtype == jnp.float32
        return ys.astype(jnp.float32).sum() + carry.c.sum()

    got = grad(params, cell.carry(params, (B,), (F,)))
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    assert {g.dtype for g in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}

    @jax.jit
    @jax.grad
    def exact(params):
        ys, carry = unroll(cell, params, xs)
        return ys.sum() + carry.c.sum()

    want = exact(wide)
    for name, g in got.items():
        error = jnp.linalg.norm(g.astype(jnp.float32) - want[name])
        # Roundings of 2⁻⁹ in each of T steps; a norm over a c that is still small
        # magnifies them.
        assert error < 0.1 * jnp.linalg.norm(want[name]) + 1e-3, name


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("on", ALL, ids=label)
def test_no_input_is_an_input_of_zeros(on):
    cell = lstm(D, **options(on))
    params, xs, carry = problem(cell)
    zero = cell.project(params, jnp.zeros_like(xs[0]))
    free = cell.project(params, None)
    (c, h), _ = step(cell, params, carry, free)
    (want_c, want_h), _ = step(cell, params, carry, zero)
    np.testing.assert_allclose(c, want_c, atol=1e-12)
    np.testing.assert_allclose(h, want_h, atol=1e-12)


def test_the_plain_step_costs_what_its_equations_say():
    cell = lstm(D)
    params = cell.init(KEY, (F,))
    carry = cell.carry(params, (B,), (F,))
    u = cell.project(params, jnp.ones((B, F)))
    jaxpr = jax.make_jaxpr(lambda *a: step(cell, *a))(params, carry, u).jaxpr
    names = sorted(
        eqn.params["name"] if "name" in eqn.params else eqn.primitive.name
        for eqn in jaxpr.eqns
    )
    # The product; u + a; three gates and two tanh; f c, i g, their sum, o tanh(c).
    want = ["add"] * 2 + ["mul"] * 3 + ["tanh"] * 2 + ["dot_general", "split"]
    logistic = [n for n in names if n in ("sigmoid", "logistic")]
    assert len(logistic) == 3
    assert sorted(n for n in names if n not in logistic) == sorted(want)


def test_the_plain_step_reads_u_only_in_a_sum():
    """The engine then keeps one array for the gradients of both."""
    cell = lstm(D)
    params = cell.init(KEY, (F,))
    carry = cell.carry(params, (B,), (F,))
    a = cell.recur(params, carry)
    assert fused_adds(trace_step(cell.gates, params, carry, a, a)) == [0]
    _, pull = jax.vjp(lambda u, a: cell.gates(params, carry, u, a), a, a)
    d_u, d_a = pull(jax.tree.map(jnp.ones_like, (carry, carry.h)))
    assert d_u.any()
    np.testing.assert_array_equal(d_u, d_a)


def test_a_coupled_gate_starts_with_the_same_forgetting():
    plain, cifg = lstm(D, forget_bias=1.5), lstm(D, forget_bias=1.5, cifg=True)
    b, tied = plain.init(KEY, (F,))["b"], cifg.init(KEY, (F,))["b"]
    np.testing.assert_array_equal(tied, np.repeat([-1.5, 0, 0], D))
    forget = jax.nn.sigmoid(b[D : 2 * D])
    np.testing.assert_allclose(1 - jax.nn.sigmoid(tied[:D]), forget, atol=1e-7)


@pytest.mark.parametrize("cifg", [False, True])
@pytest.mark.parametrize(
    "drawn", [initializers.chrono(784), initializers.uniform_gate()]
)
def test_a_drawn_forget_bias_sets_the_input_bias_to_its_negative(drawn, cifg):
    b = lstm(D, forget_bias=drawn, cifg=cifg).init(KEY, (F,))["b"]
    assert len(np.unique(b[:D])) == D
    if not cifg:
        np.testing.assert_array_equal(b[:D], -b[D : 2 * D])
    assert not b[-2 * D :].any()


def test_a_stack_of_projected_cells_fits_together():
    both = stack(lstm(D, proj_size=P), lstm(6, proj_size=2, peepholes=True))
    params = both.init(KEY, (F,))
    assert params[1]["w_x"].shape == (P, 24) and params[1]["w_p"].shape == (6, 2)
    ys, (low, high) = unroll(both, params, jnp.ones((T, B, F)))
    assert ys.shape == (T, B, 2) and low.h.shape == (B, P) and high.c.shape == (B, 6)


@pytest.mark.parametrize("proj_size", [0, -1, 2.5, True])
def test_a_projection_is_a_width(proj_size):
    with pytest.raises(ValueError, match=f"proj_size={proj_size}.*integer >= 1"):
        lstm(D, proj_size=proj_size)


@pytest.mark.parametrize("on", [ALL[0], ALL[-1]], ids=label)
def test_no_array_is_there_twice(on):
    """A training step that donates its params and carry needs each on its own."""
    cell = lstm(D, **options(on))
    params = cell.init(KEY, (F,))
    leaves = jax.tree.leaves((params, cell.carry(params, (B,), (F,))))
    pointers = {leaf.unsafe_buffer_pointer() for leaf in leaves}
    assert len(pointers) == len(leaves)
