"""What the engine finds in the jaxpr of one step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import (
    bottleneck_conv_lstm,
    conv_gru,
    conv_lstm,
    gru,
    lstm,
    stack,
    unroll,
)
from lstm_jax.cells.combinators import vmapped
from lstm_jax.engines.jaxpr_analysis import (
    contracted_params,
    read_params,
    trace_step,
)
from lstm_jax.engines.plan import large_params

KEY = jax.random.key(0)


def step_of(cell, feature_shape, batch=(2,)):
    """The params of `cell`, and its gates as a jaxpr."""
    params = jax.eval_shape(lambda: cell.init(KEY, feature_shape))
    carry = jax.eval_shape(lambda p: cell.carry(p, batch, feature_shape), params)
    xs = jax.ShapeDtypeStruct((*batch, *feature_shape), jnp.float32)
    u = jax.eval_shape(cell.project, params, xs)
    a = jax.eval_shape(cell.recur, params, carry)
    return params, trace_step(cell.gates, params, carry, u, a)


def named(params, flags):
    paths = [jax.tree_util.keystr(at) for at, _ in jax.tree.leaves_with_path(params)]
    return {p for p, flag in zip(paths, flags, strict=True) if flag}


@pytest.mark.parametrize(
    "cell, shape, contracted, others",
    [
        (lstm(3), (2,), set(), set()),
        (lstm(3, peepholes=True), (2,), set(), {"['p_i']", "['p_f']", "['p_o']"}),
        (
            lstm(3, layer_norm=True, proj_size=2),
            (2,),
            {"['w_p']"},
            {"['gain_x']", "['gain_h']", "['gain_c']", "['b']", "['b_c']"},
        ),
        (gru(3, reset_after=False), (2,), {"['w_n']"}, set()),
        (stack(lstm(3), lstm(2)), (2,), {"[1]['w_x']"}, {"[1]['b']"}),
        # As many axes as an image, and still no product reads them.
        (
            conv_lstm(2, (3, 3), peepholes="position"),
            (4, 4, 1),
            set(),
            {"['p_i']", "['p_f']", "['p_o']"},
        ),
    ],
)
def test_params_of_gates_are_those_that_a_product_contracts_and_others(
    cell, shape, contracted, others
):
    params, step = step_of(cell, shape)
    products = contracted_params(step)
    assert named(params, products) == contracted
    assert named(params, read_params(step)) == contracted | others


def test_only_what_is_large_beside_a_step_waits_for_the_loop_to_end():
    """A wrong choice changes no gradient, but the memory that one takes."""

    def large(cell, shape):
        params, step = step_of(cell, shape)
        return named(params, large_params(cell, params, step))

    assert not large(bottleneck_conv_lstm(2), (4, 4, 1))
    assert large(conv_gru(2, (3, 3), reset_after=False), (4, 4, 1)) == {"['w_n']"}
    assert large(gru(2, reset_after=False), (3,)) == {"['w_n']"}


def test_a_product_with_the_state_and_a_loop_are_seen():
    params = {"v": jnp.ones((3,)), "w": jnp.ones((3, 3)), "k": jnp.ones((3, 3))}
    params |= {"table": jnp.ones((5, 3))}

    def gates(params, carry, u, a):
        scaled = carry * params["v"]  # of a step: no operand of params alone
        y = jnp.dot(scaled, jnp.tanh(params["w"]).astype(a.dtype)) + u + a
        y, _ = jax.lax.scan(lambda y, _: (y @ params["k"], None), y, length=2)
        return carry, y + params["table"][jnp.int32(carry[:, 0])]

    x = jnp.ones((2, 3))
    step = trace_step(gates, params, x, x, x)
    found = named(params, contracted_params(step))
    assert found == {"['w']", "['k']", "['table']"}


def test_vmapped_cells_are_each_their_own():
    """On CPU, too, where time and batch would become one axis."""
    inner = lstm(3, peepholes=True)
    cell = vmapped(inner, batch_ndim=1)
    assert (inner.params_batch_ndim, cell.params_batch_ndim) == (0, 1)
    params = jax.vmap(lambda key: inner.init(key, (2,)))(jax.random.split(KEY, 2))
    params = jax.tree.map(lambda p: p + 0.1, params)
    xs = jax.random.normal(KEY, (3, 2, 2, 2))  # [T, N, B, F]

    def loss(cell, params, xs, engine="vjp"):
        return (jnp.sin(unroll(cell, params, xs, engine=engine).ys)).sum()

    got = jax.jit(jax.grad(partial(loss, cell), (0, 1)))(params, xs)
    each = jax.vmap(jax.grad(partial(loss, inner), (0, 1)), (0, 1), (0, 1))
    # The same sums in another order, of float32.
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, got, jax.jit(each)(params, xs))


@pytest.mark.parametrize("make", [lstm, gru])
def test_gates_are_traced_for_the_plan_and_once_in_each_pass(make):
    """Not once more for another platform, nor for each question about them."""
    cell, calls = make(3), []

    def gates(*args):
        calls.append(args)
        return cell.gates(*args)

    counted = cell._replace(gates=gates)
    params = cell.init(KEY, (2,))
    xs = jnp.ones((4, 2, 2))

    def loss(params):
        return unroll(counted, params, xs).ys.sum()

    program = jax.jit(jax.grad(loss)).trace(params)
    assert len(calls) == 3
    program.lower()
    assert len(calls) == 3
