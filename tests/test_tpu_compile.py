"""The training step, compiled for TPUs by the compiler that TPUs have."""

import dataclasses
import importlib.util

import pytest

from experiments.config import preset
from experiments.measuring import tpu as tpu_compile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
    ),
]


@pytest.mark.parametrize("topology, chips", [("v5e:1x1", 1), ("v5e:2x2", 4)])
@pytest.mark.parametrize("name", ["digits", "fashion-rows"])
def test_the_training_step(name, topology, chips):
    config = dataclasses.replace(preset(name), batch_size=64 * chips)
    found = tpu_compile.compile_for(topology, config, examples=2000, image=(28, 28, 1))
    assert found["chips"] == chips
    # All gradients, and the sums of the metrics, travel at once.
    assert found["all_reduces"] == (chips > 1)
    # The state is updated in place; the compiler pads its leaves.
    assert found["aliased"] >= found["state"]
    pictures = 2000 * 28 * 28
    # Pictures are padded by less than a half, and are not copied.
    assert found["arguments"] < found["state"] * 1.2 + 1.5 * pictures + 1e6


def test_the_published_forecaster_on_eight_chips():
    config = preset("moving-fashion")  # a batch of 16, two clips a chip
    reads = tpu_compile.READS["moving-fashion"]
    found = tpu_compile.compile_for("v5e:2x4", config, **reads)
    # 47 MB of gradients: XLA joins them up to a size.
    assert found["chips"] == 8 and 1 <= found["all_reduces"] <= 4
    assert found["aliased"] >= found["state"] > 3 * 4 * 11_675_648
    assert found["temporary"] + found["arguments"] < 16e9  # of a chip's memory


def test_an_unknown_slice():
    with pytest.raises(RuntimeError, match="no compiler for v9z:2x2"):
        reads = tpu_compile.READS["fashion-rows"]
        tpu_compile.compile_for("v9z:2x2", preset("digits"), **reads)
