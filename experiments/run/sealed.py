"""JSON files with a format number and a checksum: config.json, report.json and others.

This file imports nothing heavy, so that `--help` is instant.
"""

import json
import zlib
from pathlib import Path
from typing import Any

from experiments.errors import UsageError
from experiments.run import record

FORMAT = 1  # raise it when files of older versions would be misunderstood


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Writes values atomically as JSON, with format number and checksum.

    Raises:
      The errors of `write_json`.
    """
    values = record.plain(values, path.name)
    seal = {"format": FORMAT, "checksum": _checksum(values)}
    record.write_json(path, seal | values)


def read_sealed(path: Path, remedy: str | None = None) -> dict[str, Any] | None:
    """Reads the values that `write_sealed` wrote; None if there is no file.

    Args:
      path: of the file.
      remedy: what to do if it is damaged; None: copy it from a checkpoint, or delete
        it and rerun the training command.

    Raises:
      UsageError: the file is damaged, was edited, has another format, or was not
        written by `write_sealed`.
    """
    remedy = remedy or _remedy(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError, RecursionError) as error:
        cause = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"{path} cannot be read: {cause}. {remedy}") from error
    if not isinstance(values, dict) or "format" not in values:
        raise UsageError(
            f"{path} is not from a run, or is from another version of lstm_jax: it "
            f"has no format number, and this version reads format {FORMAT}"
        )
    if values["format"] != FORMAT:
        raise UsageError(
            f"{path} has format {values['format']!r}, and this version reads format "
            f"{FORMAT}: use the version of lstm_jax that wrote it, or train again"
        )
    del values["format"]
    if values.pop("checksum", None) != _checksum(values):
        raise UsageError(
            f"{path} is not as it was written: its checksum does not match. {remedy}"
        )
    return values


def copy_of(path: Path) -> Path | None:
    """The copy of a run's file in its latest checkpoint; None if there is none."""
    copies = path.parent.glob(f"checkpoints/*/{path.name}")
    steps = (copy for copy in copies if copy.parent.name.isdecimal())
    return max(steps, key=lambda copy: int(copy.parent.name), default=None)


def _remedy(path: Path) -> str:
    copy = copy_of(path)
    if copy:
        return f"Copy {copy} over it"
    return "Delete it and rerun the training command, which writes it again"


def _checksum(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"
