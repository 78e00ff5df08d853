"""Loads the predictor from a run folder, a weights file or an exported file."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from experiments.errors import UsageError
from experiments.run.load_run import saved_run
from experiments.tasks import TASKS

_EXPORTED = ".jaxexport"
_WEIGHTS = ".safetensors"
_OTHERS = {  # other formats of models, by suffix
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".ckpt": "a PyTorch file",
    ".onnx": "an ONNX model, which ONNX Runtime runs",
    ".h5": "a Keras file",
    ".keras": "a Keras file",
    ".mlmodel": "a Core ML model, which `ketos convert` turns into .safetensors",
}


def load(run: str | Path, tables: Any = None):
    """The `Predictor` of a run or file, cached until that is rewritten.

    Args:
      run: folder or file.
      tables: options for tables, with the fields `columns`, `encoding` and
        `follow_outside`.

    Raises:
      ValueError: there is no run, or the file has another format.
    """
    if Path(run).is_file():
        paths = [Path(run)]
    else:
        paths = [Path(run, name) for name in ("config.json", "report.json")]
    times = (path.stat().st_mtime for path in paths if path.exists())
    found = _load(str(run), tuple(times))
    if tables is None:
        return found
    from lstm_jax import data

    form = data.table_format(tables.columns, tables.encoding, tables.follow_outside)
    return dataclasses.replace(found, tables=form)


@functools.lru_cache(maxsize=4)
def _load(run: str, written: tuple[float, ...]):
    check_format(run)
    return source(run).predictor(run)


def check_format(run: str | Path) -> None:
    """Checks by its suffix that a file has a format that `predict` loads.

    Raises:
      UsageError: it has another format; the message names the supported ones.
    """
    path = Path(run).expanduser()
    if path.suffix.lower() in (_EXPORTED, _WEIGHTS) or path.is_dir():
        return
    if path.is_file() or path.suffix.lower() in _OTHERS:
        kind = _OTHERS.get(path.suffix.lower(), "neither a run folder nor its weights")
        raise UsageError(
            f"{run}: {kind}; give a run folder, such as runs/digits, or a .safetensors "
            "or .jaxexport file that `python -m experiments.export` wrote"
        )


def is_exported(run: str | Path) -> bool:
    return str(run).endswith(_EXPORTED)


def source(run: str | Path):
    """The module that loads the predictor; that of exported files needs no Flax."""
    if is_exported(run):
        from experiments.prediction import exported as module
    else:
        from experiments.prediction import trained as module
    return module


def start(run: Path, accelerator: str):
    """Selects the device.

    Returns:
      The run's `TaskKind`, which determines the formats of `--out`; None for an
      exported file, and if there is no run, for which loading raises the error.
    """
    check_format(run)
    if is_exported(run):
        source(run).start(accelerator)
        return None
    saved = saved_run(run)
    from lstm_jax import data, training

    training.select_accelerator(accelerator)
    if saved is None:
        return None
    kind = TASKS[saved["config"]["task"]["name"]]
    if kind.bucketed:  # compiles a program for each width
        training.enable_compilation_cache(data.default_root() / "compiled")
    return kind
