"""Products in the form for a CPU: the same numbers, and the form that was meant."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import conv_lstm, lstm, unroll
from lstm_jax.engines.cpu_matmul import for_cpu


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def contracted(a_axis, b_axis, a, b):
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())))


def products(fun, *args) -> list:
    """Dimension numbers of the products in a function's jaxpr."""
    found = []

    def look(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                found.append(eqn.params["dimension_numbers"][0])
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    look(inner)

    look(jax.make_jaxpr(fun)(*args).jaxpr)
    return found


@pytest.mark.parametrize(
    "fun, shapes, other",
    [
        # Few rows meet many weights, in both directions of a step.
        (lambda x, w: x @ w, [(8, 512), (512, 512)], ((1,), (0,))),
        (partial(contracted, 1, 1), [(8, 512), (512, 512)], ((1,), (0,))),
        # Weights get their gradients: contracted over many rows, either one smaller.
        (partial(contracted, 0, 0), [(2100, 1024), (2100, 2048)], ((1,), (0,))),
        (partial(contracted, 0, 0), [(2100, 2048), (2100, 1024)], ((1,), (0,))),
        # Not these: few sums, many rows, few weights, a vector.
        (partial(contracted, 0, 0), [(256, 8), (256, 32)], None),
        (lambda x, w: x @ w, [(128, 512), (512, 512)], None),
        (lambda x, w: x @ w, [(8, 32), (32, 32)], None),
        (lambda x, w: x @ w, [(512,), (512, 512)], None),
    ],
)
def test_products_equal_in_their_other_form(fun, shapes, other):
    args = drawn(*shapes)

    def within_more(a, b):  # what stands around a product is left as it is
        return {"y": jnp.tanh(jax.jit(fun)(a, b)) + 1, "n": jnp.argmax(a), "b": b}

    got = jax.jit(for_cpu(within_more))(*args)
    # Sums of 2,100 terms at most, of float32.
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-4)
    jax.tree.map(close, got, within_more(*args))
    barriers = str(jax.make_jaxpr(for_cpu(within_more))(*args)).count(
        "optimization_barrier"
    )
    assert (barriers > 0) == (other is not None)
    if other is not None:
        assert products(for_cpu(within_more), *args) == [other]


def test_a_wide_layer_has_the_gradients_of_scan():
    cell = lstm(256)
    params = cell.init(jax.random.key(0), (256,))
    (xs,) = drawn((3, 8, 256))

    def loss(params, xs, engine):
        ys = unroll(cell, params, xs, engine=engine, lengths=np.arange(8) % 4).ys
        return (ys**2).sum()

    assert "optimization_barrier" in str(
        jax.make_jaxpr(partial(loss, engine="vjp"))(params, xs)
    )
    wanted, got = (
        jax.grad(partial(loss, engine=engine), (0, 1))(params, xs)
        for engine in ("scan", "vjp")
    )
    # Sums of 256 products of float32, in another order.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), got, wanted)


def test_a_program_exported_for_many_platforms_has_the_form_of_each():
    cell = lstm(256)
    params = cell.init(jax.random.key(0), (256,))
    (xs,) = drawn((3, 8, 256))

    def gradient(params, xs):
        return jax.grad(lambda p: (unroll(cell, p, xs).ys ** 2).sum())(params)

    lower = jax.jit(gradient).trace(params, xs).lower
    texts = {
        platform: lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu")
    }
    assert "LayoutConstraint" in texts["tpu"] and "LayoutConstraint" not in texts["cpu"]
    assert "optimization_barrier" in texts["cpu"]
    assert "optimization_barrier" not in texts["tpu"]
    exported = jax.export.export(
        jax.jit(gradient),
        platforms=("cpu", "tpu"),
        # JAX promises no other version's compiler to know it; all that we support do.
        disabled_checks=[
            jax.export.DisabledSafetyCheck.custom_call("LayoutConstraint")
        ],
    )(params, xs)
    wanted, got = gradient(params, xs), exported.call(params, xs)
    # The same program, but for what XLA fuses.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), got, wanted)


def test_weights_of_convolutions_get_products_on_cpu_alone():
    """k² of them for each kernel; elsewhere the gradient is a convolution."""
    cell = conv_lstm(2, (3, 3))
    params = cell.init(jax.random.key(0), (4, 4, 1))
    (xs,) = drawn((2, 1, 4, 4, 1))

    def gradient(params):
        return jax.grad(lambda p: (unroll(cell, p, xs).ys ** 2).sum())(params)

    lower = jax.jit(gradient).trace(params).lower
    cpu, tpu = (
        lower(lowering_platforms=(p,)).as_text().count("stablehlo.dot_general")
        for p in ("cpu", "tpu")
    )
    assert cpu == 2 * 9 and tpu == 0
