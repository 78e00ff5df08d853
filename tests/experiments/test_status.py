"""What a run says before its first step: at once, and only once outside a terminal."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.run import display as display_module
from experiments.run import status as status_module
from experiments.run.display import Display
from experiments.run.status import Status
from lstm_jax import data


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time that both modules see; `clock[0] = 5.0` sets it."""
    now = [1.0]
    monkeypatch.setenv("TERM", "xterm")
    for module in (status_module, display_module):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_first_line_comes_before_jax_is_imported(tmp_path):
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "from experiments.train import main\n"
        f"main(['--data={tmp_path}/photos', '--run-dir={tmp_path}/run'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "reading photos\n"
    assert "jax" in done.stderr.splitlines()[-1]


def test_outside_a_terminal_only_the_first_text_is_printed(clock):
    stream = io.StringIO()
    with Status("reading \x1b[31mphotos", stream) as status:
        for done in range(101):
            clock[0] += 1
            status.count(done, 100)
        status.show("measuring the data")
    assert stream.getvalue() == "reading \\x1b[31mphotos\n"


def test_a_count_is_refreshed_by_time(clock):
    stream = Terminal()
    with Status("reading photos", stream) as status:
        for done in range(10_001):
            clock[0] += 0.001
            status.count(done, 10_000)
    lines = stream.getvalue().split("\r\x1b[2K")
    assert lines[:2] == ["", "reading photos ..."]
    assert lines[-2:] == [
        "reading photos: 10,000 of 10,000 files; comparing them",
        "",  # erased
    ]
    assert 48 < len(lines) < 56  # 10 s at 5 refreshes a second


def test_another_process_of_a_run_shows_nothing(clock):
    stream = Terminal()
    with Status("", stream) as status:
        status.count(1, 2)
        status.show("x")
    assert stream.getvalue() == ""


def test_compiling_and_the_first_step_are_told_apart(clock):
    stream = Terminal()
    with Display(stream) as display:
        display.start(100)
        for step, seconds in ((0, 5.0), (1, 2.0), (2, 0.001), (9, 1.0)):
            clock[0] += seconds
            display.progress(step)
    shown = stream.getvalue()
    at = [shown.find(t) for t in ("0/100", "compiling", "first step", "1/100", "9/100")]
    assert -1 not in at and at == sorted(at)
    assert "2/100" not in shown  # too soon after the last refresh


def test_compilation_is_timed_in_a_file(clock):
    stream = io.StringIO()
    with Display(stream) as display:
        display.start(100, 40)
        clock[0] += 12.0
        for step in (40, 41, 42):
            display.progress(step)
    assert stream.getvalue() == "step 40/100  compiled in 12 s\n"


def test_loaders_tell_how_many_files_are_read(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "p" / label).mkdir(parents=True)
        for k in range(4):
            pixels = rng.integers(0, 256, (4, 4), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "p" / label / f"{k}.png")
    told = []
    options = dict(progress=lambda *pair: told.append(pair))
    data.load(tmp_path / "p", data_dir=tmp_path / "c", **options)
    assert told == [(k, 8) for k in range(9)]
