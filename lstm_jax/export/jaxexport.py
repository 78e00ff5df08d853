"""Compiled functions in a .jaxexport file, which needs only JAX to run.

The file is an uncompressed zip of a JSON table and functions by `jax.export`;
`docs/interop.md` describes how to call them with JAX alone. This module needs neither
Flax, nor our models, nor a checkpoint; nothing is unpickled.
"""

import contextlib
import importlib.util
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import export

ENDING = ".jaxexport"
PLATFORMS = "cpu", "cuda", "tpu"
FORMAT = 1
TABLE = "about.json"
FUNCTIONS = "answer.bin", "start.bin", "step.bin"
_LONGEST = 4 * 2**20  # limit on the size of the table, bytes
_LARGEST = 2**30  # limit on the numbers in one image or clip
_CALLS = {"shape_assertion"}  # custom calls of programs with symbolic sizes


class ExportedFile(NamedTuple):
    """Contents of a file.

    Attributes:
      about: "task", "classes", "inputs" (a dict: "kind" of images, clips or
        features; "shape" of an image, frame or step; "frames", "sampling" of clips),
        "platforms", "jax" and "lstm_jax", the versions it was written by.
      functions: by name: "answer" `(inputs [B, ...], lengths [B] of clips)`, and with
        `--streaming` "start" `()` and "step" `(state, frame)`.
    """

    about: dict[str, Any]
    functions: dict[str, export.Exported]


def read(path: str | Path) -> ExportedFile:
    """Reads an exported file; no code in it runs until a function is called.

    Raises:
      ValueError: the file is missing, damaged, inconsistent, or contains custom calls
        that our exports do not; one line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    entries = _entries(path)
    try:
        about = json.loads(entries.pop(TABLE).decode("utf-8"))
    except (KeyError, ValueError, RecursionError) as error:
        raise bad_file(path, f"its {TABLE} is missing or damaged") from error
    if not _known_table(about):
        raise bad_file(path, f"its {TABLE} is not that of format {FORMAT}")
    if importlib.util.find_spec("flatbuffers") is None:
        raise ValueError(f"{path}: reading it needs flatbuffers: pip install it")
    functions = {
        name.removesuffix(".bin"): _function(path, name, program, about)
        for name, program in entries.items()
    }
    return ExportedFile(about, functions)


def runner(path: Path, function: export.Exported) -> Callable:
    """A function of a file, compiled.

    It raises ValueError, one line, if JAX cannot run the program.
    """
    compiled = jax.jit(function.call)

    def run(*inputs):
        try:
            return jax.block_until_ready(compiled(*inputs))
        except Exception as error:  # a manipulated file, or out of memory
            reason = " ".join(str(error).split())[:160]
            raise ValueError(f"{path}: cannot be run here ({reason})") from error

    return run


def symbolic_inputs(inputs: Sequence[tuple[tuple, Any]]) -> list[jax.ShapeDtypeStruct]:
    """Inputs of a function, some sizes of which are symbolic.

    Args:
      inputs: shape and dtype of each; sizes given as strings, such as "B", are
        symbolic;
        equal strings mean equal sizes.
    """
    scope = export.SymbolicScope()

    def size(n):
        return export.symbolic_shape(n, scope=scope)[0] if isinstance(n, str) else n

    return [jax.ShapeDtypeStruct(tuple(map(size, s)), dtype) for s, dtype in inputs]


def exported(function: Callable, *inputs: Any) -> export.Exported:
    """A function exported for all `PLATFORMS`, with inputs of given shape and dtype."""
    # Otherwise the file would contain paths of source files on this machine.
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        return export.export(jax.jit(function), platforms=PLATFORMS)(*inputs)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def pack(about: dict[str, Any], functions: dict[str, Any]) -> bytes:
    """The bytes of a file for `read`.

    Args:
      about: as in `ExportedFile`.
      functions: by name, from `exported`.
    """
    whole = io.BytesIO()
    parts = {TABLE: json.dumps(about | {"format": FORMAT}, indent=1).encode()}
    parts |= {f"{n}.bin": bytes(f.serialize()) for n, f in functions.items()}
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as file:
        for name, part in parts.items():
            file.writestr(zipfile.ZipInfo(name), part)
    return whole.getvalue()


def bad_file(path: Path, reason: str) -> ValueError:
    """The error of a file that is damaged, or not what it claims to be."""
    return ValueError(f"{path}: not a readable {ENDING} file ({reason})")


def _entries(path: Path) -> dict[str, bytes]:
    """The file's entries; their claimed sizes are checked before they are read."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as file:
            infos, total = file.infolist(), 0
            for info in infos:
                total += info.file_size
                stored = info.compress_type == zipfile.ZIP_STORED
                if not stored or info.flag_bits & 1:
                    raise bad_file(path, f"{info.filename} is compressed or encrypted")
                if info.file_size != info.compress_size or total > size:
                    claim = f"{info.filename} claims {info.file_size:,} bytes"
                    raise bad_file(path, f"{claim}, the file has {size:,}")
                if info.filename == TABLE and info.file_size > _LONGEST:
                    raise bad_file(path, f"its {TABLE} is too long")
            names = [info.filename for info in infos]
            if len(set(names)) < len(names) or set(names) - {TABLE, *FUNCTIONS}:
                raise bad_file(path, f"it holds {', '.join(names[:8])}")
            missing = {TABLE, "answer.bin"} - set(names)
            if missing or ("start.bin" in names) != ("step.bin" in names):
                missing = missing or {"start.bin", "step.bin"} - set(names)
                raise bad_file(path, f"it holds no {' and no '.join(sorted(missing))}")
            return {info.filename: file.read(info) for info in infos}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise bad_file(path, str(error)) from error


