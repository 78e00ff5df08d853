"""Prints predictions and writes them to files."""

import csv
import functools
import io
import json
import sys
from pathlib import Path
from typing import Any

from experiments.run import record
from experiments.tasks import TaskKind
from experiments.terminal import printable

ENDINGS = (".csv", ".jsonl")  # file suffixes that all tasks support
_TABLES = ("probabilities", "shares")  # dicts, a column for each entry
_ARRAYS = ("seen", "frames", "raw", "mask")  # arrays, left out of tables
_NESTED = (*_TABLES, *_ARRAYS, "characters", "size")


def write(kind: TaskKind, predictions: list[dict[str, Any]], out: Path) -> None:
    """Writes predictions to .csv or .jsonl, or to a format of the task."""
    text = io.StringIO()
    if out.suffix in kind.formats:
        text.write(kind.formats[out.suffix](predictions))
    elif out.suffix == ".jsonl":
        plain = [{k: v for k, v in a.items() if k not in _ARRAYS} for a in predictions]
        dumps = functools.partial(json.dumps, ensure_ascii=False)
        text.writelines(dumps(row) + "\n" for row in plain)
    else:
        flat = [
            {k: v for k, v in row.items() if k not in _NESTED}
            | {f"p_{k}": v for k, v in row.get("probabilities", {}).items()}
            | {f"share_{k}": v for k, v in row.get("shares", {}).items()}
            | ({"boxes": json.dumps(row["boxes"])} if "boxes" in row else {})
            for row in predictions
        ]
        columns = list(dict.fromkeys(key for row in flat for key in row))
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(flat)
    # A path can hold bytes that are not UTF-8, which Python keeps as surrogates.
    record.write_bytes(out, text.getvalue().encode("utf-8", "backslashreplace"))


def show_line(kind: TaskKind, row: dict[str, Any]) -> None:
    """Prints one prediction on a line, or its error on standard error."""
    if "error" in row:
        print(printable(row["error"]), file=sys.stderr, flush=True)
    else:
        print("\t".join(map(printable, kind.row(row))), flush=True)


def show(kind: TaskKind, predictions: list[dict[str, Any]]) -> None:
    """Prints predictions as a table, and errors on standard error."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in kind.columns:
        table.add_column(column, overflow="fold")
    for row in predictions:
        if "error" not in row:
            table.add_row(*map(printable, kind.row(row)))
    if table.row_count:
        # In a file or a pipe, rows are not wrapped.
        width = None if sys.stdout.isatty() else 1000
        Console(width=width).print(table)
    for row in predictions:
        if "error" in row:
            print(printable(row["error"]), file=sys.stderr)
