"""PyTorch's .pt files of tensors by name, without PyTorch and without unpickling.

Such a file is a zip with a pickle, which is a program for a stack machine, and the
tensors' bytes. The program is not run: its opcodes are listed, and only the few that
build dicts, tuples and tensors are interpreted. Any other name, such as a function to
call, is refused.
"""

import math
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lstm_jax.interop.safetensors import write_bytes

LONGEST = 64 * 2**20  # limit on the pickle, which holds names and shapes, bytes
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_NAMES = {dtype: name for name, dtype in _STORAGES.items()}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_TABLE = "collections OrderedDict"


class _Name(NamedTuple):
    """A name that the pickle would import; it is not imported."""

    name: str


class _Storage(NamedTuple):
    dtype: Any
    key: str
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


class _Refused(ValueError):
    pass


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors by name, from a file by `torch.save(module.state_dict(), path)`.

    Names in nested dicts, such as in a checkpoint, are joined by dots; entries that are
    not tensors are skipped.

    Raises:
      ValueError: the file is missing, damaged, older than PyTorch 1.6's format, or
        holds anything but tensors in dicts; one line. No code in it is run.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as file:
            entries = _entries(file, path.stat().st_size)
            if file.comment or "data.pkl" not in entries:
                raise _Refused("it has no data.pkl")
            if "byteorder" in entries and file.read(entries["byteorder"]) != b"little":
                raise _Refused("its bytes are in big-endian order")
            if entries["data.pkl"].file_size > LONGEST:
                raise _Refused("its table of tensors is too long")
            tree = _follow(file.read(entries["data.pkl"]))
            return _arrays(tree, file, entries)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: not a readable .pt file ({error}); save it again by a PyTorch "
            "from 1.6 on, torch.save(module.state_dict(), ...)"
        ) from error
    except (_Refused, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable .pt file ({error})") from error


def write_torch(path: str | Path, arrays: Mapping[str, Any]) -> Path:
    """Writes a file of tensors by name for `torch.load(path, weights_only=True)`."""
    path, whole = Path(path).expanduser(), BytesIO()
    program, parts = [b"\x80\x02}("], []
    for number, (name, array) in enumerate(arrays.items()):
        shape = np.shape(array)
        array = np.ascontiguousarray(array)
        if array.dtype.name not in _NAMES:
            raise ValueError(f"{path}: {name} has dtype {array.dtype}, unknown there")
        parts.append(array.tobytes())
        strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        program += [
            _text(name),
            _global(_TENSOR),
            b"((",
            _text("storage"),
            _global(f"torch {_NAMES[array.dtype.name]}"),
            _text(str(number)),
            _text("cpu"),
            _int(array.size),
            b"tQ",
            _int(0),
            b"(" + b"".join(map(_int, shape)) + b"t",
            b"(" + b"".join(map(_int, strides)) + b"t",
            b"\x89",
            _global(_TABLE),
            b")RtR",
        ]
    program.append(b"u.")
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", b"".join(program))
        file.writestr("archive/byteorder", "little")
        for number, part in enumerate(parts):
            file.writestr(f"archive/data/{number}", part)
        file.writestr("archive/version", "3\n")
    write_bytes(path, whole.getvalue())
    return path


def _text(value: str) -> bytes:
    value = value.encode()
    return b"X" + struct.pack("<I", len(value)) + value


def _int(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _global(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def _entries(file: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Entries of the archive's only folder by path, checked to be uncompressed."""
    entries, total = {}, 0
    for info in file.infolist():
        total += info.file_size
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _Refused(f"{info.filename} is compressed or encrypted")
        if info.file_size != info.compress_size or total > size:
            raise _Refused(
                f"{info.filename} claims {info.file_size:,} of {size:,} bytes"
            )
        entries[info.filename.partition("/")[2]] = info
    return entries


def _follow(program: bytes) -> Any:
    """The pickle's value, made of dicts, tuples, numbers, strings and tensors."""
    try:
        opcodes = [(op.name, arg) for op, arg, _ in pickletools.genops(program)]
        return _machine(opcodes)
    except _Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise _Refused(f"its table is damaged: {error}") from error


def _machine(opcodes: list[tuple[str, Any]]) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def popped():
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    def pairs(items):
        return zip(items[::2], items[1::2], strict=True)

    for name, arg in opcodes:
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack[-1]
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": []}.get(name, ()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(popped()))
        elif name in ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            stack.append(arg)
        elif name in ("BINUNICODE", "SHORT_BINUNICODE"):
            stack.append(arg)
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NEWTRUE": True, "NEWFALSE": False}.get(name))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if arg is None else arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                arg = f"{stack[-2]} {stack[-1]}"
                del stack[-2:]
            stack.append(_known(arg))
        elif name == "BINPERSID":
            stack[-1] = _storage(stack[-1])
        elif name == "REDUCE":
            arguments = stack.pop()
            stack[-1] = _built(stack[-1], arguments)
        elif name == "SETITEM":
            key, value = stack[-2:]
            del stack[-2:]
            stack[-1][key] = value
        elif name == "SETITEMS":
            items = popped()
            stack[-1].update(pairs(items))
        elif name == "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        elif name == "APPENDS":
            items = popped()
            stack[-1].extend(items)
        elif name == "BUILD":  # of a table: what its modules' versions are
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise _Refused("it sets the state of an object")
        else:
            raise _Refused(f"it holds more than tensors by name: {name}")
    raise _Refused("its table has no end")


def _known(name: str) -> _Name:
    module, _, leaf = name.partition(" ")
    storage = module == "torch" and leaf in _STORAGES
    if not storage and name not in (_TENSOR, _PARAMETER, _TABLE):
        raise _Refused(
            f"it would call {module}.{leaf}, and was not read; save "
            "module.state_dict(), which holds tensors only"
        )
    return _Name(name)


def _storage(reference: Any) -> _Storage:
    _, kind, key, _, count = reference
    dtype = jnp.dtype(_STORAGES[kind.name.partition(" ")[2]])
    if not isinstance(key, str) or type(count) is not int:
        raise _Refused("a tensor has no place")
    return _Storage(dtype, key, count)


def _built(maker: Any, arguments: tuple) -> Any:
    if not isinstance(maker, _Name):
        raise _Refused("it calls something that is not a name")
    if maker.name == _TABLE and not arguments:
        return {}
    if maker.name == _PARAMETER and isinstance(arguments[0], _Tensor):
        return arguments[0]
    if maker.name == _TENSOR and isinstance(arguments[0], _Storage):
        storage, offset, shape, strides = arguments[:4]
        return _Tensor(storage, offset, tuple(shape), tuple(strides))
    raise _Refused(f"it calls {maker.name.replace(' ', '.')} with other arguments")


def _arrays(tree: Any, file: zipfile.ZipFile, entries: Mapping) -> dict:
    if isinstance(tree, _Tensor) or not isinstance(tree, dict):
        raise _Refused("it holds no table of tensors by name")
    found = {}
    todo = [("", tree)]
    while todo:
        prefix, table = todo.pop()
        for key, value in table.items():
            if isinstance(value, dict):
                todo.append((f"{prefix}{key}.", value))
            elif isinstance(value, _Tensor):
                name = f"{prefix}{key}"
                found[name] = _array(name, value, file, entries)
            if len(todo) + len(found) > 100_000:  # a table may hold itself
                raise _Refused("its tables have no end")
    return found


def _array(name: str, tensor: _Tensor, file, entries) -> np.ndarray:
    (dtype, key, count), offset, shape, strides = tensor
    numbers = (count, offset, *shape, *strides)
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) != len(
        strides
    ):
        raise _Refused(f"{name} has no shape")
    info = entries.get(f"data/{key}")
    if info is None or info.file_size != count * dtype.itemsize:
        raise _Refused(f"{name} claims {count:,} numbers that are not there")
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # An array larger than its storage would repeat data.
    size = math.prod(shape)
    if size > count or (size and offset + last >= count):
        raise _Refused(f"{name} {shape} reaches beyond its {count:,} numbers")
    flat = np.frombuffer(file.read(info), dtype)
    if not size:
        return np.zeros(shape, dtype)
    steps = [step * dtype.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps).copy()
