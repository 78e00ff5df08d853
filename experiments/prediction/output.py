"""Prints predictions and writes them to files."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UsageError
from experiments.run import record
from experiments.tasks import TaskKind
from experiments.terminal import printable

ENDINGS = (".csv", ".jsonl")  # file suffixes that all tasks support
_TABLES = ("probabilities", "shares")  # dicts, a column for each entry
_ARRAYS = ("seen", "frames", "raw", "mask")  # arrays, left out of tables
_NESTED = (*_TABLES, *_ARRAYS, "characters", "size")


def check(kind: TaskKind | None, out: Path, paths: Sequence[str]) -> None:
    """Checks `--out` before predictions are made.

    Args:
      kind: of the run; None for an exported file, which supports `ENDINGS` alone.
      out: a file, or a folder: without suffix, or one that exists.
      paths: that predictions are made for.

    Raises:
      UsageError: the task cannot write it.
    """
    endings = kind.endings if kind else ENDINGS
    folders = kind is not None and kind.writes_files
    if out.suffix not in endings and not (folders and is_folder(out)):
        words = " or ".join(endings) + (", or be a folder" if folders else "")
        raise UsageError(f"--out={out}: the name must end in {words}")
    if kind:
        kind.check_out(out, paths)


def is_folder(out: Path) -> bool:
    return not out.suffix or out.is_dir()


def folder_of(run: Path, out: Path | None) -> Path:
    """Where drawings and other files of predictions are written."""
    if out and is_folder(out):
        return out
    run = run.expanduser()
    return Path(run if run.is_dir() else run.parent, "predictions")


def write(kind: TaskKind, predictions: list[dict[str, Any]], out: Path) -> None:
    """Writes predictions to .csv or .jsonl, or to a format of the task."""
    if out.suffix in kind.formats:
        content = _encoded(kind.formats[out.suffix](predictions))
    elif out.suffix == ".jsonl":
        plain = [{k: v for k, v in a.items() if k not in _ARRAYS} for a in predictions]
        rows = (json.dumps(row, ensure_ascii=False) for row in plain)
        content = _encoded("".join(row + "\n" for row in rows))
    else:
        flat = [
            {k: v for k, v in row.items() if k not in _NESTED}
            | {f"p_{k}": v for k, v in row.get("probabilities", {}).items()}
            | {f"share_{k}": v for k, v in row.get("shares", {}).items()}
            | {k: json.dumps(row[k]) for k in ("boxes", "labels") if k in row}
            for row in predictions
        ]
        columns = list(dict.fromkeys(key for row in flat for key in row))
        columns.sort(key=lambda name: name in ("error", "note"))  # last
        content = record.csv_bytes(columns, flat)
    record.write_bytes(out, content)


def _encoded(text: str) -> bytes:
    """UTF-8; bytes of file names that are not UTF-8 become backslash escapes."""
    return text.encode("utf-8", "backslashreplace")


def show_line(kind: TaskKind, row: dict[str, Any]) -> None:
    """Prints one prediction on a line; errors and notes go to standard error."""
    _report(row)
    if "error" not in row:
        print("\t".join(map(printable, kind.row(row))), flush=True)


def show(kind: TaskKind, predictions: list[dict[str, Any]]) -> None:
    """Prints predictions as a table, and errors on standard error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for column in kind.columns:
        table.add_column(column, overflow="fold")
    for row in predictions:
        if "error" not in row:
            table.add_row(*(Text(printable(cell)) for cell in kind.row(row)))
    if table.row_count:
        # In a file or a pipe, rows are not wrapped.
        width = None if sys.stdout.isatty() else 1000
        Console(width=width).print(table)
    for row in predictions:
        _report(row)


def _report(row: dict[str, Any]) -> None:
    """Prints the error or the note of a prediction, if any, on standard error."""
    for kind in ("error", "note"):
        if kind in row:
            print(printable(row[kind]), file=sys.stderr, flush=True)
