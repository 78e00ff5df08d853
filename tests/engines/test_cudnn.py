"""Engine "cudnn": what it makes of its one call, and what it refuses.

Without a GPU the call is answered by the reference that stands beside it in JAX; on a
machine with one, `JAX_PLATFORMS=cuda python -m pytest tests/engines` asks cuDNN.
"""

from contextlib import nullcontext
from functools import partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import LENGTHS, B, D, T
from jax.experimental import rnn
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from selection import slow_but

from lstm_jax import gru, lstm, unroll, zoneout
from lstm_jax.engines.cudnn import FLOAT32, TF32, pack

CELL = conformance.CASES["lstm"].cell


def reference(x, h_0, c_0, weights, seq_lengths, **sizes):
    """`rnn.lstm` in `rnn.lstm_ref`, NaN for all that the engine must not lean on."""
    precision, dropout = sizes.pop("precision"), sizes.pop("dropout")
    assert precision in (TF32, FLOAT32)
    unpacked = rnn.unpack_lstm_weights(weights, **sizes)
    order = ("input_size", "hidden_size", "num_layers")
    sizes = [*map(sizes.get, order), dropout, sizes["bidirectional"]]
    ys, h, c = rnn.lstm_ref(x, h_0, c_0, *unpacked, seq_lengths, *sizes)
    steps = jnp.arange(x.shape[1], dtype=jnp.int32)
    padding = steps >= jnp.where((seq_lengths < 1).any(), 0, seq_lengths[:, None])
    return jnp.where(padding[..., None], jnp.nan, ys), h, c


@pytest.fixture
def kernel(monkeypatch):
    """cuDNN where there is one, or its reference; in float32, not TF32."""
    if jax.default_backend() != "gpu":
        monkeypatch.setattr(rnn, "lstm", reference)
        monkeypatch.setattr("lstm_jax.engines.cudnn._check_backend", lambda: None)
    with jax.default_matmul_precision("float32"):
        yield


def problem(batch_shape=(B,)):
    """`(params, xs, carry)` of the table's first sequences, in float32."""
    batch = int(np.prod(batch_shape))
    params, xs, carry = conformance.problem("lstm", jnp.float32, batch=batch)
    carry = jax.tree.map(lambda x: x.reshape(*batch_shape, D), carry)
    return params, xs.reshape(T, *batch_shape, 2), carry


def outcome(engine, at, **options):
    """Outputs, final carry, and the gradients of a number that reads both."""

    def loss(*at):
        out = unroll(CELL, *at, engine=engine, **options)
        weights = jnp.cos(jnp.arange(out.ys.size, dtype=out.ys.dtype))
        last = sum(jnp.sin(leaf).sum() for leaf in out.carry)
        return (out.ys * weights.reshape(out.ys.shape)).sum() + last, out

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*at)


# Float32 keeps 24 bits; a few sums of a few hundred terms lose some of them.
close = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5))


WAYS = {
    "all": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": LENGTHS},
    "lengths reverse": {"lengths": LENGTHS, "reverse": True},
    "no lengths at all": {"lengths": np.zeros(B, int)},
    "lengths past the end, and before the start": {"lengths": LENGTHS * 2 - 1},
    "two axes reverse": {
        "batch_shape": (2, 2),
        "lengths": LENGTHS.reshape(2, 2),
        "reverse": True,
    },
    "alone": {"batch_shape": ()},
    "alone with a length": {"batch_shape": (), "lengths": np.array(2)},
    "pieces": {"lengths": LENGTHS, "remat": 4},
    "truncated pieces reverse": {
        "lengths": LENGTHS,
        "reverse": True,
        "tbptt_steps": 4,
        "remat": 2,
    },
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("way", slow_but(WAYS, "lengths reverse", "pieces"))
def test_equals_scan(way):
    options = dict(WAYS[way])
    at = problem(options.pop("batch_shape", (B,)))
    close(*(outcome(engine, at, **options) for engine in ("cudnn", "scan")))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_may_hold_anything(reverse):
    params, xs, carry = problem()
    padding = (np.arange(T)[:, None] >= LENGTHS)[..., None]
    run = partial(outcome, "cudnn", lengths=LENGTHS, reverse=reverse)
    filled = jnp.where(padding, jnp.nan, xs)
    close(run((params, filled, carry)), run((params, xs, carry)))


@pytest.mark.usefixtures("kernel")
def test_no_steps_return_the_initial_carry():
    params, xs, carry = problem()
    out = unroll(CELL, params, xs[:0], carry, engine="cudnn")
    assert out.ys.shape == (0, B, D)
    close(out.carry, carry)


def test_packed_weights_are_where_cudnn_reads_them():
    params = problem()[0]
    weights = pack(**params)
    sizes = dict(input_size=2, hidden_size=D, num_layers=1, bidirectional=False)
    assert weights.shape == (rnn.get_num_params_in_lstm(**sizes),)
    w_ih, w_hh, b_ih, b_hh = (w[0] for w in rnn.unpack_lstm_weights(weights, **sizes))
    np.testing.assert_array_equal(w_ih, params["w_x"].T)
    np.testing.assert_array_equal(w_hh, params["w_h"].T)
    np.testing.assert_array_equal(b_ih, params["b"])
    assert not np.asarray(b_hh).any()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    "name, wanted",
    [(None, TF32), ("tensorfloat32", TF32), ("F32_F32_F32", FLOAT32)],
)
def test_precision_is_the_one_asked_for_outside(name, wanted, monkeypatch):
    seen, call = [], rnn.lstm

    def lstm(*args, **options):
        seen.append(options["precision"])
        return call(*args, **options)

    monkeypatch.setattr(rnn, "lstm", lstm)
    with jax.default_matmul_precision(name):
        unroll(CELL, *problem(), engine="cudnn")
    assert seen == [wanted]


