"""Compiled functions in a .jaxexport file, which JAX alone runs.

Such a file is a zip, stored, of a table in JSON and of functions by `jax.export`;
`docs/interop.md` says how to call them with JAX alone. Nothing here needs Flax, our
models, or a checkpoint; nothing is unpickled.
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
_LONGEST = 4 * 2**20  # bytes of the table
_LARGEST = 2**30  # numbers of one image or clip
_CALLS = {"shape_assertion"}  # custom calls of a program with sizes left open


class ExportedFile(NamedTuple):
    """What a file holds.

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
    """Reads an exported file; nothing in it runs before one of its functions is called.

    Raises:
      ValueError: the file is missing, damaged, claims what it does not hold, or calls
        what no export of ours calls; one line.
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

    What it returns raises ValueError, one line, where JAX cannot run the program.
    """
    compiled = jax.jit(function.call)

    def run(*inputs):
        try:
            return jax.block_until_ready(compiled(*inputs))
        except Exception as error:  # of a file that was tampered with, or too large
            reason = " ".join(str(error).split())[:160]
            raise ValueError(f"{path}: cannot be run here ({reason})") from error

    return run


def symbolic_inputs(inputs: Sequence[tuple[tuple, Any]]) -> list[jax.ShapeDtypeStruct]:
    """Inputs of a function some sizes of which are open.

    Args:
      inputs: shape and dtype of each; a size given as text, such as "B", is open, and
        the same wherever that text stands.
    """
    scope = export.SymbolicScope()

    def size(n):
        return export.symbolic_shape(n, scope=scope)[0] if isinstance(n, str) else n

    return [jax.ShapeDtypeStruct(tuple(map(size, s)), dtype) for s, dtype in inputs]


def exported(function: Callable, *inputs: Any) -> export.Exported:
    """A function compiled for all `PLATFORMS`, of inputs given by shape and dtype."""
    # Else the file would tell the paths of the source files on this machine.
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        return export.export(jax.jit(function), platforms=PLATFORMS)(*inputs)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def pack(about: dict[str, Any], functions: dict[str, Any]) -> bytes:
    """The bytes of a file that `read` reads.

    Args:
      about: as in `ExportedFile`.
      functions: by name, as `exported` makes them.
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
    """The file's parts; what they claim is checked before any of them is read."""
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
    """Whether a table is one that such functions go with."""
    try:
        inputs, classes = about["inputs"], about["classes"]
        sizes = [*inputs["shape"], *([inputs["frames"]] if "frames" in inputs else [])]
        return (
            about["format"] == FORMAT
            and isinstance(about["task"], str)
            and all(isinstance(name, str) for name in classes)
            and inputs["kind"] in ("images", "clips", "features")
            and len(inputs["shape"]) == (1 if inputs["kind"] == "features" else 3)
            and ("frames" in inputs) == (inputs["kind"] != "images")
            and all(type(n) is int and 0 < n for n in sizes)
            and math.prod(sizes) <= _LARGEST
        )
    except (KeyError, TypeError):
        return False


def _function(path: Path, name: str, program: bytes, about: dict[str, Any]):
    """An `Exported` of JAX, its inputs and what it calls checked."""
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
