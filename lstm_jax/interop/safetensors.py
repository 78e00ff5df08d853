""".safetensors files: an eight-byte length, a JSON header, and the arrays' bytes.

Implemented without the package of that name. The header's claims are checked against
the size of the file before anything is read.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

LONGEST = 100 * 2**20  # limit on the header, bytes, as in the reference implementation
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name, from a .safetensors file.

    Raises:
      ValueError: the file is missing, damaged, or its header claims more than it holds;
        one line.
    """
    path = Path(path).expanduser()
    with _opened(path) as file:
        header, start, room = _header(path, file)
        places, arrays = _places(path, header, room), {}
        for name, (dtype, shape, begin, end) in places.items():
            file.seek(start + begin)
            array = np.frombuffer(bytearray(file.read(end - begin)), dtype)
            arrays[name] = array.reshape(shape)
    return arrays


def read_safetensors_metadata(path: str | Path) -> dict[str, str]:
    """Metadata strings of a .safetensors file; {} if there are none.

    Raises:
      ValueError: as `read_safetensors`.
    """
    path = Path(path).expanduser()
    with _opened(path) as file:
        words = _header(path, file)[0].get("__metadata__", {})
    texts = isinstance(words, dict) and all(isinstance(w, str) for w in words.values())
    if not texts:
        raise _bad(path, "its metadata is not a JSON object of strings")
    return words


def write_safetensors(
    path: str | Path,
    arrays: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes arrays by name, and metadata strings, atomically."""
    path, header, parts, at = Path(path).expanduser(), {}, [], 0
    if metadata:
        header["__metadata__"] = dict(metadata)
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        if array.dtype.name not in _NAMES:
            raise ValueError(f"{path}: {name} has dtype {array.dtype}, unknown there")
        parts.append(array.tobytes())
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(np.shape(arrays[name])),
            "data_offsets": [at, at + len(parts[-1])],
        }
        at += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, len(text).to_bytes(8, "little") + text + b"".join(parts))
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: to a temporary file, which is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return path.open("rb")


def _header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int, int]:
    """`(header, offset of the arrays, number of bytes from there)`."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LONGEST):
        raise _bad(path, f"its header claims {length:,} bytes, the file has {size:,}")
    try:
        header = json.loads(file.read(length).decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _bad(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _bad(path, "its header is not a JSON object")
    return header, 8 + length, size - 8 - length


def _bad(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: not a readable .safetensors file ({reason})")


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _places(path: Path, header: dict[str, Any], room: int) -> dict[str, tuple]:
    """`{name: (dtype, shape, begin, end)}`, checked to be within the file."""
    places = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        about = about if isinstance(about, dict) else {}
        shape, offsets = about.get("shape"), about.get("data_offsets")
        lists = isinstance(shape, list) and isinstance(offsets, list)
        if not lists or len(offsets) != 2 or not all(map(_count, shape + offsets)):
            raise _bad(path, f"{name} has no shape and place")
        code = about.get("dtype")
        if not isinstance(code, str) or code not in _DTYPES:
            raise _bad(path, f"{name} has dtype {code!r}")
        dtype = jnp.dtype(_DTYPES[code])
        begin, end = offsets
        wanted = math.prod(shape) * dtype.itemsize
        if end > room or end - begin != wanted:
            raise _bad(
                path,
                f"{name} {tuple(shape)} wants {wanted:,} bytes at {begin:,} to {end:,} "
                f"of {room:,}",
            )
        places[name] = dtype, tuple(shape), begin, end
    taken, last = 0, ""
    for name, (*_, begin, end) in sorted(places.items(), key=lambda p: p[1][2:]):
        if begin < taken:
            raise _bad(path, f"{name} at byte {begin:,} overlaps {last}")
        if begin > taken:
            raise _bad(path, f"{begin - taken:,} bytes before {name} are unused")
        taken, last = end, name
    if taken != room:
        raise _bad(path, f"its arrays have {taken:,} bytes, the file {room:,}")
    return places
