"""Convolutional cells against NumPy loops: windows x peepholes x norms."""

import os
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_conv
from forced_devices import forced_devices
from jax import lax
from jax.test_util import check_grads
from selection import slow, slow_unless

from lstm_jax import GRUCarry, LSTMCarry, conv_gru, conv_lstm, step, unroll

T, B, C, D = 3, 2, 2, 4
SPACE = (5, 4, 3)
KERNEL = (3, 2, 2)  # odd and even: they pad differently
KEY = jax.random.key(0)
LENGTHS = np.array([3, 1])

WINDOWS = {
    "same": {},
    "stride": {"stride": 2},
    "valid": {"padding": "VALID"},
    "dilation": {"dilation": 2},
    "stride-valid": {"stride": 2, "padding": "VALID"},
}
OPTIONS = {
    "plain": {},
    "channel": {"peepholes": "channel"},
    "position": {"peepholes": "position"},
    "norm": {"group_norm": 2},  # of the GRU; those of the LSTM come with peepholes
    "reset-before": {"reset_after": False},
    "reset-before-norm": {"reset_after": False, "group_norm": 2, "use_bias": False},
    "no-bias": {"use_bias": False},
    "channel-norm": {"peepholes": "channel", "group_norm": 4},
    "position-norm": {"peepholes": "position", "group_norm": 1},
}
MAKERS = {
    "lstm": (conv_lstm, reference_conv.conv_lstm, LSTMCarry),
    "gru": (conv_gru, reference_conv.conv_gru, GRUCarry),
}
OF_GRU = "norm", "reset-before", "reset-before-norm", "no-bias"
CASES = [
    (kind, rank, window, option)
    for kind in MAKERS
    for rank in (1, 2, 3)
    for window in WINDOWS
    for option in OPTIONS
    if (option not in OF_GRU if kind == "lstm" else "peepholes" not in OPTIONS[option])
    if option not in OF_GRU[1:] or window in ("same", "stride-valid")
    # All pairs for images. Lines and volumes share the code of all but the windows.
    if (rank == 2 or option == ("position-norm" if kind == "lstm" else "norm"))
]
# Of images every option in one window, and every window with all options at once.
QUICK = [
    (kind, rank, window, option)
    for kind, rank, window, option in CASES
    if (rank == 2 and window == "same")
    or (option in ("position-norm", "norm") and (rank == 2 or window == "stride-valid"))
]


def problem(kind="lstm", rank=2, window="same", option="plain"):
    """A cell, its NumPy step, random params, inputs and carry, in float64."""
    make, make_reference, Carry = MAKERS[kind]
    options = WINDOWS[window] | OPTIONS[option]
    space, kernel = SPACE[:rank], KERNEL[:rank]
    cell = make(D, kernel, **options)
    rng = np.random.default_rng(0)

    def drawn(tree, size):
        return jax.tree.map(
            lambda s: jnp.asarray(size * rng.standard_normal(s.shape)), tree
        )

    shapes = jax.eval_shape(lambda: cell.init(KEY, (*space, C), jnp.float64))
    params = drawn(shapes, 0.5)
    xs = jnp.asarray(rng.standard_normal((T, B, *space, C)))
    carry = drawn(cell.carry(params, (B,), (*space, C)), 1.0)
    assert isinstance(carry, Carry)
    return cell, make_reference(**options), params, xs, carry


