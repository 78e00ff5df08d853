"""The manifest of a checkpoint: step, metrics, and a checksum of each file.

It is written last, before the checkpoint's folder gets its final name. A folder without
a manifest, or with one that does not match, is not a valid checkpoint.
"""

import json
import os
import pathlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

NAME = "manifest.json"
FORMAT = 1
_CHUNK = 1 << 22  # bytes that are read at once
_RECORD = "_CHECKPOINT_METADATA"  # Orbax's metadata, written at the same time


class Damaged(ValueError):
    """Files of a checkpoint are missing, or differ from what was written."""


def encode(values: dict[str, Any]) -> str:
    """JSON with sorted keys, so that equal values have equal checksums."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def write(folder: pathlib.Path, step: int, values: dict[str, Any]) -> None:
    """Adds the manifest to the folder of an otherwise complete checkpoint.

    Args:
      folder: the folder of the checkpoint; it may have a temporary name.
      step: the step of the checkpoint.
      values: further JSON values to store in the manifest.
    """
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [path for path in inside if path.name != _RECORD]
    names = [path.relative_to(folder).as_posix() for path in paths]
    files = dict(zip(names, map(list, _checksums(paths)), strict=True))
    values = values | {"format": FORMAT, "step": step, "files": files}
    whole = {"checksum": _of_text(encode(values)), "manifest": values}
    with open(folder / NAME, "w", encoding="utf-8") as file:
        file.write(encode(whole))
        file.flush()
        os.fsync(file.fileno())


def read(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Reads the values that `write` stored, without verifying the files.

    Raises:
      Damaged: there is no manifest, it is damaged, or it is from another step.
    """
    try:
        whole = json.loads((folder / NAME).read_bytes())
        values = whole["manifest"]
        sound = whole["checksum"] == _of_text(encode(values))
    except FileNotFoundError:
        raise Damaged(f"{NAME} is missing") from None
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        raise Damaged(f"{NAME} is damaged") from None
    if not sound:
        raise Damaged(f"{NAME} does not match its checksum")
    if values["format"] != FORMAT:
        raise Damaged(f"format {values['format']}, but this version reads {FORMAT}")
    if values["step"] != step:
        raise Damaged(f"it was saved at step {values['step']}: the folder was renamed")
    return values


def verify(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """As `read`, and verifies the checksums of all files of the checkpoint.

    Raises:
      Damaged: a file is missing or was changed; the message names the first one.
    """
    values = read(folder, step)
    names = list(values["files"])
    found = _checksums([folder / name for name in names])
    for name, now in zip(names, found, strict=True):
        if now is None:
            raise Damaged(f"{name} is missing or cannot be read")
        if list(now) != values["files"][name]:
            raise Damaged(f"{name} does not match its checksum")
    if not _is_orbax_record(folder / _RECORD):
        raise Damaged(f"{_RECORD} is damaged or missing")
    return values


def read_file(folder: pathlib.Path, step: int, name: str) -> bytes:
    """The content of one file of a checkpoint; empty if it was saved without it.

    Raises:
      Damaged: the file is missing or was changed.
    """
    wanted = read(folder, step)["files"].get(name)
    if wanted is None:
        return b""
    try:
        content = (folder / name).read_bytes()
    except OSError:
        raise Damaged(f"{name} is missing or cannot be read") from None
    if wanted != [len(content), f"{zlib.crc32(content):08x}"]:
        raise Damaged(f"{name} does not match its checksum")
    return content


def _is_orbax_record(path: pathlib.Path) -> bool:
    """Whether Orbax can read its metadata file; it reads that of every checkpoint."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and all(
        value is None
        or (type(value) is int and 0 <= value < 2**63)
        or (type(value) in (dict, str) and not key.endswith("nsecs"))
        for key, value in values.items()
    )


def _of_text(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def _checksums(paths: list[pathlib.Path]) -> list[tuple[int, str] | None]:
    """Size and CRC-32 of each file; None if it cannot be read."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_checksum, paths))


def _checksum(path: pathlib.Path) -> tuple[int, str] | None:
    size = crc = 0
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    except OSError:
        return None
    return size, f"{crc:08x}"
