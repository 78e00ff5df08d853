"""Layers and training steps, compiled for devices that are not here."""

import importlib

import pytest

from experiments.benchmarks import compile_tables, compiled, targets
from experiments.benchmarks.options import Compile
from experiments.benchmarks.programs import READS
from experiments.errors import UsageError


def needs(kind: str):
    return [
        pytest.mark.slow,
        pytest.mark.optimized,
        pytest.mark.skipif(
            targets.compiler(kind) is None, reason=targets.how_to_install(kind)
        ),
    ]


def layers(target, *, engines=("scan", "vjp"), shape=(128, 28, 28, 128), **more):
    return [
        {
            "target": target,
            "layer": dict(engine=engine, shape=shape, kind=kind, dtype="float32"),
            **more,
        }
        for engine in engines
        for kind in ("forward", "gradient")
    ]


def training_steps(target, chips, *names):
    changes = {"batch_size": 64 * chips}
    reads = dict(examples=2000, image=(28, 28, 1))
    return [
        {"target": target, "step": dict(name=name, changes=changes, **reads)}
        for name in names
    ]


class TestTpu:
    pytestmark = needs("tpu")

    def test_the_loops_of_a_layer(self):
        rows = list(compiled.compile_all(layers("v5e")))
        for row in rows:
            assert row["error"] is None
            kind = row["layer"]["kind"]
            assert len(row["loops"]) == {"forward": 1, "gradient": 2}[kind]
            for loop in row["loops"]:
                assert loop["fusions"] > 0 and loop["cycles"] > 0
                assert loop["longest_copy"] <= 1000
                # The recurrent weights stay in fast memory.
                assert loop["weights"] == loop["weights_in_vmem"] == 1
                assert loop["all_reduces"] == 0

    def test_a_layer_beside_flax(self):
        """XLA's estimates and bytes, B=64 T=128 F=D=512; counted, so they hold."""
        layer = dict(shape=(64, 128, 512, 512), kind="gradient", dtype="bfloat16")
        jobs = [
            {"target": "v5e", "layer": layer | {"engine": engine}}
            for engine in ("auto", "flax")
        ]
        ours, flax = compiled.compile_all(jobs)
        cycles = [[loop["cycles"] for loop in row["loops"]] for row in (ours, flax)]
        forward, backward = zip(*cycles, strict=True)
        assert 3 * forward[0] <= forward[1] and 3 * backward[0] <= backward[1]
        assert ours["temporary"] <= 0.45 * flax["temporary"]
        assert all(loop["weights_in_vmem"] == 1 for loop in ours["loops"])

    @pytest.mark.parametrize("topology, chips", [("v5e:1x1", 1), ("v5e:2x2", 4)])
    def test_the_training_step(self, topology, chips):
        jobs = training_steps(topology, chips, "digits", "fashion-rows")
        for found in compiled.compile_all(jobs):
            assert found["error"] is None and found["devices"] == chips
            # All gradients, and the sums of the metrics, travel at once.
            assert found["all_reduces"] == (chips > 1)
            # The state is updated in place; the compiler pads its leaves.
            assert found["aliased"] >= found["state"] > 0
            pictures = 2000 * 28 * 28
            # Pictures are padded by less than a half, and are not copied.
            assert found["arguments"] < found["state"] * 1.2 + 1.5 * pictures + 1e6

    def test_the_published_forecaster_on_eight_chips(self):
        # A batch of 16, two clips a chip.
        step = dict(name="moving-fashion", changes={}, **READS["moving-fashion"])
        (found,) = compiled.compile_all([{"target": "v5e:2x4", "step": step}])
        assert found["error"] is None
        # 47 MB of gradients: XLA joins them up to a size.
        assert found["devices"] == 8 and 1 <= found["all_reduces"] <= 4
        assert found["aliased"] >= found["state"] > 3 * 4 * 11_675_648
        assert found["temporary"] + found["arguments"] < 16e9  # of a chip's memory

    def test_an_unknown_slice(self):
        (row,) = compiled.compile_all(layers("v5e:9x9", engines=["scan"])[:1])
        assert "no compiler for v5e:9x9" in row["error"]


class TestCuda:
    pytestmark = needs("cuda")

    def test_the_loops_of_a_layer(self):
        for row in compiled.compile_all(layers("h200") + layers("h100")):
            assert row["error"] is None
            kind = row["layer"]["kind"]
            assert len(row["loops"]) == {"forward": 1, "gradient": 2}[kind]
            for loop in row["loops"]:
                assert loop["trips"] == 28 and loop["fusions"] > 0
                assert loop["on_host"] and loop["launches"] > 0

    def test_loops_in_a_command_buffer(self):
        options = {
            "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,WHILE",
            "xla_disable_hlo_passes": "fusion-dynamic-memcpy-rewriter",
        }
        jobs = layers("h200", engines=["vjp"], options=options)
        for row in compiled.compile_all(jobs):
            assert row["error"] is None
            assert not any(loop["on_host"] for loop in row["loops"])

    def test_the_training_step(self):
        for found in compiled.compile_all(training_steps("h200", 1, "fashion-rows")):
            assert found["error"] is None and found["devices"] == 1
            assert found["aliased"] >= found["state"] > 0


def test_without_compilers(monkeypatch, capsys):
    monkeypatch.setattr(targets, "compiler", lambda kind: None)
    (row,) = compiled.compile_all(layers("v6e")[:1])
    assert "pip install --no-deps --target=" in row["error"]
    options = Compile(targets=("v5e", "v6e", "h200"))
    rows = compile_tables.compile_programs(options)
    assert rows == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "no compiler for tpu",
        "no compiler for cuda",
    ]
    assert "libtpu" in lines[0] and "jax-cuda12-pjrt==" in lines[1]


@pytest.mark.parametrize("target", ["v9z", "h200:2", "v9z:2x2"])
def test_an_unknown_device(target):
    with pytest.raises(UsageError, match="choose from v4, v5e"):
        list(compiled.compile_all(layers(target)))


def test_words_that_are_not_known(capsys):
    with pytest.raises(UsageError, match="--presets digits: choose from fashion-rows"):
        compile_tables.compile_programs(Compile(presets=("digits",)))
    with pytest.raises(ValueError, match="did you mean pixels"):
        compile_tables.compile_programs(Compile(shapes=("pixel",)))
    with pytest.raises(SystemExit):
        importlib.import_module("experiments.benchmark").main(
            ["compile", "--kinds", "backward"]
        )
    assert "backward" in capsys.readouterr().err


def test_one_dead_process_is_one_lost_program(monkeypatch):
    # `compile_all` starts another for the jobs that are left.
    def dying(target, jobs):
        for job in jobs:
            if job["layer"]["engine"] == "crash":
                return
            yield {"error": None, "found": job["layer"]["kind"]}

    monkeypatch.setattr(compiled, "_compiled_apart", dying)
    monkeypatch.setattr(targets, "compiler", lambda kind: ".")
    jobs = layers("v5e", engines=["scan", "crash", "vjp"])
    rows = list(compiled.compile_all(jobs))
    assert [row["layer"] for row in rows] == [job["layer"] for job in jobs]
    died = [row["error"] is not None for row in rows]
    assert died == [False, False, True, True, False, False]
    assert all(row["found"] == row["layer"]["kind"] for row in rows if not row["error"])
