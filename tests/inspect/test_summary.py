"""Counted products against sums by hand, and parts of a network against its whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from selection import slow_but

from lstm_jax import conv_lstm, lstm, st_lstm, stack, unroll
from lstm_jax.cells import gru, readout
from lstm_jax.inspect.summary import (
    flops,
    layers,
    parameters,
    temporary_bytes,
    tree_bytes,
)
from lstm_jax.models import (
    EncoderForecaster,
    FrameEncoder,
    FrameForecaster,
    SequenceClassifier,
    sequences,
)

T, B, F, D = 7, 3, 5, 4


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize("remat", [None, "step", "sqrt", 3])
@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_an_lstm_is_8_d_times_f_and_d_for_each_step(engine, remat):
    cell = lstm(D)
    params = cell.init(jax.random.key(0), (F,))

    def run(params, xs):
        return unroll(cell, params, xs, engine=engine, remat=remat).ys

    assert flops(run, params, array(T, B, F)) == (8 * D * (F + D) * T * B, ())
    assert flops(jax.jit(run), params, array(T, B, F)).total == 8 * D * (F + D) * T * B


def test_a_backward_pass_takes_twice_as_much_again():
    cell = lstm(D)
    params = cell.init(jax.random.key(0), (F,))

    def loss(params, xs):
        return unroll(cell, params, xs, engine="vjp").ys.sum()

    found = flops(jax.grad(loss, argnums=(0, 1)), params, array(T, B, F))
    # of weights and of inputs each as many products as forward
    assert found == (3 * 8 * D * (F + D) * T * B, ())


def test_a_convolutional_lstm_by_hand():
    cell = conv_lstm(D, (3, 5))
    params = cell.init(jax.random.key(0), (6, 8, F))
    found = flops(lambda p, x: unroll(cell, p, x).ys, params, array(T, B, 6, 8, F))
    assert found.total == 2 * (4 * D) * (F + D) * 3 * 5 * 6 * 8 * T * B


@pytest.mark.parametrize(
    "groups, stride, outputs", [(1, 1, 12), (3, 1, 12), (6, 2, 6), (1, 2, 10)]
)
def test_convolutions_by_counting_loops(groups, stride, outputs):
    xs, kernel = array(2, 9, 8, 6), array(3, 2, 6 // groups, outputs)

    def conv(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    count = 0
    for _ in np.ndindex(jax.eval_shape(conv, xs, kernel).shape):
        count += 2 * 3 * 2 * (6 // groups)  # the kernel over the channels of a group
    assert flops(conv, xs, kernel) == (count, ())


def test_products_of_batches_and_of_many_axes():
    def product(a, b):
        return jnp.einsum("bijk,bkjl->bil", a, b)

    found = flops(product, array(2, 3, 4, 5), array(2, 5, 4, 6))
    assert found.total == 2 * 2 * 3 * 6 * (4 * 5)


def product(x):
    return x @ jnp.ones((F, F))  # 2 F F


def test_loops_count_as_often_as_they_run():
    once = 2 * F * F
    x = array(1, F)
    found = flops(lambda x: lax.fori_loop(2, 9, lambda _, y: product(y), x), x)
    assert found == (7 * once, ())

    def inner(y, _):  # a scan inside of a scan
        return lax.scan(lambda z, _: (product(z), None), y, length=3)[0], None

    assert flops(lambda x: lax.scan(inner, x, length=4)[0], x) == (12 * once, ())

    def bounded(x, n):  # as long as the data say
        return lax.fori_loop(0, n, lambda _, y: product(y), jnp.zeros((1, F)))

    found = flops(bounded, x, jax.ShapeDtypeStruct((), jnp.int32))
    assert found == (once, ("while",))
    silent = flops(lambda n: lax.while_loop(lambda i: i < n, lambda i: 2 * i, 1), 9)
    assert silent == (0, ())  # no product in it


def test_calls_and_branches():
    once = 2 * F * F

    @jax.custom_vjp
    def own(x):
        return product(x)

    own.defvjp(lambda x: (own(x), None), lambda _, g: (product(product(g)),))
    x = array(1, F)
    assert flops(jax.checkpoint(jax.jit(own)), x).total == once
    # forward once, and two of its own on the way back; unless nothing reads the value
    assert flops(jax.value_and_grad(lambda x: own(x).sum()), x).total == 3 * once
    assert flops(jax.grad(lambda x: own(x).sum()), x).total == 2 * once
    assert flops(jax.vmap(own), array(6, 1, F)).total == 6 * once

    def either(x):
        return lax.cond(x[0, 0] > 0, lambda y: product(product(y)), product, x)

    assert flops(either, x).total == 2 * once


def test_the_compiler_counts_the_same_where_there_is_no_loop():
    a, b = array(30, 40), array(40, 50)
    counted = jax.jit(jnp.matmul).lower(a, b).compile().cost_analysis()
    assert flops(jnp.matmul, a, b).total == counted["flops"] == 2 * 30 * 40 * 50


def reader(**options):
    options = dict(order=sequences.rows(), cells=(lstm(D), gru(6)), outputs=3) | options
    return SequenceClassifier(**options)


CLIP = (6, 8, 8, 1)
NETWORKS = {
    "rows": (reader(), (8, 9, 2)),
    "both ways": (reader(bidirectional=True, pooling="mean", engine="vjp"), (8, 9, 2)),
    "features": (reader(order=sequences.flat_frames(), per_step=True), (7, 5)),
    "encoded": (
        reader(order=sequences.frames(), encoder=FrameEncoder()),
        (4, 16, 16, 1),
    ),
    "conv": (
        reader(order=sequences.frames(), cells=(conv_lstm(D, (3, 3)),)),
        CLIP,
    ),
    "encoder forecaster": (
        EncoderForecaster(
            cells=(conv_lstm(D, (3, 3)), conv_lstm(5, (3, 3))), horizon=2, patch=2
        ),
        CLIP,
    ),
    "stacked": (
        FrameForecaster(
            cell=readout(stack(conv_lstm(D, (3, 3))), 4, use_bias=False),
            inputs=4,
            patch=2,
        ),
        CLIP,
    ),
    "predrnn": (
        FrameForecaster(
            cell=readout(
                st_lstm(D, (3, 3), layers=2, decouple=True), 4, use_bias=False
            ),
            inputs=4,
            patch=2,
        ),
        CLIP,
    ),
}


@pytest.mark.parametrize(
    "name", slow_but(NETWORKS, "both ways", "encoded", "encoder forecaster")
)
def test_parts_add_up_to_the_network(name):
    network, shape = NETWORKS[name]
    given = (shape[0] - 2, *shape[1:]) if name == "encoder forecaster" else shape
    params = jax.eval_shape(network.init, jax.random.key(0), array(1, *given))
    params = params["params"]

    def whole(params, inputs):
        return network.apply({"params": params}, inputs, mutable=["losses"])[0]

    rows = layers(network, params, shape)
    total = flops(whole, params, array(1, *given))
    assert total.unknown == ()
    assert sum(row.flops for row in rows) == total.total > 0
    # for five examples five times as much
    five = flops(whole, params, array(5, *given)).total
    assert five == 5 * total.total
    assert sum(row.parameters for row in rows) == parameters(params)
    assert rows[-1].output[-1] == jax.eval_shape(whole, params, array(1, *given)).shape[
        -1
    ] * (4 if "head" not in params or name == "encoder forecaster" else 1)


def test_shapes_and_parameters_of_a_reader_by_hand():
    network, shape = NETWORKS["both ways"]
    params = jax.eval_shape(network.init, jax.random.key(0), array(1, *shape))
    rows = layers(network, params["params"], shape)
    lstm_size, gru_size = 4 * D * (18 + D + 1), 3 * 6 * (2 * D + 6)
    assert [(row.name, row.output) for row in rows] == [
        ("order", (8, 18)),
        ("layer_0", (8, 2 * D)),
        ("layer_1", (8, 12)),
        ("head", (3,)),
    ]
    assert rows[1].parameters == 2 * lstm_size
    assert rows[1].flops == 2 * 8 * 8 * D * (18 + D)
    assert rows[2].flops == 2 * 8 * 2 * gru_size
    assert rows[3][2:] == (12 * 3 + 3, 2 * 12 * 3)


def test_another_network_has_its_groups_listed():
    params = {"first": {"w": array(3, 4), "b": array(4)}, "second": array(5)}
    rows = layers(object(), params, (3,))
    assert [tuple(row) for row in rows] == [
        ("first", None, 16, None),
        ("second", None, 5, None),
    ]


def test_bytes():
    tree = {"a": jnp.ones((3, 2), jnp.bfloat16), "b": array(5), "c": jnp.int32(1)}
    assert tree_bytes(tree) == 12 + 20 + 4
    assert tree_bytes(jax.eval_shape(lambda: jax.random.key(0))) == 8

    def big(x):  # a product has to be kept before it can be sorted
        return jnp.sort(x @ x.T, axis=None)[::7].sum()

    size = temporary_bytes(jax.jit(big).lower(array(256, 3)).compile())
    if size is None:
        pytest.skip("this backend does not say how much memory a program takes")
    assert 256 * 256 * 4 <= size <= 8 * 256 * 256 * 4
