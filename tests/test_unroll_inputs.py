"""What `unroll` does with padding, and with arguments of every other kind."""

from functools import partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import CASES
from flax import nnx
from jax import export
from jax.sharding import PartitionSpec
from selection import slow, slow_but

from lstm_jax import (
    autoregressive,
    bidirectional,
    bottleneck_conv_lstm,
    conv_gru,
    conv_lstm,
    gru,
    lstm,
    readout,
    recurrent_dropout,
    repeat,
    rnn,
    st_lstm,
    stack,
    unroll,
)
from lstm_jax.models import FrameEncoder, NNXRecurrent, Recurrent, SequenceClassifier
from lstm_jax.models.sequences import frames, patches
from lstm_jax.models.vgsl_net import standardized

T, B, F, D = 4, 3, 2, 3
CELL = lstm(D)
PARAMS = CELL.init(jax.random.key(0), (F,))
XS = jax.random.normal(jax.random.key(1), (T, B, F))
LENGTHS = np.array([T, 0, 2])
HOLES = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
ENGINES = ("scan", "vjp")
assert_close = partial(
    jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
)


def filled(xs, valid, value):
    """`xs [T, B, ...]` with `value` in masked steps."""
    return jnp.where(valid.reshape(*valid.shape, *(1,) * (xs.ndim - 2)), xs, value)


def assert_as_with_zeros(run, xs, valid):
    """`run(xs)`, with gradients, is the same for NaN, inf and 0 in masked steps."""
    wanted = run(filled(xs, valid, 0.0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wanted))
    for value in (np.nan, np.inf):
        got = run(filled(xs, valid, value))
        jax.tree.map(np.testing.assert_array_equal, got, wanted)


QUICK = "lstm-layer-norm", "conv-gru", "zoneout", "autoregressive"


@pytest.mark.parametrize("name", slow_but(CASES, *QUICK))
def test_padding_may_hold_anything(name):
    params, xs, carry = conformance.problem(name, jnp.float32, batch=B, time=T)
    within = np.arange(T)[:, None] < LENGTHS
    cell = CASES[name].cell

    @jax.jit
    def run(xs):
        def loss(engine, *at):
            out = unroll(cell, *at, engine=engine, lengths=LENGTHS, mask=HOLES)
            last = sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(out.carry))
            return (out.ys**2).sum() + last

        grad = [jax.value_and_grad(partial(loss, e), (0, 1, 2)) for e in ENGINES]
        return [one(params, xs, carry) for one in grad]

    assert_as_with_zeros(run, xs, within & HOLES)


@pytest.mark.parametrize("options", [{"reverse": True}, {"remat": 2}])
def test_padding_may_hold_anything_in_reverse_and_in_pieces(options):
    @jax.jit
    def run(xs):
        def loss(params, xs):
            return (unroll(CELL, params, xs, lengths=LENGTHS, **options).ys ** 2).sum()

        return jax.value_and_grad(loss, (0, 1))(PARAMS, xs)

    assert_as_with_zeros(run, XS, np.arange(T)[:, None] < LENGTHS)


@pytest.mark.parametrize("kind", ["linen", "nnx", "both ways"])
def test_padding_of_a_layer_may_hold_anything(kind):
    def loss(params, xs):  # batch-major
        if kind == "linen":
            ys = Recurrent(CELL).apply(params, xs, lengths=LENGTHS).ys
        elif kind == "nnx":
            ys = layer(xs, lengths=LENGTHS).ys + 0 * params["params"]["cell"]["b"][0]
        else:
            pair = (params["params"]["cell"],) * 2
            xs = xs.swapaxes(0, 1)
            ys = bidirectional((CELL, CELL), pair, xs, lengths=LENGTHS).ys
        return (ys**2).sum()

    layer = NNXRecurrent(CELL, (F,), rngs=nnx.Rngs(0))
    params = {"params": {"cell": PARAMS}}
    run = jax.jit(
        lambda xs: jax.value_and_grad(loss, (0, 1))(params, xs.swapaxes(0, 1))
    )
    assert_as_with_zeros(run, XS, np.arange(T)[:, None] < LENGTHS)


