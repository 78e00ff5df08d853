"""Answers printed, and written to files."""

import csv
import functools
import io
import json
import sys
from pathlib import Path
from typing import Any

from experiments.run import record
from experiments.tasks import TaskKind

ENDINGS = (".csv", ".jsonl")  # of files that any task's answers go to
_TABLES = ("probabilities", "shares")  # of an answer, a column for each entry
_ARRAYS = ("seen", "frames", "raw", "mask")  # of an answer, which no table holds
_NESTED = (*_TABLES, *_ARRAYS, "characters", "size")


def write(kind: TaskKind, answers: list[dict[str, Any]], out: Path) -> None:
    """Writes answers to .csv or .jsonl, of lines also to .txt or, as ALTO, to .xml."""
    text = io.StringIO()
    if out.suffix in kind.formats:
        text.write(kind.formats[out.suffix](answers))
    elif out.suffix == ".jsonl":
        plain = [{k: v for k, v in a.items() if k not in _ARRAYS} for a in answers]
        dumps = functools.partial(json.dumps, ensure_ascii=False)
        text.writelines(dumps(row) + "\n" for row in plain)
    else:
        flat = [
            {k: v for k, v in row.items() if k not in _NESTED}
            | {f"p_{k}": v for k, v in row.get("probabilities", {}).items()}
            | {f"share_{k}": v for k, v in row.get("shares", {}).items()}
            | ({"boxes": json.dumps(row["boxes"])} if "boxes" in row else {})
            for row in answers
        ]
        columns = list(dict.fromkeys(key for row in flat for key in row))
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(flat)
    record.write_bytes(out, text.getvalue().encode())


def show_line(kind: TaskKind, row: dict[str, Any]) -> None:
    """Prints one answer on a line, or on standard error why there is none."""
    if "error" in row:
        print(row["error"], file=sys.stderr, flush=True)
    else:
        print("\t".join(kind.row(row)), flush=True)


def show(kind: TaskKind, answers: list[dict[str, Any]]) -> None:
    """Prints answers as a table, and what could not be read on standard error."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in kind.columns:
        table.add_column(column, overflow="fold")
    for row in answers:
        if "error" not in row:
            table.add_row(*kind.row(row))
    if table.row_count:
        # Into a file or a pipe, a line stays a line, however long a name is.
        width = None if sys.stdout.isatty() else 1000
        Console(width=width).print(table)
    for row in answers:
        if "error" in row:
            print(row["error"], file=sys.stderr)