def on_mesh(count, kind):
    """A run traced for a batch over `count` devices, which need not be there."""
    mesh = AbstractMesh((count,), ("data",), axis_types=(kind,))
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    def ask(params, xs, carry, **options):
        xs = jax.ShapeDtypeStruct(xs.shape, xs.dtype, sharding=sharding)
        jax.eval_shape(lambda xs: unroll(CELL, params, xs, **options), xs)

    return ask


def in_shard_map(params, xs, carry, **options):
    one = jax.devices()[:1]
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=one)
    spec = PartitionSpec(None, "data")
    run = partial(unroll, CELL, params, **options)
    jax.shard_map(lambda xs: run(xs).ys, mesh=mesh, in_specs=spec, out_specs=spec)(xs)


def mapped(wrap):
    def ask(params, xs, carry, **options):
        def loss(params, xs):
            return (unroll(CELL, params, xs, **options).ys ** 2).sum()

        wrap(loss)(params, xs)

    return ask


def with_options(cell=CELL, context=nullcontext, **changes):
    def ask(params, xs, carry, **options):
        if cell is not CELL:
            params, carry = cell.init(jax.random.key(0), (2,)), None
        xs = changes.get("xs", xs)
        with context():
            unroll(cell, params, xs, carry, **options | other)

    other = {name: value for name, value in changes.items() if name != "xs"}
    return ask


MASK = np.ones((T, B), bool)
REFUSED = {
    "equations=None": with_options(gru(D)),
    "this cell has equations=None": with_options(zoneout(lstm(D), 0.1)),
    "options or combinators": with_options(lstm(D, peepholes=True)),
    "xs is None": with_options(xs=None, length=3),
    "knows no resets": with_options(resets=MASK),
    r"no mask, .* pass lengths": with_options(mask=MASK),
    "no mask, which may have holes": with_options(mask=MASK, lengths=LENGTHS),
    "return_carries=True": with_options(return_carries=True),
    'remat="step"; pass remat=K': with_options(remat="step"),
    "unroll=2": with_options(unroll=2),
    "params has bfloat16": with_options(dtype=jnp.bfloat16),
    "xs has float16": with_options(xs=jnp.zeros((T, B, 2), jnp.float16)),
    "carry has bfloat16": with_options(carry_dtype=jnp.bfloat16),
    r"xs has shape \(6, 0, 2\)": mapped(
        lambda loss: lambda params, xs: loss(params, xs[:, :0])
    ),
    "at most 65535 steps at once, but xs has T=65536": mapped(
        lambda loss: lambda params, xs: loss(params, jnp.zeros((65536, 1, 2)))
    ),
    "default_matmul_precision='bfloat16'": with_options(
        context=lambda: jax.default_matmul_precision("bfloat16")
    ),
    "default_matmul_precision='BF16_BF16_F32'": with_options(
        context=lambda: jax.default_matmul_precision("BF16_BF16_F32")
    ),
    r"jax.vmap, here of 4; give xs .* one more batch axis": mapped(
        lambda loss: jax.vmap(loss, (None, 1))
    ),
    "jax.vmap, here of 4": mapped(
        lambda loss: jax.vmap(jax.jit(jax.grad(loss)), (None, 1))
    ),
    "jax.vmap, here of 2": mapped(
        lambda loss: (
            lambda params, xs: jax.vmap(loss, (0, None))(
                jax.tree.map(lambda p: jnp.stack([p, p]), params), xs
            )
        )
    ),
    r"one device, but xs lives on a mesh of \{'data': 1\}": in_shard_map,
    r"one device, but xs lives on a mesh of \{'data': 4\}": on_mesh(
        4, AxisType.Explicit
    ),
    r"xs lives on a mesh of \{'data': 2\}": on_mesh(2, AxisType.Auto),
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("says", REFUSED)
def test_what_it_cannot_is_refused_by_name(says):
    with pytest.raises(NotImplementedError, match=f"^unroll: engine='cudnn' .*{says}"):
        REFUSED[says](*problem(), engine="cudnn")


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_without_a_gpu_it_says_what_it_wants():
    wanted = r"engine='cudnn' wants an NVIDIA GPU, but .* is 'cpu'; .*'jax\[cuda13\]'"
    with pytest.raises(NotImplementedError, match=wanted):
        unroll(CELL, *problem(), engine="cudnn")