@pytest.mark.parametrize("encoder", [None, FrameEncoder((4,))], ids=["none", "encoder"])
def test_padding_of_a_clip_may_hold_anything(encoder):
    cells = (CELL,) if encoder else (conv_lstm(2, (2, 2)),)
    model = SequenceClassifier(frames(), cells, outputs=2, encoder=encoder)
    clips = jax.random.normal(jax.random.key(0), (T, B, 4, 4, 1))
    params = jax.jit(model.init)(jax.random.key(1), clips.swapaxes(0, 1))

    @jax.jit
    def run(clips):
        def loss(params, clips):
            outputs = model.apply(params, clips, lengths=LENGTHS, mask=HOLES.T)
            return (outputs**2).sum()

        return jax.value_and_grad(loss, (0, 1))(params, clips.swapaxes(0, 1))

    assert_as_with_zeros(run, clips, HOLES & (np.arange(T)[:, None] < LENGTHS))


def test_statistics_of_a_line_leave_padding_out():
    lines = jax.random.uniform(jax.random.key(0), (T, B, 2, 1))  # columns first
    lengths = jnp.asarray(LENGTHS)
    run = jax.jit(lambda x: standardized(x.transpose(1, 2, 0, 3), lengths))
    assert_as_with_zeros(run, lines, np.arange(T)[:, None] < LENGTHS)


def test_integer_inputs_are_masked_as_integers():
    embedding = jax.random.normal(jax.random.key(0), (5, 4 * D))
    cell = CELL._replace(
        project=lambda params, xs, *, keys=None: embedding[xs[..., 0]], equations=None
    )
    xs = jnp.full((T, B, 1), 3)
    valid = np.arange(T)[:, None] < LENGTHS
    runs = [
        unroll(cell, PARAMS, jnp.where(valid[..., None], xs, value), lengths=LENGTHS)
        for value in (0, 4)
    ]
    jax.tree.map(np.testing.assert_array_equal, *runs)


BAD_CARRIES = {
    "a tuple": lambda c: (c.c, c.h),
    "one row for all": lambda c: jax.tree.map(lambda leaf: leaf[:1], c),
    "no batch": lambda c: jax.tree.map(lambda leaf: leaf[0], c),
    "another width": lambda c: c._replace(h=jnp.zeros((B, D + 1))),
    "integers": lambda c: c._replace(c=c.c.astype(jnp.int32)),
    "booleans": lambda c: c._replace(h=c.h.astype(bool)),
    "a part": lambda c: c._replace(h=None),
    "numbers": lambda c: c._replace(c=0.0, h=0.0),
}


@pytest.mark.parametrize("kind", BAD_CARRIES)
def test_a_given_carry_is_never_guessed_at(kind):
    carry = BAD_CARRIES[kind](CELL.carry(PARAMS, (B,), (F,)))
    wanted = r"cell's is LSTMCarry\(c=float32\[3, 3\], h=float32\[3, 3\]\); make it wit"
    with pytest.raises(ValueError, match=rf"unroll: carry is .*{wanted}h cell.carry"):
        unroll(CELL, PARAMS, XS, carry)
    kwargs = dict(length=T, lengths=LENGTHS)
    with pytest.raises(ValueError, match="unroll: carry is"):
        unroll(CELL, PARAMS, None, carry, **kwargs)


def test_a_carry_that_fits_is_taken():
    carry = CELL.carry(PARAMS, (B,), (F,))
    as_arrays = jax.tree.map(np.asarray, carry)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), carry)
    runs = [unroll(CELL, PARAMS, XS, c) for c in (carry, as_arrays, half)]
    for run in runs[1:]:
        jax.tree.map(np.testing.assert_array_equal, run, runs[0])
    alone = unroll(CELL, PARAMS, None, carry, length=2)  # the batch is the carry's
    assert alone.ys.shape == (2, B, D)
    with pytest.raises(ValueError, match="for each sequence"):
        unroll(CELL, PARAMS, None, carry._replace(h=carry.h[:1]), length=2)


def test_a_carry_without_its_mask_is_refused_where_there_is_a_key():
    cell = recurrent_dropout(CELL, 0.5)
    silent = cell.carry(PARAMS, (B,), (F,))
    drawn = cell.carry(PARAMS, (B,), (F,), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"cell.carry\(params, .*key=key\)"):
        unroll(cell, PARAMS, XS, silent, key=jax.random.key(0))
    wrong = drawn._replace(mask=jax.tree.map(jnp.int32, drawn.mask))
    with pytest.raises(ValueError, match=r"mask=LSTMCarry\(c=bool\[3, 3\]"):
        unroll(cell, PARAMS, XS, wrong, key=jax.random.key(0))
    unroll(cell, PARAMS, XS, drawn, key=jax.random.key(0))


