"""Reads tables of files in CSV: detects separator, encoding, header and columns."""

import codecs
import csv
import functools
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.limits import FOLLOW, is_inside

TABLES = (".csv", ".tsv", ".txt")  # suffixes of tables
ROLES = ("path", "label", "text", "group", "split", "step")
_ALIASES = {
    "path": "file filename file_name filepath file_path image img image_path "
    "image_file image_name img_path".split(),
    "label": "class category target class_name classname label_name".split(),
    "text": "transcription transcript".split(),
}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_FILE = re.compile(r"[^:*?\"<>|]*\.[A-Za-z][A-Za-z0-9]{1,4}")  # a name with a suffix
_PROBED = 20  # rows that are used to detect the separator


class TableFormat(NamedTuple):
    """The user's options for tables.

    Attributes:
      columns: by role, the name of a column or its number from 1, such as {"path":
        "file"}.
      encoding: name of the encoding; None: UTF-8, or UTF-16 with a byte-order mark.
      follow_outside: read files outside of the table's folder.
    """

    columns: Mapping[str, str] = MappingProxyType({})
    encoding: str | None = None
    follow_outside: bool = False


def table_format(
    columns: str | None, encoding: str | None, follow_outside: bool = False
) -> TableFormat:
    """The `TableFormat` of flags; `columns` is as in `parse_columns`."""
    return TableFormat(parse_columns(columns or ""), encoding, follow_outside)


class Table(NamedTuple):
    """A table of files.

    Attributes:
      rows: stripped cells by column name; a column with a role has the name of the
        role, the others have their own in lower case.
      columns: by role, the name of the column as written in the file.
      separator: the character between cells.
      encoding: the encoding of the file.
      header: whether the first row names the columns.
    """

    rows: list[dict[str, str]]
    columns: dict[str, str]
    separator: str
    encoding: str
    header: bool

    def described(self) -> str:
        """How the table differs from a plain CSV with the usual columns; "" if not."""
        parts = []
        if self.separator != ",":
            parts.append(f"separated by {_SEPARATORS[self.separator]}")
        if self.encoding not in ("utf-8", "utf-8-sig"):
            parts.append(f"encoded as {self.encoding}")
        if not self.header:
            parts.append("without a header")
        renamed = [f"{n} as {role}" for role, n in self.columns.items() if n != role]
        return ", ".join(parts + renamed)


def parse_columns(text: str) -> dict[str, str]:
    """Parses "path:filename,label:class" into columns by role.

    Raises:
      DataError: it is malformed, or a role is unknown.
    """
    columns = {}
    for pair in text.split(",") if text else ():
        role, colon, name = (part.strip() for part in pair.partition(":"))
        if not colon or not name or role not in ROLES or role in columns:
            raise DataError(
                f"--data.columns={text}: expected ROLE:COLUMN, such as "
                f"path:filename,label:class; the roles are {', '.join(ROLES)}"
            )
        columns[role] = name
    return columns


def read_table(
    path: Path, wanted: Iterable[str], form: TableFormat = TableFormat()
) -> list[dict[str, str]]:
    """Rows of a table as dicts by column name; the roles in `wanted` are required."""
    return open_table(path, wanted, form).rows


def open_table(
    path: Path, wanted: Iterable[str], form: TableFormat = TableFormat()
) -> Table:
    """Reads a table.

    Commas, semicolons, tabs or bars separate cells. Columns are found by common names,
    such as filename for `path` and class for `label`. A table of two columns needs no
    header if one of them contains file names.

    Args:
      path: the file.
      wanted: the required roles.
      form: the user's options.

    Raises:
      DataError: the file is not a readable table; the message names the cause.
    """
    wanted = list(wanted)
    text, encoding = _decoded(path, form.encoding)
    lines = text.splitlines(keepends=True)
    separator = None
    if lines and (told := re.fullmatch(r"(?i)sep=(.)\s*", lines[0])):
        separator, lines = told[1], lines[1:]  # as Excel writes it
    separator = separator or _separator(path, lines)
    try:
        body = io.StringIO("".join(lines), newline="")
        rows = [(r, k) for k, r in enumerate(csv.reader(body, delimiter=separator), 1)]
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from error
    rows = [([c.strip() for c in r], k) for r, k in rows if any(map(str.strip, r))]
    first = rows[0][0] if rows else []
    names, columns, header = _columns(path, first, wanted, form.columns, separator)
    table = []
    for row, line in rows[1:] if header else rows:
        if len(row) != len(names):
            raise DataError(
                f"{path}: row {line} has {len(row)} cells, the first has {len(names)}"
            )
        table.append(dict(zip(names, row, strict=True)))
    if not table:
        raise DataError(f"{path}: no rows below the column names")
    return Table(table, columns, separator, encoding, header)


