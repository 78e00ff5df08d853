"""One device or eight, jit or pmap: the same training."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

RUNS = """
import sys
import jax, numpy as np
from experiments import train

for name, options in eval(sys.argv[1]).items():
    run = train("digits", run_dir=name, accelerator="cpu", baselines=False,
                select="last", **options)
    leaves = jax.tree.leaves(jax.device_get(run.params))
    np.savez(name + ".npz", *leaves)
print(len(jax.devices()), "devices")
"""


def start(devices, runs):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", RUNS, repr(runs)],
        env=os.environ | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_eight_devices_train_as_one_does(own_folder):
    curve = dict(steps=30, log_every=1)
    long = dict(
        steps=100,
        model__features=16,
        model__layers=1,
        model__dropout=0.2,
        data__shift=1,
    )
    one = start(1, {"one": curve})
    eight = start(
        8,
        {"eight": curve, "jit": long, "pmap": long | dict(parallel="pmap")},
    )
    for child, devices in ((one, 1), (eight, 8)):
        out, err = child.communicate(timeout=300)
        assert child.returncode == 0, err
        assert out.endswith(f"{devices} devices\n")

    def losses(name, split):
        rows = [json.loads(line) for line in open(own_folder / name / "metrics.jsonl")]
        return [row["loss"] for row in rows if row["split"] == split]

    assert len(losses("one", "train")) == 30
    for split in ("train", "validation"):
        # Sums over 64 examples in another order, for 30 steps.
        np.testing.assert_allclose(
            losses("one", split), losses("eight", split), atol=1e-5
        )
    jit, pmap = np.load("jit.npz"), np.load("pmap.npz")
    for leaf in jit.files:
        # Float32 rounding, which Adam enlarges where gradients are near 0.
        # Sums of float32 in another order, which 100 steps of Adam let grow.
        np.testing.assert_allclose(jit[leaf], pmap[leaf], atol=1e-4)
    assert any((jit[leaf] != 0).any() for leaf in jit.files)