@pytest.mark.parametrize("name", ["tbptt_steps", "remat", "unroll"])
@pytest.mark.parametrize("value", [True, 0, slow(False), slow(1.0), slow(np.True_)])
def test_a_number_of_steps_is_an_integer(name, value):
    with pytest.raises(ValueError, match=f"unroll: {name}={value!r}"):
        unroll(CELL, PARAMS, XS, **{name: value})
    wanted = unroll(CELL, PARAMS, XS).ys
    got = unroll(CELL, PARAMS, XS, **{name: np.int64(2)}).ys
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("length", [True, 2.0, -1])
def test_a_length_is_an_integer(length):
    with pytest.raises(ValueError, match=f"length={length!r}"):
        unroll(CELL, PARAMS, None, length=length)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lstm(True),
        lambda: lstm(2, proj_size=True),
        lambda: gru(True),
        lambda: rnn(True),
        lambda: readout(CELL, True),
        lambda: repeat(CELL, True),
        lambda: conv_lstm(True, (3, 3)),
        lambda: conv_lstm(2, (True, 3)),
        lambda: conv_lstm(2, (3, 3), stride=True),
        lambda: conv_gru(2, (3, 3), dilation=(1, True)),
        lambda: conv_gru(2, (3, 3), recurrent_kernel_size=(True, 1)),
        lambda: conv_lstm(2, (3, 3), group_norm=True),
        lambda: bottleneck_conv_lstm(2, (3, True)),
        lambda: st_lstm(2, (True, 3)),
        lambda: st_lstm(2, (3, 3), layers=True),
        lambda: patches(True),
    ],
)
def test_a_boolean_is_no_size(make):
    with pytest.raises(ValueError, match="True"):
        make()


def test_both_directions_without_inputs_on_an_accelerator(monkeypatch):
    pair = PARAMS, jax.tree.map(lambda p: 0.5 * p, PARAMS)
    options = dict(length=T, lengths=LENGTHS)
    wanted = bidirectional((CELL, CELL), pair, None, **options)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert_close(bidirectional((CELL, CELL), pair, None, **options), wanted)


@pytest.mark.parametrize(
    "cell",
    [
        conv_lstm(2, (2, 2)),
        slow(conv_gru(2, (2, 2))),
        slow(bottleneck_conv_lstm(2, (2, 2))),
        slow(st_lstm(2, (2, 2))),
        stack(conv_lstm(2, (2, 2)), conv_gru(2, (2, 2))),
    ],
)
def test_a_state_that_is_an_image_needs_its_shape(cell):
    params = cell.init(jax.random.key(0), (2, 3, 1))
    with pytest.raises(ValueError, match="xs is None.*pass carry=cell.carry"):
        unroll(cell, params, None, length=2)
    carry = cell.carry(params, (B,), (2, 3, 1))
    assert jax.eval_shape(
        lambda: unroll(cell, params, None, carry, length=2)
    ).ys.shape == (2, B, 2, 3, 2)


def test_a_program_of_any_number_of_steps():
    time, batch = export.symbolic_shape("T, B")

    def exported(run):
        shape = jax.ShapeDtypeStruct((time, batch, F), jnp.float32)
        return export.export(jax.jit(run))(shape)

    def gradient(xs):
        lengths = jnp.full(xs.shape[1], 3)
        return jax.grad(lambda x: unroll(CELL, PARAMS, x, lengths=lengths).ys.sum())(xs)

    np.testing.assert_allclose(exported(gradient).call(XS), gradient(XS), atol=1e-6)
    with pytest.raises(NotImplementedError, match=r'T, which is T.*engine="scan"'):
        exported(lambda xs: unroll(CELL, PARAMS, xs, engine="vjp").ys)
    for options in ({"remat": 2}, {"remat": "sqrt"}, {"tbptt_steps": 2}):
        with pytest.raises(NotImplementedError, match="needs a known T"):
            exported(lambda xs, o=options: unroll(CELL, PARAMS, xs, **o).ys)