def numpy(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kind, rank, window, option", [slow_unless(case in QUICK, *case) for case in CASES]
)
def test_equals_the_numpy_loop(kind, rank, window, option):
    cell, one_step, params, xs, carry = problem(kind, rank, window, option)
    valid = np.arange(T)[:, None] < LENGTHS
    run = jax.jit(partial(unroll, cell, lengths=LENGTHS, engine="scan"))
    ys, last = run(params, xs, carry)
    want_ys, want = reference.run(
        one_step, numpy(params), numpy(xs), tuple(numpy(carry)), valid
    )
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(ys, want_ys, atol=1e-10)
    for got, wanted in zip(last, want, strict=True):
        np.testing.assert_allclose(got, wanted[-1], atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("window", ["dilation", "stride-valid"])
@pytest.mark.parametrize("rank", [slow(1), 2, slow(3)])
def test_both_convolutions_have_the_derivatives_of_plain_ones(rank, window):
    cell, _, params, xs, carry = problem("lstm", rank, window)
    s = "XYZ"[:rank]
    axes = f"N{s}C", f"{s}IO", f"N{s}C"

    def ours(w_x, x, w_h, h):
        u = cell.project(params | {"w_x": w_x}, x)
        return u, cell.recur(params | {"w_h": w_h}, carry._replace(h=h))

    def plain(w_x, x, w_h, h):
        stride = (WINDOWS[window].get("stride", 1),) * rank
        dilation = (WINDOWS[window].get("dilation", 1),) * rank
        padding = WINDOWS[window].get("padding", "SAME")
        u = lax.conv_general_dilated(
            x, w_x, stride, padding, rhs_dilation=dilation, dimension_numbers=axes
        )
        one = (1,) * rank
        a = lax.conv_general_dilated(h, w_h, one, "SAME", dimension_numbers=axes)
        return u + params["b"], a

    def derivatives(function, at):
        out, pull = jax.vjp(function, *at)
        backward = pull(jax.tree.map(jnp.cos, out))
        return out, backward, jax.jvp(function, at, backward)[1]

    at = params["w_x"], xs[0], params["w_h"], carry.h
    got, want = (jax.jit(partial(derivatives, f))(at) for f in (ours, plain))
    for leaf, wanted in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(leaf, wanted, atol=1e-10)  # float64, other order


@pytest.mark.usefixtures("x64")
def test_second_derivatives_against_central_differences():
    cell, _, params, xs, _ = problem("lstm", 1, "stride")
    # Of a product of two, a central difference is exact but for rounding: 1e-16 / eps.
    check_grads(jax.jit(cell.project), (params, xs[0]), order=2, eps=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kind, window, option, lengths",
    [
        slow("lstm", "stride", "plain", None),
        slow("lstm", "dilation", "position", LENGTHS),
        ("lstm", "valid", "channel-norm", None),
        ("gru", "stride-valid", "norm", LENGTHS),
        ("gru", "same", "reset-before-norm", None),
    ],
)
def test_engines_have_the_same_gradients(kind, window, option, lengths):
    cell, _, *at = problem(kind, 2, window, option)

    def loss(params, xs, carry, engine):
        ys, last = unroll(cell, params, xs, carry, lengths=lengths, engine=engine)
        weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
        return (ys * weights).sum() + sum(jnp.sin(leaf).sum() for leaf in last)

    grads = [
        jax.jit(jax.grad(partial(loss, engine=engine), (0, 1, 2)))(*at)
        for engine in ("scan", "vjp")
    ]
    for got, wanted in zip(*map(jax.tree.leaves, grads), strict=True):
        assert np.abs(wanted).max() > 1e-3  # something to be equal to
        # Float64; the engines sum over time in another order.
        np.testing.assert_allclose(got, wanted, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [1, 2, slow(3)])
def test_every_convolution_of_a_backward_loop_has_the_order_that_is_fast(rank):
    cell, _, params, xs, _ = problem("lstm", rank)

    def loss(params, xs):
        return unroll(cell, params, xs, engine="scan").ys.sum()

    program = jax.jit(jax.grad(loss, (0, 1))).lower(params, xs).as_text("hlo")
    orders = re.findall(r"dim_labels=([\w>-]+)", program)
    s = "012"[:rank]
    # Two in the forward loop, in the backward loop two for data. Gradients of weights
    # are matrix products.
    assert orders == [f"b{s}f_{s}io->b{s}f"] * 4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind, option", [("lstm", "position-norm"), ("gru", "norm")])
def test_batches_of_any_rank(kind, option):
    cell, _, params, xs, _ = problem(kind, 2, "stride", option)
    run = jax.jit(partial(unroll, cell, params))
    flat = run(xs).ys
    alone = run(xs[:, 0]).ys
    square = run(jnp.stack([xs, 2 * xs], axis=2)).ys  # [T, B, 2, ...]
    # Float64, the same sums.
    np.testing.assert_allclose(alone, flat[:, 0], atol=1e-12)
    np.testing.assert_allclose(square[:, :, 0], flat, atol=1e-12)
    np.testing.assert_allclose(square[:, :, 1], run(2 * xs).ys, atol=1e-12)
    us = cell.project(params, xs)  # all steps at once, as on an accelerator
    np.testing.assert_allclose(us[1], cell.project(params, xs[1]), atol=1e-12)
    assert np.abs(us[1] - us[0]).max() > 0.1


@pytest.mark.usefixtures("x64")
def test_gradients_of_many_seeds_at_once():
    cell, _, params, xs, _ = problem("lstm", 2, "stride", "channel-norm")
    twice = jax.tree.map(lambda p: 2 * p, params)
    seeds = jax.tree.map(lambda *p: jnp.stack(p), params, twice)

    def loss(params, xs):
        return (unroll(cell, params, xs).ys ** 2).sum()

    grad = jax.grad(loss)
    together = jax.jit(jax.vmap(grad, (0, None)))(seeds, xs)
    alone = jax.jit(grad)(params, xs), jax.jit(grad)(twice, xs)
    for got, *wanted in zip(*map(jax.tree.leaves, (together, *alone)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)  # float64, the same sums


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", MAKERS)
def test_frame_by_frame_equals_the_whole(kind):
    cell, _, params, xs, carry = problem(kind, 2, "stride", "norm")
    whole = unroll(cell, params, xs, carry)
    for t in range(T):
        carry, y = step(cell, params, carry, cell.project(params, xs[t]))
        np.testing.assert_allclose(y, whole.ys[t], atol=1e-12)  # float64
    np.testing.assert_allclose(carry.h, whole.carry.h, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kind, option",
    [
        ("lstm", "channel-norm"),
        ("gru", "norm"),
        ("gru", "reset-before"),
        ("gru", "reset-before-norm"),
    ],
)
def test_no_input_equals_an_input_of_zeros(kind, option):
    cell, _, params, xs, carry = problem(kind, 2, "stride", option)
    zeros = unroll(cell, params, jnp.zeros_like(xs), carry)
    none = unroll(cell, params, None, carry, length=T)
    np.testing.assert_allclose(none.ys, zeros.ys, atol=1e-12)  # float64


@pytest.mark.parametrize(
    "kind, option, engine",
    [slow("lstm", "position-norm", "vjp"), ("gru", "norm", "scan")],
)
def test_half_precision_keeps_a_float32_carry(kind, option, engine):
    make, _, _ = MAKERS[kind]
    cell = make(D, (3, 3), stride=2, **OPTIONS[option])
    params = cell.init(KEY, (*SPACE[:2], C))
    xs = jax.random.normal(KEY, (T, B, *SPACE[:2], C))

    def loss(params, dtype):
        ys, carry = unroll(cell, params, xs, dtype=dtype, engine=engine)
        return (ys.astype(jnp.float32) ** 2).sum(), (ys, carry)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, (ys, carry)), grads = run(params, jnp.bfloat16)
    (_, (want_ys, _)), want = run(params, None)
    assert ys.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in carry} == {jnp.dtype(jnp.float32)}
    # A bfloat16 has 8 bits: errors of 2^-8, of outputs below 1, over three steps.
    np.testing.assert_allclose(ys.astype(jnp.float32), want_ys, atol=0.03)
    assert np.abs(want_ys).max() > 0.1
    for got, wanted in zip(*map(jax.tree.leaves, (grads, want)), strict=True):
        size = np.abs(wanted).max()
        np.testing.assert_allclose(got, wanted, atol=0.05 * float(size))


