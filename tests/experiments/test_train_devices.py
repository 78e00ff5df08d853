"""However many devices and processes there are: the same training."""

import json
import signal
import socket
import time

import jax
import numpy as np
import pytest
from small_runs import SMALL_FLAGS

from experiments import predict
from experiments.train import STOPPED

pytestmark = pytest.mark.slow
CURVE = (
    "--accelerator=cpu --steps=40 --eval-every=20 --log-every=1 --no-baselines "
    "--test-checkpoint=last --model.features=16 --model.layers=1 --batch-size=32"
).split()


def rows(folder, split="train"):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return {row["step"]: row["loss"] for row in found if row["split"] == split}


def two_processes(start_train, *flags, devices=2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"--distributed --processes=2 --coordinator=127.0.0.1:{port}".split()
    return [
        start_train(*flags, *where, f"--process-id={i}", devices=devices)
        for i in range(2)
    ]


def finished(child, *codes, timeout=240):
    out, err = child.communicate(timeout=timeout)
    assert child.returncode in (codes or (0,)), (child.returncode, out, err)
    return out + err


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, start_train):
    folder = tmp_path_factory.mktemp("one") / "run"
    finished(start_train(*CURVE, f"--run-dir={folder}"))
    return folder


def assert_same_run(folder, wanted):
    for split in ("train", "validation"):
        got, want = rows(folder, split), rows(wanted, split)
        assert list(got) == list(want)
        # Sums of float32 in another order; 2e-7 where this was first run.
        np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-5)
    reports = [json.loads((f / "report.json").read_text()) for f in (folder, wanted)]
    got, want = (report["test"]["confusion_matrix"] for report in reports)
    assert got == want and sum(map(sum, got)) == 360  # each example once


def test_eight_devices(one_device, start_train, tmp_path):
    finished(start_train(*CURVE, f"--run-dir={tmp_path / 'run'}", devices=8))
    assert_same_run(tmp_path / "run", one_device)


def test_two_processes_of_two_devices(one_device, start_train, tmp_path):
    children = two_processes(start_train, *CURVE, f"--run-dir={tmp_path / 'run'}")
    for child in children:
        finished(child)
    assert_same_run(tmp_path / "run", one_device)


@pytest.mark.parametrize(
    "flags",
    [["--parallel=pmap"], ["--grad-accum-steps=4"], ["--data-placement=stream"]],
    ids=["pmap", "accumulate", "stream"],
)
def test_other_ways_to_the_same_numbers(flags, one_device, start_train, tmp_path):
    devices = 1 if "stream" in flags[0] else 8
    flags = [*CURVE, *flags, f"--run-dir={tmp_path / 'run'}"]
    finished(start_train(*flags, devices=devices))
    assert_same_run(tmp_path / "run", one_device)


def until_saved(folder, least, seconds=120):
    end = time.monotonic() + seconds
    while steps_saved(folder) < least:
        assert time.monotonic() < end
        time.sleep(0.05)


def steps_saved(folder):
    found = folder / "checkpoints"
    names = [path.name for path in found.iterdir()] if found.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


LONG = [f for f in CURVE if "steps" not in f and "every" not in f] + (
    "--steps=4000 --log-every=16 --eval-every=32 --model.features=8 --batch-size=16"
).split()


def test_sigterm_to_one_of_two_stops_both_and_other_devices_go_on(
    start_train, tmp_path
):
    folder = tmp_path / "run"
    flags = [*LONG, f"--run-dir={folder}"]
    first, second = two_processes(start_train, *flags)
    until_saved(folder, 32)
    second.send_signal(signal.SIGTERM)
    outs = [finished(child, STOPPED) for child in (first, second)]
    step = steps_saved(folder)
    assert f"stopped by SIGTERM at step {step:,}" in outs[0]
    assert max(rows(folder)) == step  # not one step is lost
    for devices in (4, 1):
        child = start_train(*flags, devices=devices)
        until_saved(folder, step + 1)
        child.send_signal(signal.SIGTERM)
        out = finished(child, STOPPED)
        assert f"resuming at step {step:,} of" in out
        assert f"on {devices} cpu device(s)" in out
        step = steps_saved(folder)


def test_a_process_that_is_killed_ends_the_other(start_train, tmp_path):
    folder = tmp_path / "run"
    flags = [*LONG, f"--run-dir={folder}"]
    first, second = two_processes(start_train, *flags)
    until_saved(folder, 32)
    second.kill()
    # A closed connection is noticed at once; a save under way waits up to 60 s for the
    # other, and the runtime may then abort before we can say why.
    out = finished(first, 2, -signal.SIGABRT, timeout=120)
    if first.returncode == 2:
        assert "another process of this run died" in out
        assert "Restart all processes" in out
    second.communicate()
    step = steps_saved(folder)
    child = start_train(*flags, devices=1)
    until_saved(folder, step + 1)
    child.send_signal(signal.SIGTERM)
    assert f"resuming at step {step:,} of" in finished(child, STOPPED)


def test_a_checkpoint_of_eight_devices_answers_on_one(start_train, tmp_path, photos):
    folder = tmp_path / "run"
    flags = [*SMALL_FLAGS, f"--run-dir={folder}", f"--data={photos}", "--data.size=12"]
    finished(start_train(*flags, devices=8))
    assert len(jax.devices()) < 8
    answers = predict(folder, photos / "across")
    assert sum("label" in answer for answer in answers) == 24