def drawing():
    """An LSTM with a key for each sequence in its carry, and noise on its outputs."""

    def carry(params, batch, features, dtype=jnp.float32, *, key=None):
        key = jax.random.key(0) if key is None else key
        return CELL.carry(params, batch, features, dtype), jax.random.split(key, batch)

    def gates(params, carry, u, a):
        keys = jax.vmap(jax.random.split)(carry[1])
        new, y = CELL.gates(params, carry[0], u, a)
        return (new, keys[:, 0]), y + jax.vmap(jax.random.normal)(keys[:, 1])[:, None]

    def recur(params, carry):
        return CELL.recur(params, carry[0])

    return CELL._replace(carry=carry, recur=recur, gates=gates, equations=None)


@pytest.mark.parametrize(
    "options", slow_but([{}, {"remat": 2}, {"tbptt_steps": 3}], {"remat": 2})
)
def test_a_carry_may_hold_keys(options):
    cell = drawing()
    resets = jnp.zeros((T, B), bool).at[2, 0].set(True)

    @jax.jit
    def run():
        def loss(engine, params):
            how = dict(lengths=LENGTHS, resets=resets, engine=engine, **options)
            out = unroll(cell, params, XS, **how)
            return (out.ys**2).sum(), jax.random.key_data(out.carry[1])

        grad = partial(jax.value_and_grad, has_aux=True)
        return [grad(partial(loss, engine))(PARAMS) for engine in ENGINES]

    scan, vjp = run()
    assert_close(vjp, scan)
    start = jax.random.key_data(cell.carry(PARAMS, (B,), (F,))[1])
    np.testing.assert_array_equal(scan[0][1][1], start[1])  # of no steps
    assert (scan[0][1][0] != start[0]).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_mixed_params_compute_in_what_they_promote_to(engine):
    mixed = PARAMS | {"b": PARAMS["b"].astype(jnp.bfloat16)}
    with jax.numpy_dtype_promotion("standard"):
        out = unroll(CELL, mixed, XS.astype(jnp.bfloat16), engine=engine)
    assert out.ys.dtype == jnp.float32  # "b" is the first of them
    assert out.carry.c.dtype == jnp.float32


def test_no_floating_params_compute_in_the_dtype_of_the_inputs():
    cell = CELL._replace(project=lambda p, xs, *, keys=None: jnp.tile(xs, 2 * D))
    cell = cell._replace(recur=lambda p, carry: jnp.zeros((B, 4 * D)), equations=None)
    assert unroll(cell, (), XS.astype(jnp.bfloat16)).ys.dtype == jnp.bfloat16
    empty = cell._replace(project=lambda p, xs, *, keys=None: jnp.zeros((B, 4 * D)))
    assert unroll(empty, (), None, length=2, lengths=LENGTHS).ys.dtype == jnp.float32


@pytest.mark.parametrize("engine", slow_but(ENGINES, "vjp"))
def test_integers_and_keys_among_params_stay_what_they_are(engine):
    def gates(params, carry, u, a):
        new, y = CELL.gates(params["cell"], carry, u, a)
        noise = jax.random.normal(params["key"])
        return new, y + (params["odd"] % 2).astype(y.dtype) + noise

    def inner(fun):
        return lambda params, *args, **kw: fun(params["cell"], *args, **kw)

    cell = CELL._replace(
        carry=inner(CELL.carry),
        project=inner(CELL.project),
        recur=inner(CELL.recur),
        gates=gates,
        equations=None,
    )
    odd = jnp.int32(2**24 + 1)  # float32 has no such number
    params = {"cell": PARAMS, "odd": odd, "key": jax.random.key(1)}

    def loss(params, **options):
        return unroll(cell, params, XS, engine=engine, **options).ys.sum()

    plain = unroll(CELL, PARAMS, XS).ys.sum()
    wanted = plain + T * B * D * (1 + jax.random.normal(params["key"]))
    for options in ({}, {"remat": 2}, {"tbptt_steps": 3}):
        got, grads = jax.value_and_grad(partial(loss, **options), allow_int=True)(
            params
        )
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        assert grads["odd"].dtype == jax.dtypes.float0


FORWARD = {
    "jvp": lambda f: jax.jvp(f, (XS,), (XS,)),
    "jvp of a program": lambda f: jax.jvp(jax.jit(f), (XS,), (XS,)),
    "program of jvp": lambda f: jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(XS),
    "linearize": lambda f: jax.linearize(f, XS)[1](XS),
    "jacfwd": lambda f: jax.jacfwd(f)(XS),
    "jacfwd of a program": lambda f: jax.jacfwd(jax.jit(f))(XS),
}


