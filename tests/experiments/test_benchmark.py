"""The benchmark of layers: what it counts, writes and refuses; never how fast."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import layers, peers
from lstm_jax import lstm, unroll
from lstm_jax.unroll import ENGINES

B, T, F, D = 3, 5, 2, 4
TINY = dict(shapes=(f"{B},{T},{F},{D}",), rounds=2)
NUMBERS = "ms ms_min us_per_step sequences_per_s compile_s temporary_mb peak_share"


@pytest.fixture(autouse=True)
def small_peak(monkeypatch):
    """Of a product that takes no time; and the dtypes that other libraries mix."""
    from experiments.benchmarks import bench

    monkeypatch.setattr(bench, "peak", lambda dtype: 1e9)
    with jax.numpy_dtype_promotion("standard"):
        yield


def written(folder):
    return [json.loads(line) for line in open(folder / "results.jsonl")]


def test_a_table_a_line_of_json_and_a_bar_for_each_candidate(tmp_path, capsys):
    kinds = ("forward", "gradient")
    rows = benchmark(**TINY, kinds=kinds, out=tmp_path)
    assert rows == written(tmp_path)
    names = [f"lstm, {engine}" for engine in (*ENGINES, "auto")]
    ran = [row for row in rows if row["refused"] is None]
    for kind in kinds:
        assert [row["candidate"] for row in rows if row["kind"] == kind] == names
        assert {"lstm, scan", "lstm, vjp", "lstm, auto"} <= {
            row["candidate"] for row in ran if row["kind"] == kind
        }
    for row in ran:
        assert (row["batch"], row["steps"], row["inputs"], row["width"]) == (B, T, F, D)
        for name in NUMBERS.split():
            assert row[name] >= 0, name
        assert row["ms_min"] <= row["ms"]
        assert row["us_per_step"] == pytest.approx(1000 * row["ms"] / T)
        assert row["sequences_per_s"] == pytest.approx(1000 * B / row["ms"])
        assert {"date", "jax", "cpu", "cores", "device_kind"} <= set(row["environment"])
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    for word in (
        f"B={B} T={T} F={F} D={D}",
        "µs/step",
        "allocator: ",
        "GFLOP/s",
        *names,
    ):
        assert word in out
    benchmark(**TINY, engines=("scan",), out=tmp_path)
    assert len(written(tmp_path)) == len(rows) + 1


def test_what_cannot_run_is_a_line_with_its_reason(tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise NotImplementedError("engine 'none' wants a device of glass")

    monkeypatch.setitem(ENGINES, "none", refuse)
    for name in ("torch", "haiku", "keras", "equinox"):
        monkeypatch.setitem(sys.modules, name, None)  # its import fails
    options = dict(kinds=("forward",), engines=("none", "auto"), peers=True)
    rows = benchmark(**TINY, **options, out=tmp_path)
    reasons = {row["candidate"]: row["refused"] for row in rows}
    assert reasons["lstm, none"] == "engine 'none' wants a device of glass"
    assert reasons[peers.TORCH] == "torch is not installed"
    assert reasons["lstm, auto"] is reasons[peers.FLAX] is None
    out = capsys.readouterr().out
    for name in ("torch", "haiku", "keras", "equinox"):
        assert out.count(f"{name} is not installed") == 1
    assert "a device of glass" in out
    ratios = {row["candidate"]: row["times_as_fast"] for row in rows}
    assert ratios[peers.FLAX][peers.FLAX] == 1
    assert ratios["lstm, auto"].keys() == {peers.FLAX, "flax OptimizedLSTMCell"}
    assert "x flax LSTMCell (1)" in " ".join(out.split())


def test_more_memory_than_is_free_is_told(tmp_path, monkeypatch):
    from experiments.benchmarks import timing

    monkeypatch.setattr(timing, "_too_big", lambda size: "needs 9 GB of memory")
    (row,) = benchmark(**TINY, engines=("vjp",), out=tmp_path)
    assert row["ms"] is None and row["temporary_mb"] > 0
    assert row["refused"] == "needs 9 GB of memory"


def test_a_disturbed_machine_is_told(tmp_path, monkeypatch, capsys):
    from experiments.benchmarks import bench, timing

    seconds = {"lstm, vjp": np.array([1.0, 5.0, 6.0])}
    made = {"lstm, vjp": timing.Timed(lambda: None)}
    monkeypatch.setattr(
        bench, "measure", lambda *args: timing.Measured(seconds, made, {})
    )
    benchmark(**TINY, engines=("vjp",), out=tmp_path)
    out = " ".join(capsys.readouterr().out.split())
    assert "the median of lstm, vjp is 5.0 x its minimum" in out


def weights(name, params):
    """Of a peer, as `lstm` wants them."""
    if name.startswith("flax"):
        (cell,) = params["params"].values()
        cell = cell["cell"] if "cell" in cell else cell
        w_x = [cell[f"i{gate}"]["kernel"] for gate in "ifgo"]
        w_h = [cell[f"h{gate}"]["kernel"] for gate in "ifgo"]
        b = [cell[f"h{gate}"]["bias"] for gate in "ifgo"]
        return [jnp.concatenate(parts, -1) for parts in (w_x, w_h, b)]
    if name.startswith("haiku"):
        (linear,) = params.values()
        w, b = (
            jnp.concatenate([part[..., k * D : (k + 1) * D] for k in (0, 2, 1, 3)], -1)
            for part in (linear["w"], linear["b"])
        )
        return w[:F], w[F:], b.at[D : 2 * D].add(1)
    if name.startswith("keras"):
        return params
    return params.weight_ih.T, params.weight_hh.T, params.bias


def ours(w_x, w_h, b, xs):
    return unroll(lstm(D), {"w_x": w_x, "w_h": w_h, "b": b}, xs).ys


@pytest.mark.parametrize("name", peers.JAX_PEERS)
def test_a_peer_computes_the_same_function(name):
    if importlib.util.find_spec(name.split()[0]) is None:
        pytest.skip(f"{name.split()[0]} is not installed")
    xs = jax.random.normal(jax.random.key(0), (T, B, F))
    apply, params, inputs = peers.JAX_PEERS[name](D, xs, 0)
    ys = jax.jit(apply)(params, inputs)
    ys = ys.swapaxes(0, 1) if name.startswith("keras") else ys  # batch-major
    np.testing.assert_allclose(ys, ours(*weights(name, params), xs), atol=1e-5)


def test_torch_computes_the_same_function():
    torch = pytest.importorskip("torch")
    xs = jax.random.normal(jax.random.key(0), (T, B, F))
    layer, inputs = peers.torch_layer(D, xs, 0)
    with torch.no_grad():
        ys = layer(inputs)[0].numpy()
    w_x, w_h, *b = (jnp.asarray(p.detach().numpy()) for p in layer.parameters())
    np.testing.assert_allclose(ys, ours(w_x.T, w_h.T, sum(b), xs), atol=1e-5)
    assert peers.torch_timed(D, xs, 0, "forward").run().shape == (T, B, D)
    assert len(peers.torch_timed(D, xs, 0, "gradient").run()) == len([w_x, w_h, *b])


@pytest.mark.parametrize("kind", ["forward", "gradient"])
def test_operations_are_those_that_xla_counts(kind):
    facts = dict(batch=16, steps=1, inputs=48, width=64, kind=kind)
    cell, xs = lstm(64), jnp.ones((1, 16, 48))
    params = cell.init(jax.random.key(0), (48,))
    # From a carry that is known to be zeros XLA spares the state's product.
    carry = jax.tree.map(jnp.ones_like, cell.carry(params, (16,), (48,), jnp.float32))

    def forward(params, carry):
        return unroll(cell, params, xs, carry).ys

    def gradient(params, carry):
        return jax.grad(lambda *at: jnp.square(forward(*at)).sum(), (0, 1))(
            params, carry
        )

    program = jax.jit(forward if kind == "forward" else gradient)
    counted = program.lower(params, carry).compile().cost_analysis()["flops"]
    assert layers.flops(facts) == pytest.approx(counted, rel=0.1)


def test_exponents_of_what_grows_by_a_law():
    rows = [
        dict(candidate="a", steps=t, ms=3 * t, temporary_mb=2 * t**0.5)
        for t in (64, 128, 256)
    ]
    rows.append(dict(candidate="a", steps=512, ms=None, temporary_mb=2 * 512**0.5))
    found = layers.fit("a", rows)
    assert found["time"] == pytest.approx(1) and found["bytes"] == pytest.approx(0.5)
    assert layers.fit("b", rows) == {"candidate": "b", "time": None, "bytes": None}


@pytest.mark.slow  # six programs and a figure
def test_growth_is_told_and_drawn(tmp_path, capsys):
    rows = benchmark(
        grow=256, grow_batch=2, grow_width=D, rounds=1, engines=("vjp",), out=tmp_path
    )
    names = ["lstm, vjp", "lstm, vjp, remat=sqrt"]
    steps = [row["steps"] for row in written(tmp_path)]
    assert steps == [64, 64, 128, 128, 256, 256]
    assert [row["candidate"] for row in rows[-2:]] == names
    whole, pieces = (row["bytes"] for row in rows[-2:])
    # Carries of all steps: T to the 1. Those of sqrt(T) pieces and of the steps of one
    # piece: T to the 1/2, less what does not grow; the slope over three lengths is that
    # from 64 to 256, which are squares, so that 128 with its shorter piece has no say.
    assert 0.8 < whole < 1.2 and pieces < 0.6
    assert "exponent of T" in capsys.readouterr().out
    assert (tmp_path / "grow.png").stat().st_size > 10_000


@pytest.mark.slow
def test_images_and_a_cell_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "IMAGES", (1, 2, 4, 3))
    common = dict(kinds=("forward",), engines=("vjp",), rounds=1, out=tmp_path)
    rows = benchmark(shapes=(), images=True, peers=True, **common)
    names = ["conv_lstm, vjp", "stack, scan, remat=step", peers.CONV]
    assert [row["candidate"] for row in rows] == names
    assert all(row["times_as_fast"][peers.CONV] > 0 for row in rows)
    cell = f"{Path(__file__).parents[1] / 'user_cells.py'}:unit"
    rows = benchmark(shapes=TINY["shapes"], cell=cell, **common)
    assert [row["candidate"] for row in rows] == ["lstm, vjp", "unit, vjp"]
    assert rows[1]["ms"] and rows[1]["peak_share"] is None


@pytest.mark.parametrize(
    "arguments",
    [["--rounds=3", "--peers"], ["layers", "--rounds=3", "--peers"], []],
)
def test_layers_need_not_be_named(arguments, monkeypatch):
    module = sys.modules["experiments.benchmark"]
    asked = []
    monkeypatch.setattr(module, "benchmark", asked.append)
    assert module.main(arguments) == 0
    changes = dict(rounds=3, peers=True) if arguments else {}
    assert asked == [dataclasses.replace(module.Layers(), **changes)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shapes", "pixel"], "did you mean pixels?"),
        (["--shapes=1,2,3"], "B,T,F,D as 8,64,3,16"),
        (["--cell=nowhere.py:f"], "give FILE.py:FUNCTION"),
        (["--rounds=0"], "it must be 1 or more"),
        (["--grow=5"], "lengths start at T=64"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, words, tmp_path, capsys):
    main = sys.modules["experiments.benchmark"].main
    assert main([*arguments, f"--out={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
