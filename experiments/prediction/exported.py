"""Answers by a file that `experiments.export` wrote: `predict model.jaxexport PATH…`.

Nothing here needs Flax, our models, or a checkpoint.
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
    """Of a file; it answers as that of its run does.

    Raises:
      ValueError: the file cannot be read, is for other devices, or its answers are not
        told in words.
    """
    path = Path(path).expanduser()
    about, functions = _read(path)
    here = jax.default_backend()
    here = _PLATFORMS.get(here, here)
    if here not in functions["answer"].platforms:
        known = ", ".join(functions["answer"].platforms)
        raise UsageError(f"{path}: was exported for {known}, not for {here}")
    if not _told_in_words(about):
        raise UsageError(
            f"{path}: the answers of a {about['task']} are not shown from a file; "
            "call it as docs/interop.md says, or give the folder of the run"
        )
    run = jaxexport.runner(path, functions["answer"])
    sampling = about["inputs"].get("sampling", "uniform")
    kind = TASKS[about["task"]]
    return Predictor(kind, _spec(about), lambda x: run(*x.values()), sampling)


def watch(path: str | Path, source: str, every: int = 25) -> dict[str, Any]:
    """Answers frames by the streaming step of a file, as `live.watch` does.

    Raises:
      ValueError: the file has no streaming step.
    """
    path = Path(path).expanduser()
    about, functions = _read(path)
    if "step" not in functions:
        raise UsageError(
            f"{path}: answers whole clips; export the run with --streaming for --live"
        )
    if about["inputs"]["kind"] != "clips":
        raise UsageError(f"{path}: --live wants frames, not features")

    spec, kind = _spec(about), TASKS.get(about["task"])

    def words(frame, before, now):
        told = _told_in_words(about)
        return kind.stream_line(spec, frame, before, now) if told else ""

    start, step = (jaxexport.runner(path, functions[n]) for n in ("start", "step"))
    shape = tuple(about["inputs"]["shape"])
    return live.watch(source, shape, start(), step, words, every)


def start(accelerator: str) -> None:
    """Chooses the device, by JAX alone.

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
    """A file whose answers, where they are one for each class, fit its classes."""
    about, functions = jaxexport.read(path)
    shape, classes = functions["answer"].out_avals[0].shape, about["classes"]
    if classes and _told_in_words(about) and shape[-1:] != (len(classes),):
        raise jaxexport.bad_file(
            path, f"its answers are {shape}, its about.json has {len(classes)} classes"
        )
    return jaxexport.ExportedFile(about, functions)


def _told_in_words(about: dict[str, Any]) -> bool:
    return about["task"] in TASKS and TASKS[about["task"]].shown_from_file


def _spec(about: dict[str, Any]) -> DataSpec:
    """What the table says of the data; the function normalises by itself."""
    inputs, classes = about["inputs"], about["classes"]
    frames = [inputs["frames"]] if "frames" in inputs else []
    shape = [*frames, *inputs["shape"]]
    return DataSpec(about.get("dataset", ""), classes, shape, len(classes), [], [])
