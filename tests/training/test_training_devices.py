import subprocess
import sys
from pathlib import Path

import jax
import pytest
from selection import slow_but

from lstm_jax.training import devices as d

HERE = "1 x cpu (cpu)"
HELD = "The TPU is already in use by process with pid 4711."


@pytest.mark.parametrize(
    "name, error, words",
    [
        (
            "tpu",
            RuntimeError("INTERNAL: Failed to open libtpu.so: cannot open shared"),
            ["without support", 'pip install "jax[tpu]"', "restart", HERE],
        ),
        (
            "tpu",
            RuntimeError("UNKNOWN: No jellyfish device found."),
            ["this machine has no TPU", "runtime that has one", HERE],
        ),
        ("tpu", RuntimeError(HELD), ["another process", "train(...)", "Stop", HERE]),
        (
            "tpu",
            RuntimeError("Unknown backend: 'tpu' requested"),
            ["already initialized", "Restart Python", HERE],
        ),
        ("gpu", AssertionError(), ["no NVIDIA GPU", 'pip install "jax[cuda13]"', HERE]),
        (
            "gpu",
            RuntimeError("Unknown backend: 'gpu' requested"),
            ["no NVIDIA GPU", "already initialized", 'pip install "jax[cuda13]"'],
        ),
        (
            "gpu",
            RuntimeError("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"),
            ["this machine has no GPU", HERE],
        ),
        (
            "gpu",
            RuntimeError("all CUDA-capable devices are busy or unavailable"),
            ["another process", "train(...)"],
        ),
        ("gpu", RuntimeError("odd\nmore"), ["odd", 'pip install "jax[cuda13]"', HERE]),
        ("gpu", KeyError(), ["KeyError", HERE]),
        ("auto", RuntimeError(HELD), ["another process", "--accelerator=cpu", HERE]),
    ],
)
def test_every_cause_has_its_message(monkeypatch, name, error, words):
    def fail(*args):
        raise error

    monkeypatch.setattr(d.jax, "devices", fail)
    monkeypatch.setattr(d, "_available", lambda: HERE)
    before = jax.config.jax_platforms
    with pytest.raises(d.AcceleratorError) as caught:
        d.select_accelerator(name)
    for word in words:
        assert word in str(caught.value)
    assert "more" not in str(caught.value).splitlines()[0]
    assert jax.config.jax_platforms == before


def test_a_held_device_needs_no_installation():
    assert "Install" not in d.accelerator_message("tpu", RuntimeError(HELD), HERE)


def test_unknown_accelerator():
    with pytest.raises(ValueError, match="'cuda', want one of auto, cpu, gpu, tpu"):
        d.select_accelerator("cuda")


SCRIPT = """
import sys, jax
from lstm_jax.training import AcceleratorError, select_accelerator
try:
    select_accelerator(sys.argv[1])
except AcceleratorError as error:
    print(error)
print(select_accelerator("cpu")[0].platform, select_accelerator("auto")[0].platform)
"""


@pytest.mark.parametrize("name", slow_but(["gpu", "tpu"], "gpu"))
def test_missing_accelerator_leaves_python_usable(name):
    if any(device.platform == name for device in jax.devices()):
        pytest.skip(f"this machine has a {name}")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert d.INSTALL[name] in run.stdout
    assert "(cpu)" in run.stdout
    assert run.stdout.splitlines()[-1] == "cpu cpu"


def test_available_when_the_default_is_broken(monkeypatch):
    found = jax.devices()

    def devices(*args):
        if jax.config.jax_platforms != "cpu":
            raise RuntimeError("held")
        return found

    monkeypatch.setattr(jax, "devices", devices)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "")
    try:
        assert d._available().startswith(f"{len(found)} x ")
        assert jax.config.jax_platforms == ""
    finally:
        jax.config.update("jax_platforms", before)


def test_mesh_has_automatic_axes():
    mesh = d.data_mesh(jax.devices())
    assert mesh.axis_names == ("data",)
    assert mesh.size == len(jax.devices())
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,)


@pytest.mark.parametrize(
    "size, words",
    [(100, "use 96 or 104"), (3, "use 8$"), (0, "use 8$"), (-9, "use 8$")],
)
def test_batch_size_that_does_not_fit(size, words):
    with pytest.raises(ValueError, match=f"batch size {size} .* 8 devices: {words}"):
        d.check_batch_size(size, 8)


def test_batch_size_that_fits():
    d.check_batch_size(96, 8)


def test_compiled_programs_are_kept_where_jax_was_told_or_apart_by_processor(tmp_path):
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update(names[0], str(tmp_path / "told"))
        d.enable_compilation_cache(tmp_path / "ours")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "told")
        jax.config.update(names[0], None)
        d.enable_compilation_cache(tmp_path / "ours")
        found = Path(jax.config.jax_compilation_cache_dir)
        assert found.parent == tmp_path / "ours" and len(found.name) == 12
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.3
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
