"""What a run leaves behind: its files, never half written, and where it ran."""

import csv
import dataclasses
import errno
import functools
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet executes such cells
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class RunError(RuntimeError):
    """A run directory cannot be written or read; the message is complete."""


# --- files --------------------------------------------------------------------------


@contextmanager
def _writing(path: Path):
    """Turns a full disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = "unknown"
        with suppress(OSError):
            free = f"{shutil.disk_usage(path.parent).free / 2**20:,.1f} MiB"
        raise RunError(
            f"{path}: could not be written, the disk is full or over its quota (free: "
            f"{free}); make room and resume, or choose a run directory on another disk"
        ) from None


def _sync(descriptor: int):
    """fsync, where the file system knows it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def _write_atomic(path, content: bytes):
    """Writes beside, then renames: `path` is the old file or the new one, whole."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as file:
                file.write(content)
                file.flush()
                _sync(file.fileno())
            os.replace(beside, path)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        if os.name == "posix":  # the new name, too, outlives a power cut
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                _sync(folder)
            finally:
                os.close(folder)


def write_json(path, obj):
    """Writes `obj` as JSON, whole or not at all.

    Args:
      path: the file; folders above it are made.
      obj: dicts, lists, dataclasses, numbers, strings, paths, arrays.

    Raises:
      RunError: the disk is full.
      ValueError: NaN or infinity, which JSON cannot hold; names the entry.
      TypeError: a thing that JSON cannot hold; names the entry.
    """
    text = json.dumps(plain(obj, Path(path).name), indent=2, ensure_ascii=False)
    _write_atomic(path, (text + "\n").encode("utf-8", "backslashreplace"))


def write_bytes(path, content: bytes):
    """Writes a file, whole or not at all."""
    _write_atomic(path, content)


def write_table(path, rows: list[dict]):
    """Writes rows of one set of columns as CSV, whole or not at all."""
    _write_atomic(path, csv_bytes(list(rows[0]), rows))


def csv_bytes(columns: list[str], rows: list[dict]) -> bytes:
    """Rows as CSV in UTF-8 that a spreadsheet shows and does not execute.

    A text that begins with = + - @, a tab or a carriage return gets a leading
    apostrophe, unless it is a number. Bytes of file names that are not UTF-8 become
    backslash escapes.
    """
    lines = [_csv_line(columns)]
    lines += [_csv_line([row.get(name, "") for name in columns]) for row in rows]
    return "".join(lines).encode("utf-8", "backslashreplace")


def _csv_line(cells: list) -> str:
    text = io.StringIO()
    # the writer quotes a carriage return only if lines end with one
    csv.writer(text, lineterminator="\r\n").writerow(map(_inert, cells))
    return text.getvalue().removesuffix("\r\n") + "\n"


def _inert(cell):
    """A cell that no spreadsheet takes for a formula."""
    if not isinstance(cell, str) or not cell.startswith(_FORMULA):
        return cell
    return cell if _NUMBER.fullmatch(cell) else f"'{cell}"


def save_figure(path, fig):
    """Saves a Matplotlib figure, whole or not at all; the suffix names the format.

    Tells, once for the same characters, which of them no installed font has.
    """
    from lstm_jax.figures.fonts import missing_note

    path = Path(path)
    buffer = io.BytesIO()
    fig.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi="figure")
    _write_atomic(path, buffer.getvalue())
    if note := missing_note(fig):
        _print_once(note)


@functools.cache
def _print_once(note: str) -> None:
    print(note, flush=True)


def plain(value, where: str, nan_is_none: bool = False):
    """`value` out of dicts, lists, strings and Python's numbers only.

    Args:
      value: what `write_json` takes.
      where: the name of the file, for messages.
      nan_is_none: NaN and infinity become None.

    Raises:
      ValueError: NaN or infinity; names the entry.
      TypeError: a thing that JSON cannot hold; names the entry.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {
            str(key): plain(item, f"{where}: {key}", nan_is_none)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            plain(item, f"{where}[{k}]", nan_is_none) for k, item in enumerate(value)
        ]
    if isinstance(value, float) and not math.isfinite(value):
        if nan_is_none:
            return None
        raise ValueError(f"{where} is {value}, which JSON cannot hold; use None")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, os.PathLike):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and JAX, arrays and scalars
        return plain(value.tolist(), where, nan_is_none)
    if isinstance(value, str | int | float):  # subclasses, enums among them
        kind = next(kind for kind in (str, int, float) if isinstance(value, kind))
        return kind(value.value if hasattr(value, "value") else value)
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold")


