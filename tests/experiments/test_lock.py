"""One process at a time writes in the folder of a run."""

import json
import os
import platform
import subprocess
import sys

import pytest

from experiments.errors import UsageError
from experiments.run import lock
from experiments.run.lock import locked

HOLD = """
import os, sys, time
from pathlib import Path
from experiments.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
    if sys.argv[2] == "dies":
        os._exit(9)
"""


@pytest.fixture
def holder(tmp_path):
    """`held(how)` starts a process that holds the lock until its input ends."""
    started = []

    def hold(how):
        child = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        assert child.stdout.readline() == "held\n"
        return child

    yield hold
    for child in started:
        child.kill()
        child.communicate()


def test_the_second_process_is_told_who_holds_it(holder, tmp_path):
    child = holder("ends")
    who = f"in use by process {child.pid} on {platform.node()} since 20"
    for _ in range(2):
        with pytest.raises(UsageError, match=who) as caught, locked(tmp_path):
            pass
        assert "\n" not in str(caught.value)
    child.communicate()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_dead_process_is_taken_over(holder, tmp_path):
    holder("dies").communicate()
    assert (tmp_path / lock.NAME).exists()
    with locked(tmp_path):
        held = json.loads((tmp_path / lock.NAME).read_text())
        assert held["pid"] == os.getpid()


def test_one_process_holds_it_once(tmp_path):
    with locked(tmp_path), pytest.raises(UsageError, match=str(os.getpid())):
        with locked(tmp_path):
            pass


def test_a_process_that_writes_nothing_locks_nothing(tmp_path):
    with locked(None), locked(None), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    "change, held",
    [
        ({}, True),
        ({"ticks": 1}, False),  # another process has its number now
        ({"boot": "of last week"}, False),
        ({"pid": 2**22 + 1}, False),
        ({"host": "elsewhere"}, True),
        ({"pid": "x"}, False),
        (None, False),
    ],
)
def test_where_the_disk_has_no_locks_the_file_tells(
    tmp_path, monkeypatch, change, held
):
    monkeypatch.setattr(lock, "_flock", lambda file: None)
    text = "" if change is None else json.dumps(lock._this_process() | change)
    (tmp_path / lock.NAME).write_text(text)
    if held:
        with pytest.raises(UsageError, match="in use by"), locked(tmp_path):
            pass
    else:
        with locked(tmp_path):
            pass


def test_a_command_refuses_a_folder_in_use(copied_run, command):
    directory, flags = copied_run
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    with locked(directory):
        for more in ([], ["--overwrite"]):
            code, _, err = command("train", *flags, *more)
            assert code == 2 and len(err.splitlines()) == 1
            assert f"{directory} is in use by process {os.getpid()}" in err
    assert before == {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    assert command("train", *flags, "--overwrite")[0] == 0
    assert not (directory / lock.NAME).exists()
