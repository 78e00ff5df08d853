"""Cells made of cells: what holds for every combinator, then each one's equations."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lstm_jax import (
    AutoregressiveCarry,
    RecurrentDropoutCarry,
    autoregressive,
    densely_connected,
    dropout,
    learned_carry,
    lstm,
    readout,
    recurrent_dropout,
    repeat,
    residual,
    rnn,
    stack,
    step,
    unroll,
    zoneout,
)
from lstm_jax.cell import project_step
from lstm_jax.keys import Keys

pytestmark = pytest.mark.slow  # as a whole; the table of cells is not

T, B, F = 5, 2, 3
COMBINATORS = {
    "stack": lambda cell: stack(cell, cell),
    "densely_connected": lambda cell: densely_connected(cell, cell),
    "residual": residual,
    "repeat": lambda cell: repeat(cell, 3),
    "learned_carry": learned_carry,
    "readout": lambda cell: readout(cell, F),
    "dropout": lambda cell: dropout(cell, 0.4),
    "variational": lambda cell: dropout(cell, 0.4, variational=True),
    "recurrent_dropout": lambda cell: recurrent_dropout(cell, 0.4),
    "zoneout": lambda cell: zoneout(cell, 0.4),
    "autoregressive": autoregressive,
    "sampled": lambda cell: autoregressive(cell, sampling=0.5),
    "repeat of all noise": lambda cell: repeat(
        residual(dropout(zoneout(recurrent_dropout(cell, 0.2), 0.3), 0.4)), 2
    ),
    "all of all": lambda cell: autoregressive(
        stack(learned_carry(recurrent_dropout(cell, 0.3)), zoneout(residual(cell), 0.2))
    ),
}
NOISY = [
    "dropout",
    "variational",
    "recurrent_dropout",
    "zoneout",
    "sampled",
    "repeat of all noise",
    "all of all",
]
# Every combinator is one of these or within one of these.
BOTH_ENGINES = ["densely_connected", "sampled", "repeat of all noise", "all of all"]
SINGLE = [name for name in COMBINATORS if " of " not in name]
KEY = jax.random.key(7)
# Quick to compile; `shaken` makes weights of the zeros.
ZEROS = dict(
    kernel_init=jax.nn.initializers.zeros, recurrent_init=jax.nn.initializers.zeros
)
LSTM, RNN = lstm(F, **ZEROS), rnn(F, **ZEROS)


@cache
def problem(name):
    """A combination with random params and inputs, in float64."""
    cell = COMBINATORS[name](LSTM)
    params = shaken(cell.init(jax.random.key(0), (F,), jnp.float64))
    xs = np.random.default_rng(1).standard_normal((T, B, F))
    return cell, params, jnp.asarray(xs)


def as_images(cell):
    """A cell over C as one over [H, W, C], each pixel on its own: a 1x1 convolution."""
    return cell._replace(
        init=lambda key, shape, dtype: cell.init(key, shape[-1:], dtype),
        carry=lambda params, batch_shape, shape, dtype, *, key=None: cell.carry(
            params, (*batch_shape, *shape[:-1]), shape[-1:], dtype, key=key
        ),
        feature_ndim=3,
    )


def shaken(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)


def assert_trees_equal(got, want, atol=0.0):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, atol=atol, rtol=0)


def differ(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-3


def total(run):
    """A scalar that every output and every floating leaf of the carry enters."""
    leaves = [leaf for leaf in jax.tree.leaves(run) if leaf.dtype == jnp.float64]
    return sum(
        (jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)) * leaf.ravel()).sum()
        for leaf in leaves
    )


@pytest.mark.parametrize("name", COMBINATORS)
def test_equations_are_cleared(name):
    assert lstm(F).equations == "lstm"
    assert COMBINATORS[name](lstm(F)).equations is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", COMBINATORS)
def test_frame_by_frame_equals_all_at_once(name):
    cell, params, xs = problem(name)
    start = jax.jit(lambda: cell.carry(params, (B,), (F,), jnp.float64, key=KEY))()
    keys = Keys.of(jax.random.key(3), T)

    @jax.jit
    def all_at_once(xs):
        us = cell.project(params, xs, keys=keys)
        return jax.lax.scan(partial(step, cell, params), start, us)

    @jax.jit
    def frame(carry, x, steps_t):
        u = project_step(cell, params, x, Keys(keys.per_sequence, steps_t))
        return step(cell, params, carry, u)

    carry, ys = start, []
    for t in range(T):
        carry, y = frame(carry, xs[t], keys.per_step[t])
        ys.append(y)
    # Float64 products of one row or of many round in another order.
    assert_trees_equal((carry, jnp.stack(ys)), all_at_once(xs), atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", COMBINATORS)
def test_keys_make_noise_and_the_same_key_the_same(name):
    cell, params, xs = problem(name)
    run = jax.jit(lambda key: unroll(cell, params, xs, key=key).ys)
    one, plain = run(KEY), run(None)
    if name in NOISY:
        keys = jnp.stack([KEY, jax.random.key(8)])
        same, other = jax.jit(jax.vmap(run))(keys)
        # Float64, and a batched product may round in another order.
        np.testing.assert_allclose(same, one, atol=1e-12)
        assert differ(one, other) and differ(one, plain)
    else:
        # The same, as the steps may be projected in the loop or before it.
        np.testing.assert_allclose(one, plain, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name,training", [*((n, n in NOISY) for n in COMBINATORS), ("zoneout", False)]
)
def test_gradients_against_finite_differences_and_of_both_engines(name, training):
    key = KEY if training else None
    cell, params, xs = problem(name)
    lengths = jnp.array([T, 2])

    @partial(jax.jit, static_argnums=1)
    @jax.value_and_grad
    def loss(at, engine):
        params, xs = at
        return total(unroll(cell, params, xs, key=key, lengths=lengths, engine=engine))

    at = (params, xs)
    way = shaken(jax.tree.map(jnp.zeros_like, at), seed=4)
    ahead, _ = loss(jax.tree.map(lambda a, d: a + 1e-6 * d, at, way), "scan")
    behind, _ = loss(jax.tree.map(lambda a, d: a - 1e-6 * d, at, way), "scan")
    value, grads = loss(at, "scan")
    products = jax.tree.map(lambda g, d: (g * d).sum(), grads, way)
    # Central differences in float64: truncation eps² and rounding 1e-16 / eps.
    np.testing.assert_allclose(
        sum(jax.tree.leaves(products)), (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7
    )
    if name in BOTH_ENGINES:
        # Float64; the engines sum over the steps in another order.
        assert_trees_equal(loss(at, "vjp"), (value, grads), atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SINGLE)
def test_images_equal_their_pixels_as_a_batch(name):
    H, W = 2, 3
    vectors, images = COMBINATORS[name](RNN), COMBINATORS[name](as_images(RNN))
    assert images.feature_ndim == 3
    params = shaken(vectors.init(jax.random.key(0), (F,), jnp.float64))
    image_params = images.init(jax.random.key(0), (H, W, F), jnp.float64)
    # Learned carries differ in shape; all else is the same.
    image_params = jax.tree.map(
        lambda p, q: jnp.broadcast_to(p, q.shape), params, image_params
    )
    xs = jnp.asarray(np.random.default_rng(2).standard_normal((T, B, H, W, F)))
    run = partial(jax.jit(unroll, static_argnums=0), images, image_params, xs)
    want = unroll(vectors, params, xs)
    got = run()
    # Float64; one program or another.
    assert_trees_equal(got, want, atol=1e-12)
    assert differ(run(key=KEY).ys, got.ys) == (name in NOISY)


@pytest.mark.parametrize(
    "name,key",
    [
        ("stack", None),
        ("densely_connected", None),
        ("repeat", None),
        ("zoneout", None),
        ("sampled", KEY),
        ("repeat of all noise", KEY),
        ("all of all", KEY),
    ],
)
def test_half_precision_keeps_a_float32_carry(name, key):
    cell = COMBINATORS[name](LSTM)
    params = shaken(cell.init(jax.random.key(0), (F,)))
    xs = jnp.ones((T, B, F))
    run = jax.jit(
        lambda dtype: unroll(cell, params, xs, key=key, dtype=dtype), static_argnums=0
    )
    half, single = run(jnp.bfloat16), run(jnp.float32)
    assert half.ys.dtype == jnp.bfloat16
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(half.carry)}
    assert dtypes <= {jnp.dtype("float32"), jnp.dtype(bool)}
    # bfloat16 keeps 8 bits; a few roundings of values below 4.
    np.testing.assert_allclose(half.ys.astype(jnp.float32), single.ys, atol=0.08)


@pytest.mark.usefixtures("x64")
def test_residual_of_a_stack_by_hand():
    cell = residual(stack(rnn(4, **ZEROS), RNN))
    params = shaken(cell.init(jax.random.key(0), (F,), jnp.float64))
    xs = np.random.default_rng(1).standard_normal((T, F))
    tanh = reference.rnn_step(np.tanh)
    low, high = jax.tree.map(np.asarray, params)
    one, two, want = (np.zeros(4),), (np.zeros(F),), []
    for x in xs:
        one, y = tanh(low, one, x)
        two, y = tanh(high, two, y)
        want.append(x + y)
    ys, carry = unroll(cell, params, jnp.asarray(xs))
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(ys, np.stack(want), atol=1e-10)
    np.testing.assert_allclose(carry[1].h, two[0], atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_densely_connected_by_hand():
    cell = densely_connected(*(rnn(features, **ZEROS) for features in (4, 2, 5)))
    params = shaken(cell.init(jax.random.key(0), (F,), jnp.float64))
    assert [p["w_x"].shape for p in params] == [(3, 4), (7, 2), (9, 5)]
    xs = np.random.default_rng(1).standard_normal((T, F))
    tanh = reference.rnn_step(np.tanh)
    states, want = [(np.zeros(4),), (np.zeros(2),), (np.zeros(5),)], []
    for x in xs:
        seen = x
        for layer, p in enumerate(jax.tree.map(np.asarray, params)):
            states[layer], y = tanh(p, states[layer], seen)
            seen = np.concatenate([seen, y])
        want.append(seen[F:])
    ys, carry = unroll(cell, params, jnp.asarray(xs))
    assert ys.shape == (T, 11)
    # Float64 on both sides; 1e-10 leaves room for another order of summation.
    np.testing.assert_allclose(ys, np.stack(want), atol=1e-10)
    np.testing.assert_allclose(carry[2].h, states[2][0], atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine,key", [("scan", KEY), ("vjp", None)])
def test_repeat_equals_a_stack(engine, key):
    inner = rnn(F, recurrent_init=jax.nn.initializers.zeros)
    layer = residual(dropout(recurrent_dropout(inner, 0.4), 0.4))
    repeated, stacked = repeat(layer, 3), stack(layer, layer, layer)
    params = repeated.init(jax.random.key(0), (F,), jnp.float64)
    layers = stacked.init(jax.random.key(0), (F,), jnp.float64)
    rows = [jax.tree.map(lambda p, at=at: p[at], params) for at in range(3)]
    assert_trees_equal(tuple(rows), layers)
    xs = jnp.asarray(np.random.default_rng(1).standard_normal((T, B, F)))

    def loss(cell, params, xs):
        run = unroll(cell, params, xs, key=key, engine=engine)
        return total(run), run

    grad = partial(jax.grad, argnums=(0, 1), has_aux=True)
    (d_layers, d_xs), want = jax.jit(grad(partial(loss, stacked)))(layers, xs)
    (d_params, got_xs), got = jax.jit(grad(partial(loss, repeated)))(params, xs)
    # Float64; the layers' products are batched or not, and round accordingly.
    assert_trees_equal(got, want, atol=1e-12)
    assert_trees_equal(got_xs, d_xs, atol=1e-12)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *d_layers)
    assert_trees_equal(d_params, together, atol=1e-11)


def test_repeat_traces_one_layer_however_many_there_are():
    counts = {}
    for layers in [2, 9]:
        cell = repeat(LSTM, layers)
        params = cell.init(jax.random.key(0), (F,))
        jaxpr = jax.make_jaxpr(partial(unroll, cell))(params, jnp.ones((T, B, F)))
        counts[layers] = str(jaxpr).count("tanh")
    assert counts[2] == counts[9] > 0


@pytest.mark.usefixtures("x64")
def test_repeat_without_input_reads_zeros():
    cell = repeat(LSTM, 2)
    params = shaken(cell.init(jax.random.key(0), (F,), jnp.float64))
    carry = cell.carry(params, (B,), (F,), jnp.float64)
    _, y = step(cell, params, carry, project_step(cell, params, None))
    _, want = step(cell, params, carry, project_step(cell, params, jnp.zeros((B, F))))
    assert differ(want, 0)
    np.testing.assert_allclose(y, want, atol=1e-15)  # the same products with zeros


@pytest.mark.usefixtures("x64")
def test_a_learned_carry_is_where_the_cell_starts():
    cell = learned_carry(LSTM)
    params = cell.init(jax.random.key(0), (F,), jnp.float64)
    assert all((leaf == 0).all() for leaf in params["carry"])
    params = shaken(params)
    xs = jnp.asarray(np.random.default_rng(1).standard_normal((T, B, F)))
    start = jax.tree.map(lambda p: jnp.stack([p] * B), params["carry"])

    @partial(jax.jit, static_argnums=0)
    @partial(jax.value_and_grad, argnums=(1, 2), has_aux=True)
    def loss(cell, params, start):
        run = unroll(cell, params, xs, start)
        return total(run), run

    (_, want), (_, by_hand) = loss(LSTM, params["cell"], start)
    (_, got), (grads, _) = loss(cell, params, None)
    # Float64; where the start comes from may change how XLA fuses.
    assert_trees_equal(got, want, atol=1e-14)
    summed = jax.tree.map(lambda g: g.sum(0), by_hand)
    assert_trees_equal(grads["carry"], summed, atol=1e-12)
    assert differ(grads["carry"].c, 0)


def test_a_learned_carry_leaves_what_is_no_number_alone():
    cell = learned_carry(recurrent_dropout(lstm(F), 0.5))
    params = cell.init(jax.random.key(0), (F,))
    assert len(jax.tree.leaves(params["carry"])) == 2
    mask = cell.carry(params, (B,), (F,), key=KEY).mask
    want = recurrent_dropout(lstm(F), 0.5).carry(params["cell"], (B,), (F,), key=KEY)
    assert_trees_equal(mask, want.mask)
    assert mask.h.dtype == bool


def test_what_is_added_to_a_carry_has_a_name():
    params = lstm(F).init(jax.random.key(0), (F,))
    for cell, kind in [
        (recurrent_dropout(lstm(F), 0.5), RecurrentDropoutCarry),
        (autoregressive(lstm(F)), AutoregressiveCarry),
    ]:
        assert isinstance(cell.carry(params, (B,), (F,)), kind)


def test_mistakes_are_named():
    key = jax.random.key(0)
    for make in [residual, lambda cell: repeat(cell, 2)]:
        with pytest.raises(ValueError, match=r"reads \(3,\) and puts out \(4,\)"):
            make(lstm(4)).init(key, (F,))
    for layers in [0, 2.0]:
        with pytest.raises(ValueError, match="repeat: layers="):
            repeat(lstm(F), layers)
    for combine in [stack, densely_connected]:
        with pytest.raises(ValueError, match="no cells"):
            combine()
        with pytest.raises(ValueError, match=r"ranks \[1, 3\]"):
            combine(lstm(F), lstm(F)._replace(feature_ndim=3))
    with pytest.raises(ValueError, match="densely_connected: xs is None"):
        cell = densely_connected(lstm(F))
        cell.project(cell.init(key, (F,)), None)

    def halved(params, carry, u, a):
        carry, y = rnn(F).gates(params, carry, u, a)
        return carry, y[..., ::2, :]

    images = as_images(rnn(F))._replace(gates=halved)
    with pytest.raises(ValueError, match=r"cannot join arrays of shapes \[\(4, 2, 3\)"):
        densely_connected(images, images).init(key, (4, 2, F))


@pytest.mark.parametrize("bias", [True, False])
def test_readout_is_a_linear_map_of_the_outputs(bias):
    cell = readout(lstm(5), 2, use_bias=bias)
    params = cell.init(jax.random.key(0), (F,))
    assert set(params) == {"cell", "w"} | ({"b"} if bias else set())
    params["w"] = params["w"] + 0.1
    if bias:
        params["b"] = params["b"] + 0.3
    xs = jax.random.normal(jax.random.key(1), (T, B, F))
    inner = unroll(lstm(5), params["cell"], xs).ys
    wanted = inner @ params["w"] + params.get("b", 0)
    np.testing.assert_allclose(unroll(cell, params, xs).ys, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="readout"):
        readout(lstm(5), 0)