class MetricsLog:
    """The numbers of a run over its steps: metrics.jsonl, one row a line.

    A row is {"step": int, "split": "train" | "validation", "loss": ..., ...}. NaN
    becomes null. A line that a kill cut short is dropped at the next write.
    """

    def __init__(self, run_dir):
        self.path = Path(run_dir) / "metrics.jsonl"
        self._repaired = False

    def append(self, row: dict):
        """Adds one row; raises RunError, and leaves no torn line, on a full disk."""
        if "step" not in row or "split" not in row:
            raise ValueError(
                f'{self.path.name}: a row wants "step" and "split", got {sorted(row)}'
            )
        row = plain(row, self.path.name, nan_is_none=True)
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode(
            "utf-8", "backslashreplace"
        )
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._repaired:
                self._drop_torn_line()
                self._repaired = True
            with open(self.path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    written = file.write(line)
                    if written != len(line):
                        raise OSError(errno.ENOSPC, "short write")
                except OSError:
                    with suppress(OSError):
                        file.truncate(size)
                    raise

    def rows(self) -> list[dict]:
        """All rows, without a torn last line; [] before the first."""
        return list(parse_rows(self.content(), self.path))

    def content(self) -> bytes:
        """The file as it is; empty before the first row."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def restore(self, content: bytes) -> str | None:
        """Makes the file what it was when a checkpoint was saved.

        Later rows are dropped: a run resumed from there writes them again.

        Args:
          content: of the file, at that time.

        Returns:
          A line that says what was wrong, if it was not only later rows.
        """
        found = self.content()
        if found == content:
            return None
        _write_atomic(self.path, content)
        if found.startswith(content):
            return None
        what = "damaged" if found else "missing or empty"
        return f"{self.path} was {what}: restored from the checkpoint"

    def write_csv(self) -> Path:
        """Writes metrics.csv, with every column that any row has; returns its path."""
        rows = self.rows()
        columns = list(dict.fromkeys(["step", "split", *(k for r in rows for k in r)]))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path = self.path.with_suffix(".csv")
        _write_atomic(path, text.getvalue().encode())
        return path

    def _drop_torn_line(self):
        """Cuts the file after its last line break."""
        content = self.content()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)


def parse_rows(content: bytes, path: Path) -> Iterator[dict]:
    """The rows of a metrics.jsonl, without a torn last line.

    Raises:
      RunError: a line is no row.
    """
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            sound = isinstance(row["step"], int) and isinstance(row["split"], str)
        except (ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise RunError(
                f"{path}: line {number} is not a row of metrics; rerun the training "
                "command, which restores the file from the checkpoint"
            )
        yield row


# --- where it ran -------------------------------------------------------------------


def environment() -> dict:
    """Versions, devices and the commit: what a number depends on, and no host name."""
    import jax

    result = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "lstm_jax"):
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = None
    devices = jax.devices()
    result["platform"] = devices[0].platform
    result["device_kind"] = devices[0].device_kind
    result["device_count"] = len(devices)
    result["process_count"] = jax.process_count()
    result["system"] = f"{platform.system()} {platform.machine()}"
    result["git_commit"] = _git_commit(Path(__file__).resolve())
    return result


def _git_commit(file: Path) -> str | None:
    """The commit that `file` is checked out from, "-dirty" if edited, or None."""
    # a hook's GIT_DIR would describe another repository
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments):
        done = subprocess.run(
            ["git", *arguments],
            cwd=file.parent,
            env=clean,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        # installed below somebody else's checkout is not in that checkout
        git("ls-files", "--error-unmatch", file.name)
        commit = git("rev-parse", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if dirty else commit
