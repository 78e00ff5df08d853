"""Random cases of `unroll` equal a plain loop in float64: see random_cases.py.

How many, such as RANDOM_CASES=20000; a quarter of them is on meshes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import random_cases
from forced_devices import forced_devices
from random_cases import CASES, Configuration, check, failures, program

COUNT = int(os.environ.get("RANDOM_CASES", 2000))
EVERYTHING = ("xs", "lengths", "mask", "resets", "carry")
FEW = {
    "masks and a carry": Configuration("gru", given=EVERYTHING, reverse=True),
    "chunks": Configuration("dropout", given=("xs", "lengths", "keys"), cut=1),
    "consts": Configuration("attention", given=("xs", "mask"), remat="step"),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FEW)
def test_a_few_random_cases_equal_the_loop(name):
    run = program(FEW[name])
    for seed in range(8):
        check(FEW[name], run, seed)


@pytest.mark.usefixtures("x64")
def test_what_differs_from_the_loop_is_found():
    config = FEW["masks and a carry"]
    run = program(config)

    def off(at, wanted):
        found, grads = run(at, wanted)
        return found, grads | {"params": [1.001 * g for g in grads["params"]]}

    with pytest.raises(AssertionError, match=r"\['gradient'\]\['params'\].* off by"):
        check(config, off, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_many_random_cases_equal_the_loop(name):
    found = failures(name, 3 * COUNT // (4 * len(CASES)) + 1)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_many_random_cases_on_meshes_equal_the_loop():
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | forced_devices(8) | {"PYTHONPATH": path}
    count = COUNT // (4 * len(CASES)) + 1
    command = [sys.executable, random_cases.__file__, str(count), *CASES]
    out = subprocess.run(command, env=env, capture_output=True, text=True)
    wanted = [f"checked {name}" for name in CASES]
    assert out.stdout.splitlines() == wanted, out.stdout + out.stderr[-3000:]