def _decoded(path: Path, given: str | None) -> tuple[str, str]:
    """(text, encoding) of a file."""
    where = f"{path}: not a readable CSV file"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{where} ({error.strerror or error})") from error
    found = next((name for bom, name in _BOMS.items() if raw.startswith(bom)), None)
    encoding = given or found or "utf-8"
    if not given and raw.startswith(b"PK"):
        raise DataError(f"{where} (an Excel or ZIP file); save the sheet as CSV, UTF-8")
    if not given and not found and b"\0" in raw[:1000]:
        order = "be" if raw[:1] == b"\0" else "le"
        raise DataError(
            f"{where} (it holds NUL bytes, as UTF-16 does without its mark); if it is "
            f"UTF-16, give --data.encoding=utf-16-{order}"
        )
    try:
        return raw.decode(encoding).removeprefix("\ufeff"), encoding
    except LookupError:
        raise DataError(
            f"--data.encoding={given}: no such encoding; examples: utf-8, utf-16, "
            "cp1251, cp1252"
        ) from None
    except UnicodeError as error:
        if given or found or not isinstance(error, UnicodeDecodeError):
            raise DataError(f"{where} (it is not {encoding}: {error})") from error
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where} (row {line} is not UTF-8); save it as UTF-8, or give its "
            "encoding, such as --data.encoding=cp1251"
        ) from error


def _separator(path: Path, lines: Sequence[str]) -> str:
    """Detects the character that separates cells from the first rows."""
    lines = [line for line in lines[: 2 * _PROBED] if line.strip()][:_PROBED]
    scores = {}
    for mark in _SEPARATORS:
        try:
            rows = list(csv.reader(lines, delimiter=mark))
        except csv.Error as error:
            raise DataError(f"{path}: not a readable CSV file ({error})") from error
        first = [cell.strip().lower() for cell in rows[0]] if rows else []
        known = sum(cell in ROLES or _role(cell) is not None for cell in first)
        even = len({len(row) for row in rows}) == 1
        scores[mark] = (len(first) > 1, known, even, len(first))
    best = max(scores, key=scores.__getitem__)
    twice = [mark for mark, score in scores.items() if score == scores[best]]
    if not scores[best][0]:
        return ","
    if len(twice) > 1:
        raise DataError(
            f"{path}: cells may be separated by {_SEPARATORS[twice[0]]} or by "
            f"{_SEPARATORS[twice[1]]}; name the columns in its first row, such as "
            "path,label"
        )
    return best


def _role(name: str) -> str | None:
    """The role that a common column name stands for; None if it is not a common one."""
    plain = name.replace(" ", "_").replace("-", "_")
    return next((role for role, names in _ALIASES.items() if plain in names), None)