def _known_table(about: Any) -> bool:
    """Whether a table is valid for such functions."""
    try:
        inputs, classes = about["inputs"], about["classes"]
        cuts = about.get("thresholds", [0.5] * len(classes))
        sizes = [*inputs["shape"], *([inputs["frames"]] if "frames" in inputs else [])]
        return (
            about["format"] == FORMAT
            and isinstance(about["task"], str)
            and all(isinstance(name, str) for name in classes)
            and inputs["kind"] in ("images", "clips", "features")
            and len(inputs["shape"]) == (1 if inputs["kind"] == "features" else 3)
            and ("frames" in inputs) == (inputs["kind"] != "images")
            and inputs.get("depth", 8) in range(8, 17)
            and len(cuts) == len(classes)
            and all(type(cut) is float and 0 <= cut <= 1 for cut in cuts)
            and inputs.get("fit", "squash") in ("squash", "crop", "letterbox")
            and all(type(n) is int and 0 < n for n in sizes)
            and math.prod(sizes) <= _LARGEST
        )
    except (KeyError, TypeError):
        return False


def _function(path: Path, name: str, program: bytes, about: dict[str, Any]):
    """A deserialized `Exported`; its inputs and custom calls are checked."""
    try:
        with _silent():
            function = export.deserialize(bytearray(program))
            shapes = [tuple(aval.shape) for aval in function.in_avals]
            made = [tuple(aval.shape) for aval in function.out_avals]
            text = str(function.mlir_module())
    except Exception as error:  # the readers of JAX and of MLIR raise what they meet
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        reason = f"its {name} is damaged, or of another JAX: {reason}"
        raise bad_file(path, reason) from error
    called = re.findall(r'custom_call @"?([^\s"(]+)', text)
    called += re.findall(r'call_target_name = "([^"]*)"', text)
    if set(called) - _CALLS or len(called) < text.count("custom_call"):
        others = sorted(set(called) - _CALLS) or ["something without a name"]
        raise bad_file(path, f"its {name} would call {others[0]}, and was not run")
    if name == "answer.bin":
        clips = about["inputs"]["kind"] != "images"
        whole = tuple(about["inputs"]["shape"])
        fits = shapes and shapes[0][1 + clips :] == whole and len(shapes) <= 1 + clips
        if not fits:
            raise bad_file(path, f"its {name} takes {shapes}, its {TABLE} says {whole}")
        if len(made) != 1:
            raise bad_file(path, f"its {name} gives {len(made)} outputs")
    return function


@contextlib.contextmanager
def _silent():
    """Suppresses MLIR's output to standard error for unreadable files."""
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