def test_recurrent_sums_are_float32():
    cell = conv_lstm(1, (1,))
    params = cell.init(KEY, (2, 1), jnp.bfloat16)
    params["w_h"] = jnp.full_like(params["w_h"], 1 + 2**-7)
    carry = cell.carry(params, (), (2, 1))._replace(h=jnp.full((2, 1), 1 + 2**-7))
    a = cell.recur(params, carry)
    assert a.dtype == jnp.float32
    np.testing.assert_array_equal(a, (1 + 2**-7) ** 2)  # 15 bits, exact in float32


def test_shapes_of_params_and_state():
    cell = conv_lstm(
        D,
        (3, 3),
        stride=(2, 1),
        recurrent_kernel_size=(5, 1),
        peepholes="position",
        group_norm=2,
    )
    params = cell.init(KEY, (7, 6, C))
    assert {name: p.shape for name, p in params.items()} == {
        "w_x": (3, 3, C, 4 * D),
        "w_h": (5, 1, D, 4 * D),
        "b": (4 * D,),
        "p_i": (4, 6, D),
        "p_f": (4, 6, D),
        "p_o": (4, 6, D),
        "gain_x": (4 * D,),
        "gain_h": (4 * D,),
    }
    assert cell.feature_ndim == 3 and cell.equations is None
    assert cell.carry(params, (5, 1), (7, 6, C)).h.shape == (5, 1, 4, 6, D)
    valid = conv_gru(D, (3, 3), padding="VALID", dilation=2)
    assert valid.carry(None, (), (7, 6, C)).h.shape == (3, 2, D)


@pytest.mark.parametrize("make, gates", [(conv_lstm, 4), (conv_gru, 3)])
def test_weights_are_drawn_gate_by_gate(make, gates):
    params = make(D, (3, 3)).init(KEY, (5, 5, C))
    blocks = params["w_h"].reshape(9 * D, gates, D)
    for gate in range(gates):
        gram = blocks[:, gate].T @ blocks[:, gate]
        np.testing.assert_allclose(gram, np.eye(D), atol=1e-5)  # float32
    want = [0, 1, 0, 0] if gates == 4 else [0, 0, 0]
    np.testing.assert_array_equal(params["b"], np.repeat(want, D))


