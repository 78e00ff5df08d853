"""Predictions with an exported file: `predict model.jaxexport PATH…`.

Needs neither Flax nor the models nor a checkpoint.
"""

from pathlib import Path
from typing import Any

import jax

from experiments.errors import UsageError
from experiments.prediction import live
from experiments.prediction.predictor import Predictor
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax.export import jaxexport

_PLATFORMS = {"gpu": "cuda"}


def predictor(path: str | Path) -> Predictor:
    """The `Predictor` of an exported file, equal to that of its run.

    Raises:
      ValueError: the file cannot be read, is for other devices, or holds a task whose
        predictions need the run folder.
    """
    path = Path(path).expanduser()
    about, functions = _read(path)
    here = jax.default_backend()
    here = _PLATFORMS.get(here, here)
    if here not in functions["answer"].platforms:
        known = ", ".join(functions["answer"].platforms)
        raise UsageError(
            f"{path} was exported for {known}, not for {here}; give --accelerator, or "
            "export again"
        )
    if not _is_supported(about):
        raise UsageError(
            f"{path}: predict does not support {about['task']} from an exported file; "
            "give the run folder, or call the file as in docs/interop.md"
        )
    run = jaxexport.runner(path, functions["answer"])
    sampling = about["inputs"].get("sampling", "uniform")
    kind = TASKS[about["task"]]
    tuned = {"thresholds": about["thresholds"]} if "thresholds" in about else {}

    def apply(batch):
        return run(*batch.values())

    return Predictor(kind, _spec(about), apply, sampling, tuned=tuned)


def watch(path: str | Path, source: str, every: int = 25) -> dict[str, Any]:
    """Predicts frame by frame with the streaming step of a file; see `live.watch`.

    Raises:
      ValueError: the file has no streaming step.
    """
    path = Path(path).expanduser()
    about, functions = _read(path)
    if "step" not in functions:
        raise UsageError(
            f"{path} has no streaming step for --live; export it with --streaming"
        )
    if about["inputs"]["kind"] != "clips":
        raise UsageError(f"{path}: --live needs frames, but the run is on features")

    spec, kind = _spec(about), TASKS.get(about["task"])

    def words(frame, before, now):
        supported = _is_supported(about)
        return kind.stream_line(spec, frame, before, now) if supported else ""

    start, step = (jaxexport.runner(path, functions[n]) for n in ("start", "step"))
    shape = tuple(about["inputs"]["shape"])
    return live.watch(source, shape, start(), step, words, every)


def start(accelerator: str) -> None:
    """Selects the device.

    Raises:
      UsageError: JAX finds none of that kind.
    """
    if accelerator == "auto":
        return
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", _PLATFORMS.get(accelerator, accelerator))
    try:
        jax.devices()
    except Exception as error:  # AssertionError, RuntimeError, plugin errors
        jax.config.update("jax_platforms", before)
        raise UsageError(
            f"--accelerator={accelerator}: JAX finds no such device here"
        ) from error


def _read(path: Path) -> jaxexport.ExportedFile:
    """Reads a file and checks that its outputs match its classes."""
    about, functions = jaxexport.read(path)
    shape, classes = functions["answer"].out_avals[0].shape, about["classes"]
    if classes and _is_supported(about) and shape[-1:] != (len(classes),):
        raise jaxexport.bad_file(
            path, f"its outputs are {shape}, its about.json has {len(classes)} classes"
        )
    return jaxexport.ExportedFile(about, functions)


def _is_supported(about: dict[str, Any]) -> bool:
    return about["task"] in TASKS and TASKS[about["task"]].shown_from_file


def _spec(about: dict[str, Any]) -> DataSpec:
    """The `DataSpec` of about.json; normalisation is part of the exported function."""
    inputs, classes = about["inputs"], about["classes"]
    frames = [inputs["frames"]] if "frames" in inputs else []
    shape = [*frames, *inputs["shape"]]
    known = dict(depth=inputs.get("depth"), fit=inputs.get("fit", "squash"))
    return DataSpec(
        about.get("dataset", ""), classes, shape, len(classes), [], [], **known
    )
