"""Small runs, each test in a folder of its own; prepared data is shared."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from forced_devices import forced_devices
from small_runs import (
    ODD_NAMES,
    SAVE_FIGURE,
    SMALL,
    SMALL_FLAGS,
    SMALL_MODEL,
    blank_figure,
    draw,
    last_of_each,
)

from experiments import report, train
from experiments.config import preset
from experiments.experiment import load_data
from experiments.run import record
from experiments.run.sealed import read_sealed, write_sealed

jax.devices()  # started, so that no command gives this process other devices

ROOT = Path(__file__).parents[2]
# Collecting it for doctests would import it, and what it adds would stay in the tables.
collect_ignore = ["added"]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """One folder for all workers of a session."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def prepared_data(shared_folder):
    """No test reads or writes the data of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_JAX_DATA", str(shared_folder / "prepared"))
        patch.setenv("PYTHONPATH", str(ROOT))
        # Made now, for its progress is told on stderr, which tests read.
        load_data(preset("digits"))
        yield


@pytest.fixture(scope="module", autouse=True)
def blank_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "save_figure", blank_figure)
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Figures are saved as a user gets them."""
    monkeypatch.setattr(record, "save_figure", SAVE_FIGURE)


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """A run without a --run-dir goes below the working folder."""
    folder = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run_python():
    """`python ARGUMENTS…` in a process of its own, finished."""

    def run(*arguments, timeout=120, **environment):
        return subprocess.run(
            [sys.executable, *last_of_each(arguments)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def start_train(prepared_data):
    """`experiments.train FLAGS…` on some devices, in a process of its own, started."""

    def start(*flags, devices=1, **environment):
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.train", *last_of_each(flags)],
            env=os.environ | forced_devices(devices) | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def command(capsys):
    """A command line in this process: `(exit code, stdout, stderr)`.

    Of a flag that is given several times the last counts.
    """

    def run(name, *arguments):
        # The attribute `train` of the package is the function, not the module.
        module = importlib.import_module(f"experiments.{name}")
        capsys.readouterr()
        try:
            code = module.main(last_of_each(arguments))
        except SystemExit as stop:  # what tyro does
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, prepared_data):
    """A finished run on digits, with checkpoints at 10 and 20 and baselines."""
    options = SMALL | SMALL_MODEL | dict(baselines=True, eval_every=10)
    directory = tmp_path_factory.mktemp("finished") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "save_figure", blank_figure)
        return train("digits", run_dir=directory, **options)


@pytest.fixture
def copied_run(digits_run, tmp_path):
    """A copy of the finished run to spoil, and the flags that go on in it."""
    directory = tmp_path / "copy"
    shutil.copytree(digits_run.directory, directory)
    return directory, [*SMALL_FLAGS, "--eval-every=10", f"--run-dir={directory}"]


@pytest.fixture(scope="session")
def odd_report(digits_run, tmp_path_factory):
    """A report of a copy of the finished run, whose names would spoil a page."""
    odd = ODD_NAMES + [f"class {k}" for k in range(len(ODD_NAMES), 10)]
    directory = tmp_path_factory.mktemp("reports") / '<b>&"digits'
    shutil.copytree(digits_run.directory, directory)
    path = directory / "config.json"
    saved = read_sealed(path)
    saved["data"]["classes"] = odd
    write_sealed(path, saved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.reporting.page.DPI", 40)
        return report(directory)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A person's folder: sizes, colours and formats mixed, and one truncated file."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    rng = np.random.default_rng(0)
    sizes, modes = [(12, 12), (20, 14), (9, 16)], ["L", "RGB", "RGBA", "P"]
    for label in ("across", "down"):
        for i in range(24):
            mode = modes[i % 4]
            suffix = "jpg" if i % 2 and mode == "RGB" else "png"
            draw(folder / label / f"{i:02}.{suffix}", label, rng, sizes[i % 3], mode)
    whole = (folder / "across" / "00.png").read_bytes()
    (folder / "across" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder
