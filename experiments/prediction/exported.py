"""Answers by a file that `experiments.export` wrote: `predict model.jaxexport PATH…`.

Such a file is a zip, stored, of a table in JSON and of compiled functions by
`jax.export`; `docs/interop.md` says how to call them with JAX alone. Nothing here needs
Flax, our models, or a checkpoint; nothing is unpickled.
"""

import contextlib
import functools
import importlib.util
import io
import json
import math
import os
import re
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.errors import UsageError
from experiments.spec import DataSpec
from experiments.tasks import TASKS

ENDING = ".jaxexport"
FORMAT = 1
TABLE = "about.json"
FUNCTIONS = {"answer.bin": 2, "start.bin": 0, "step.bin": 2}  # most inputs of each
_LONGEST = 4 * 2**20  # bytes of the table
_LARGEST = 2**30  # numbers of one picture or clip
_CALLS = {"shape_assertion"}  # custom calls of a program with sizes left open
_PLATFORMS = {"gpu": "cuda"}


class Exported(NamedTuple):
    """What a file holds.

    Attributes:
      about: "task", "classes", "inputs" (a dict: "kind" of pictures, clips or
        features; "shape" of a picture, frame or step; "frames", "sampling" of clips),
        "platforms", "jax" and "lstm_jax", the versions it was written by.
      functions: by name: "answer" `(inputs [B, ...], lengths [B] of clips)`, and with
        `--streaming` "start" `()` and "step" `(state, frame)`.
    """

    about: dict[str, Any]
    functions: dict[str, Any]


def read(path: str | Path) -> Exported:
    """Reads an exported file; nothing in it runs before one of its functions is called.

    Raises:
      UsageError: the file is missing, damaged, claims what it does not hold, or calls
        what no export of ours calls; one line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    entries = _entries(path)
    try:
        about = _checked_table(json.loads(entries.pop(TABLE).decode("utf-8")))
    except (KeyError, ValueError, RecursionError) as error:
        raise _bad(path, f"its {TABLE} is missing or damaged") from error
    if about is None:
        raise _bad(path, f"its {TABLE} is not that of format {FORMAT}")
    if importlib.util.find_spec("flatbuffers") is None:
        raise UsageError(f"{path}: reading it needs flatbuffers: pip install it")
    functions = {
        name.removesuffix(".bin"): _function(path, name, program, about)
        for name, program in entries.items()
    }
    return Exported(about, functions)


class Predictor:
    """The compiled function of a file; answers as a run's `Predictor` does.

    Args:
      path: of the file.

    Raises:
      UsageError: the file cannot be read, or its answers are not told in words.
    """

    def __init__(self, path: str | Path):
        about, self._answer = _loaded(path)
        if not _told_in_words(about):
            raise UsageError(
                f"{path}: the answers of a {about['task']} are not shown from a file; "
                "call it as docs/interop.md says, or give the folder of the run"
            )
        self.kind, self.spec = TASKS[about["task"]], _spec(about)
        self._inputs = about["inputs"]

    def __call__(self, **batch: np.ndarray) -> np.ndarray:
        """Predictions of a batch of `inputs` and, of clips, `lengths`."""
        return np.asarray(self._answer(*batch.values()))

    def read_clip(self, path: Path) -> tuple[np.ndarray, int]:
        """A clip, or a sequence of features, and its number of steps."""
        from lstm_jax import data

        frames, *shape = self.spec.image_shape
        sampling = self._inputs.get("sampling", "spread")
        if not self.spec.features:
            return data.read_clip(path, frames, tuple(shape), sampling)
        clip, length = data.read_features(path, frames, sampling)
        if clip.shape[1:] != tuple(shape):
            raise data.DataError(
                f"{path}: steps of {clip.shape[-1]} features, but {shape[0]} are wanted"
            )
        return clip, length


def _told_in_words(about: dict[str, Any]) -> bool:
    return about["task"] in TASKS and TASKS[about["task"]].shown_from_file


def _spec(about: dict[str, Any]) -> DataSpec:
    """What the table says of the data; the function normalises by itself."""
    inputs, classes = about["inputs"], about["classes"]
    frames = [inputs["frames"]] if "frames" in inputs else []
    shape = [*frames, *inputs["shape"]]
    return DataSpec(about.get("dataset", ""), classes, shape, len(classes), [], [])


def watch(path: str | Path, source: str, *, every: int = 25) -> dict[str, Any]:
    """Answers every frame of a source by the streaming step, as `live.watch` does.

    Args:
      path: a file that was exported with `--streaming`.
      source: a clip's file or folder; a camera's number; "-" for raw frames.
      every: frames between two printed lines; 0 prints none.

    Returns:
      "frames", and "outputs" of the last one.

    Raises:
      ValueError: the file has no streaming step, or no frame came.
    """
    from lstm_jax import data

    about, functions = read(path)
    if "step" not in functions:
        raise UsageError(
            f"{path}: answers whole clips; export the run with --streaming for --live"
        )
    if about["inputs"]["kind"] != "clips":
        raise UsageError(f"{path}: --live wants frames, not features")
    step = _running(Path(path), functions["step"])
    state, seconds, output = _running(Path(path), functions["start"])(), [], None
    for frame in data.stream_frames(source, tuple(about["inputs"]["shape"])):
        since = time.perf_counter()
        state, output = step(state, frame)
        seconds.append(1000 * (time.perf_counter() - since))
        if every and (len(seconds) - 1) % every == 0:
            line = f"frame {len(seconds) - 1}"
            if _told_in_words(about):
                line += f"  {_words(about, np.asarray(output))}"
            print(f"{line}  {seconds[-1]:.1f} ms")
    if not seconds:
        raise UsageError(f"{source}: no frame came")
    if every:
        steady = np.asarray(seconds[1:] or seconds)
        p50, p99 = np.percentile(steady, [50, 99])
        print(f"{len(seconds)} frames; milliseconds a frame: p50 {p50:.1f}, ", end="")
        print(f"p99 {p99:.1f}, max {steady.max():.1f}")
    return {"frames": len(seconds), "outputs": np.asarray(output)}


def _words(about: dict[str, Any], output: np.ndarray) -> str:
    """The answer to one frame of a stream."""
    kind = TASKS[about["task"]]
    row = {"path": ""} | kind.describe(_spec(about), [], output, Path())
    return "  ".join(kind.row(row)[1:])


def _bad(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path}: not a readable {ENDING} file ({reason})")


def _entries(path: Path) -> dict[str, bytes]:
    """The file's parts; what they claim is checked before any of them is read."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as file:
            infos, total = file.infolist(), 0
            for info in infos:
                total += info.file_size
                stored = info.compress_type == zipfile.ZIP_STORED
                if not stored or info.flag_bits & 1:
                    raise _bad(path, f"{info.filename} is compressed or encrypted")
                if info.file_size != info.compress_size or total > size:
                    claim = f"{info.filename} claims {info.file_size:,} bytes"
                    raise _bad(path, f"{claim}, the file has {size:,}")
                if info.filename == TABLE and info.file_size > _LONGEST:
                    raise _bad(path, f"its {TABLE} is too long")
            names = [info.filename for info in infos]
            if len(set(names)) < len(names) or set(names) - {TABLE, *FUNCTIONS}:
                raise _bad(path, f"it holds {', '.join(names[:8])}")
            missing = {TABLE, "answer.bin"} - set(names)
            if missing or ("start.bin" in names) != ("step.bin" in names):
                missing = missing or {"start.bin", "step.bin"} - set(names)
                raise _bad(path, f"it holds no {' and no '.join(sorted(missing))}")
            return {info.filename: file.read(info) for info in infos}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise _bad(path, str(error)) from error


def _checked_table(about: Any) -> dict[str, Any] | None:
    """The table, or None where it is not one that these functions go with."""
    try:
        inputs, classes = about["inputs"], about["classes"]
        sizes = [*inputs["shape"], *([inputs["frames"]] if "frames" in inputs else [])]
        fits = (
            about["format"] == FORMAT
            and isinstance(about["task"], str)
            and all(isinstance(name, str) for name in classes)
            and inputs["kind"] in ("pictures", "clips", "features")
            and len(inputs["shape"]) == (1 if inputs["kind"] == "features" else 3)
            and ("frames" in inputs) == (inputs["kind"] != "pictures")
            and all(type(n) is int and 0 < n for n in sizes)
            and math.prod(sizes) <= _LARGEST
        )
    except (KeyError, TypeError):
        return None
    return about if fits else None


def _function(path: Path, name: str, program: bytes, about: dict[str, Any]):
    """An `Exported` of JAX, its inputs and what it calls checked."""
    from jax import export

    try:
        with _silent():
            function = export.deserialize(bytearray(program))
            shapes = [tuple(aval.shape) for aval in function.in_avals]
            made = [tuple(aval.shape) for aval in function.out_avals]
            text = str(function.mlir_module())
    except Exception as error:  # the readers of JAX and of MLIR raise what they meet
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise _bad(path, f"its {name} is damaged, or of another JAX: {reason}") from (
            error
        )
    called = re.findall(r'custom_call @"?([^\s"(]+)', text)
    called += re.findall(r'call_target_name = "([^"]*)"', text)
    if set(called) - _CALLS or len(called) < text.count("custom_call"):
        others = sorted(set(called) - _CALLS) or ["something without a name"]
        raise _bad(path, f"its {name} would call {others[0]}, and was not run")
    if name == "answer.bin":
        clips = about["inputs"]["kind"] != "pictures"
        whole, classes = tuple(about["inputs"]["shape"]), about["classes"]
        fits = shapes and shapes[0][1 + clips :] == whole and len(shapes) <= 1 + clips
        if not fits:
            raise _bad(path, f"its {name} takes {shapes}, its {TABLE} says {whole}")
        named = classes and _told_in_words(about)
        if len(made) != 1 or (named and made[0][-1:] != (len(classes),)):
            raise _bad(
                path, f"its {name} gives {made}, its {TABLE} has {len(classes)} classes"
            )
    return function


@contextlib.contextmanager
def _silent():
    """Without what MLIR writes to standard error about a file that it cannot read."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _running(path: Path, function: Any):
    """The function compiled; what JAX says of a program it cannot run, in one line."""
    import jax

    compiled = jax.jit(function.call)

    def run(*inputs):
        try:
            return jax.block_until_ready(compiled(*inputs))
        except Exception as error:  # of a file that was tampered with, or too large
            reason = " ".join(str(error).split())[:160]
            raise UsageError(f"{path}: cannot be run here ({reason})") from error

    return run


def _loaded(path: str | Path):
    path = Path(path).expanduser()
    written = path.stat().st_mtime if path.is_file() else 0.0
    return _compiled(str(path), written)


@functools.lru_cache(maxsize=4)
def _compiled(path: str, written: float):
    """`(about, answer)`; `written` makes a new file load anew."""
    import jax

    about, functions = read(path)
    here = jax.default_backend()
    here = _PLATFORMS.get(here, here)
    if here not in functions["answer"].platforms:
        known = ", ".join(functions["answer"].platforms)
        raise UsageError(f"{path}: was exported for {known}, not for {here}")
    return about, _running(Path(path), functions["answer"])


def start(accelerator: str) -> None:
    """Chooses the device, by JAX alone.

    Raises:
      UsageError: JAX finds none of that kind.
    """
    import jax

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


def pack(about: dict[str, Any], functions: dict[str, Any]) -> bytes:
    """The bytes of a file that `read` reads."""
    whole = io.BytesIO()
    parts = {TABLE: json.dumps(about | {"format": FORMAT}, indent=1).encode()}
    parts |= {f"{n}.bin": bytes(f.serialize()) for n, f in functions.items()}
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as file:
        for name, part in parts.items():
            file.writestr(zipfile.ZipInfo(name), part)
    return whole.getvalue()