@pytest.mark.parametrize("remat", [None, 2])
@pytest.mark.parametrize("way", slow_but(FORWARD, "jvp of a program", "linearize"))
def test_a_forward_derivative_names_the_engine_that_has_it(way, remat):
    def total(xs):
        return unroll(CELL, PARAMS, xs, remat=remat).ys.sum()

    with pytest.raises(TypeError, match="engine='vjp' has no.*use engine=\"scan\""):
        FORWARD[way](total)


def test_forward_derivatives_of_a_gradient_and_gradients_of_a_batch():
    def total(xs, engine):
        return (unroll(CELL, PARAMS, xs, engine=engine).ys ** 2).sum()

    @partial(jax.jit, static_argnums=0)
    def derivatives(engine):
        run = partial(total, engine=engine)
        grad = jax.grad(lambda x: jax.vmap(jax.jit(run), 1)(x).sum())
        _, hessian_product = jax.jvp(jax.grad(run), (XS,), (jnp.cos(XS),))
        return grad(XS), hessian_product, jax.grad(jax.checkpoint(run))(XS)

    assert_close(derivatives("vjp"), derivatives("scan"))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.int8, slow(np.uint32), slow(np.int64), np.uint64])
@pytest.mark.parametrize("where", ["NumPy", "JAX"])
def test_lengths_of_any_integer_dtype(dtype, where):
    lengths = np.array([np.iinfo(dtype).max, 0, 2], dtype)
    if dtype == np.int64:
        lengths[0] = 2**32 + 1  # of which an int32 would keep 1
    lengths = jnp.asarray(lengths) if where == "JAX" else lengths
    wanted = unroll(CELL, PARAMS, XS, lengths=LENGTHS)
    got = unroll(CELL, PARAMS, XS, lengths=lengths)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_lengths_of_wide_integers_where_jax_has_none():
    lengths = np.array([2**32 + 1, -(2**32) + 1, 2])
    got, wanted = (unroll(CELL, PARAMS, XS, lengths=n) for n in (lengths, LENGTHS))
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.mark.parametrize("make", [lstm, gru, rnn])
def test_inputs_without_features_are_refused(make):
    with pytest.raises(ValueError, match=r"feature_shape=\(0,\).*xs=None, length=T"):
        make(D).init(jax.random.key(0), (0,))
    params = make(D).init(jax.random.key(0), (1,))
    with pytest.raises(ValueError, match="xs has F=0"):
        unroll(make(D), params, jnp.zeros((T, B, 0)))


@pytest.mark.parametrize("make", [bottleneck_conv_lstm, st_lstm])
def test_images_without_channels_are_refused(make):
    with pytest.raises(
        ValueError, match=r"feature_shape=\(2, 2, 0\); pass \(H, W, C\)"
    ):
        make(2, (3, 3)).init(jax.random.key(0), (2, 2, 0))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_output_is_one_array(engine):
    def gates(params, carry, u, a):
        carry, y = CELL.gates(params, carry, u, a)
        return carry, {"y": y}

    cell = CELL._replace(gates=gates, equations=None)
    with pytest.raises(ValueError, match="puts out a dict, but an output is one array"):
        unroll(cell, PARAMS, XS, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_free_run_places_its_state_as_lengths_and_keys_are(engine):
    """In `shard_map`; the types of a mesh of one device are those of any."""
    cell = autoregressive(lstm(2))
    params = cell.init(jax.random.key(0), (2,))
    axis = dict(axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    mesh, spec = jax.make_mesh((1,), ("data",), **axis), PartitionSpec("data")

    def loss(params, lengths, keys):
        options = dict(length=3, lengths=lengths, key=keys[0], engine=engine)
        ys, carry = unroll(cell, params, None, **options)
        return (ys**2).sum() + carry.cell.c.sum()

    spread = jax.shard_map(
        lambda *at: jax.lax.psum(loss(*at), "data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), spec, spec),
        out_specs=PartitionSpec(),
    )
    at = params, jnp.asarray(LENGTHS), jax.random.split(jax.random.key(1), 1)
    assert_close(*(jax.jit(jax.value_and_grad(run))(*at) for run in (spread, loss)))