@pytest.mark.usefixtures("x64")
def test_other_gates_and_activations():
    one = conv_lstm(D, (3,), gate_fn=jax.nn.hard_sigmoid, activation=jax.nn.relu)
    params = one.init(KEY, (5, C), jnp.float64)
    x = jax.random.normal(KEY, (5, C), jnp.float64)
    u = one.project(params, x)
    carry = one.carry(params, (), (5, C), jnp.float64)
    carry, y = step(one, params, carry, u)
    i, f, g, o = np.split(np.asarray(u), 4, axis=-1)
    c = reference.hard_sigmoid(i) * np.maximum(g, 0)
    np.testing.assert_allclose(carry.c, c, atol=1e-12)  # float64
    np.testing.assert_allclose(y, reference.hard_sigmoid(o) * c, atol=1e-12)
    assert c.max() > 0.1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: conv_lstm(0, (3, 3)), "features=0"),
        (lambda: conv_lstm(4, 3), r"kernel_size=3.*pass \(3, 3\) for images"),
        (lambda: conv_lstm(4, (3,) * 4), r"kernel_size=\(3, 3, 3, 3\)"),
        (lambda: conv_gru(4, (3, 0)), r"kernel_size=\(3, 0\)"),
        (lambda: conv_gru(4, (3, 3), stride=(1, 2, 3)), r"stride=\(1, 2, 3\)"),
        (lambda: conv_lstm(4, (3, 3), dilation=0), "dilation=0"),
        (lambda: conv_lstm(4, (3, 3), padding="same"), "padding='same'"),
        (lambda: conv_lstm(4, (3, 3), peepholes=True), "peepholes=True"),
        (lambda: conv_lstm(4, (3, 3), group_norm=3), "group_norm=3 must divide"),
        (
            lambda: conv_lstm(4, (3, 3), recurrent_kernel_size=(3,)),
            r"recurrent_kernel_size=\(3,\)",
        ),
        (lambda: conv_lstm(4, (3, 3)).init(KEY, (28,)), r"pass \(H, W, C\)"),
        (
            lambda: conv_lstm(4, (3, 3), padding="VALID").init(KEY, (2, 8, 1)),
            r"feature_shape=\(2, 8, 1\) leaves a state of space \(0, 6\)",
        ),
        (
            lambda: conv_gru(4, (3,)).project(
                conv_gru(4, (3,)).init(KEY, (8, 1)), jnp.ones((8, 2))
            ),
            r"xs has C=2 but w_x wants 1; .*init\(key, \(8, 2\)\)",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_peepholes_of_positions_want_images_of_one_size():
    cell = conv_lstm(D, (3, 3), stride=2, peepholes="position")
    params = cell.init(KEY, (8, 8, C))
    with pytest.raises(ValueError, match=r"space \(2, 4\).*made for \(4, 4\)"):
        unroll(cell, params, jnp.ones((T, B, 4, 8, C)))


@pytest.mark.optimized
def test_a_batch_on_many_devices_stays_where_it_is():
    code = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from lstm_jax import conv_lstm

cell = conv_lstm(4, (3, 3))
params = cell.init(jax.random.key(0), (6, 5, 2))
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
place = NamedSharding(mesh, P(None, "data"))
xs = jax.device_put(jnp.ones((3, 4, 6, 5, 2)), place)  # T, B
project = jax.jit(cell.project, out_shardings=place)
program = project.lower(params, xs).compile().as_text()
print("convolution" in program, "all-" in program or "permute" in program)
"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | forced_devices(2),
    )
    assert out.stdout.split() == ["True", "False"], out.stderr


def test_without_bias_is_with_a_bias_of_zeros():
    cell, plain = (
        conv_lstm(D, (3, 3), use_bias=False),
        conv_lstm(D, (3, 3), forget_bias=0),
    )
    params = cell.init(KEY, (4, 4, C))
    assert set(params) == {"w_x", "w_h"}
    xs = jax.random.normal(KEY, (T, B, 4, 4, C))
    with_zeros = params | {"b": jnp.zeros(4 * D)}
    wanted = unroll(plain, with_zeros, xs).ys
    np.testing.assert_array_equal(unroll(cell, params, xs).ys, wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_made_for_no_channels_it_runs_without_input(bias):
    cell = conv_lstm(D, (3, 3), use_bias=bias)
    params = cell.init(KEY, (4, 4, 0))
    assert set(params) == {"w_h", "b"} - ({"b"} if not bias else set())
    h, c = jax.random.normal(KEY, (2, B, 4, 4, D))
    ys, _ = unroll(cell, params, None, LSTMCarry(c, h), length=T)
    whole = cell.init(KEY, (4, 4, C)) | params
    wanted, _ = unroll(cell, whole, jnp.zeros((T, B, 4, 4, C)), LSTMCarry(c, h))
    np.testing.assert_allclose(ys, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="C=2 but w_x wants 0"):
        unroll(cell, params, jnp.zeros((T, B, 4, 4, C)), LSTMCarry(c, h))