def _columns(
    path: Path,
    first: list[str],
    wanted: list[str],
    given: Mapping[str, str],
    separator: str,
) -> tuple[list[str], dict[str, str], bool]:
    """(names of the columns, columns by role, whether there is a header)."""
    lower = [name.lower() for name in first]
    at: dict[str, int] = {}
    for role, name in given.items():
        if name.lower() in lower:
            at[role] = lower.index(name.lower())
        elif name.isdecimal() and 1 <= int(name) <= len(first):
            at[role] = int(name) - 1
        else:
            raise DataError(
                f"{path}: --data.columns names {name!r} as {role}, but its columns are "
                f"{_quoted(first)}; a number counts them from 1"
            )
    files = [k for k, cell in enumerate(first) if _FILE.fullmatch(cell)]
    if files and not any(name in ROLES or _role(name) for name in lower):
        return _headless(path, first, files, wanted, at)
    named = [name for name in lower if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice:
        raise DataError(f"{path}: two columns are called {twice!r}; rename one")
    for role in ROLES:
        if role in at:
            continue
        if role in lower:
            at[role] = lower.index(role)
            continue
        usual = [k for k, name in enumerate(lower) if _role(name) == role]
        usual = [k for k in usual if k not in at.values()]
        others = [k for k in range(len(lower)) if k not in at.values()]
        others = [k for k in others if lower[k] and lower[k] not in ROLES]
        if role == "label" and role not in wanted and len(others) > 1:
            continue  # several columns may hold labels: none of them is chosen
        if len(usual) > 1 and role in wanted:
            raise DataError(
                f"{path}: {_quoted([first[k] for k in usual])} may all be the {role}; "
                f"give --data.columns={role}:{first[usual[0]]}"
            )
        if len(usual) == 1:
            at[role] = usual[0]
    missing = [name for name in wanted if name not in at]
    if missing:
        example = ",".join(f"{role}:NAME" for role in missing)
        single = ""
        if len(first) == 1 and separator == "," and first[0]:
            single = " It has one column: no comma, semicolon or tab separates cells."
        raise DataError(
            f"{path}: no column {_quoted(missing)}; its first line names "
            f"{_quoted(lower) or 'nothing'}.{single} Expected columns: path,"
            f"{'text' if 'text' in wanted else 'label'} and, optionally, group and "
            f"split; or name the columns with --data.columns={example}"
        )
    names = list(lower)
    for role, k in at.items():
        names = [f"({n})" if n == role else n for n in names]
        names[k] = role
    return names, {role: first[k] for role, k in at.items()}, True


def _headless(path, first, files, wanted, at):
    """As `_columns`, for a table whose first row is data instead of a header."""
    if not at and len(files) == 1 and len(first) == 2 and len(wanted) <= 2:
        other = next((role for role in wanted if role != "path"), "label")
        at = {"path": files[0], other: 1 - files[0]}
    missing = [name for name in wanted if name not in at]
    if missing or "path" not in at:
        raise DataError(
            f"{path}: it has no header, its first row is {_quoted(first)}; name the "
            f"columns in a first row, or give their numbers, such as "
            f"--data.columns=path:{files[0] + 1},"
            f"{wanted[-1] if wanted[-1] != 'path' else 'label'}:"
            f"{2 if files[0] == 0 else 1}"
        )
    names = [f"column {k}" for k in range(1, len(first) + 1)]
    columns = {role: names[k] for role, k in at.items()}
    for role, k in at.items():
        names[k] = role
    return names, columns, False


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


@functools.lru_cache(maxsize=1024)  # a table with time steps repeats each clip's path
def placed(table: Path, written: str) -> Path:
    """The path of a file listed in a table; relative paths start at the table's folder.

    If the file is not found, backslashes are taken as separators, as on Windows.
    """
    path = table.parent / Path(written).expanduser()
    if "\\" in written and not _exists(path):
        return table.parent / Path(written.replace("\\", "/"))
    return path


def check_inside(table: Path, written: str, form: TableFormat) -> None:
    """Raises DataError if a listed file is not in the table's folder, or below it."""
    if form.follow_outside or is_inside(placed(table, written), table.parent):
        return
    raise DataError(
        f"{table}: {written[:60]!r} leads outside of the table's folder; {FOLLOW} "
        "allows that"
    )


def check_files(table: Path, written: Sequence[str]) -> None:
    """Checks that at least one of the listed files exists.

    Raises:
      DataError: none of them exists; the message names a likely cause.
    """
    written = list(dict.fromkeys(written))
    if any(_exists(placed(table, name)) for name in written):
        return
    name = written[0]
    flat = name.replace("\\", "/")
    short = flat.rpartition("/")[2]
    home = table.parent
    beside = next((p for p in sorted(home.glob("*/")) if _exists(p / short)), None)
    suffixed = [p for p in (home / flat).parent.glob(f"{_escaped(short)}.*")]
    if "://" in name:
        why = f"{name!r} is a URL; download the files and list their paths"
    elif re.match(r"[A-Za-z]:[\\/]", name):
        why = f"{name!r} is a path on another machine; list paths relative to {home}"
    elif _exists(Path(flat)):
        why = (
            f"{name!r} exists in the working directory, but paths are relative to the "
            f"table's folder, {home}; move the table to {Path.cwd()}"
        )
    elif suffixed:
        why = f"{name!r} lacks its suffix; {suffixed[0].name} exists"
    elif beside:
        why = f"{name!r} is in {beside.name}/; list it as {beside.name}/{short}"
    else:
        why = f"the first, {placed(table, name)}: No such file or directory"
    raise DataError(f"{table}: none of its {len(written)} files exists: {why}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, or a NUL in it
        return False


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name) or "?"
