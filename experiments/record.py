"""What a run leaves behind: its files, never half written, and what people see."""

import csv
import dataclasses
import errno
import importlib.metadata
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text


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
    text = json.dumps(_plain(obj, Path(path).name), indent=2, ensure_ascii=False)
    _write_atomic(path, (text + "\n").encode("utf-8", "backslashreplace"))


def save_figure(path, fig):
    """Saves a Matplotlib figure, whole or not at all; the suffix names the format."""
    path = Path(path)
    buffer = io.BytesIO()
    fig.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi="figure")
    _write_atomic(path, buffer.getvalue())


def _plain(value, where: str, nan_is_none: bool = False):
    """`value` out of dicts, lists, strings and Python's numbers only."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {
            str(key): _plain(item, f"{where}: {key}", nan_is_none)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _plain(item, f"{where}[{k}]", nan_is_none) for k, item in enumerate(value)
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
        return _plain(value.tolist(), where, nan_is_none)
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
        row = _plain(row, self.path.name, nan_is_none=True)
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
        content = self._content()
        rows = []
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                row["step"]
            except (ValueError, KeyError, TypeError):
                raise RunError(
                    f"{self.path}: line {number} is not a row of metrics; delete that "
                    "line and start again"
                ) from None
            rows.append(row)
        return rows

    def truncate_after(self, step: int):
        """Drops rows past `step`, which a run resumed from there will write anew."""
        self._drop_torn_line()
        rows = self.rows()
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in kept]
            _write_atomic(self.path, "".join(lines).encode())

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

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _drop_torn_line(self):
        """Cuts the file after its last line break."""
        content = self._content()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)


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
    # a hook's GIT_DIR would answer for another repository
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


# --- what people see ----------------------------------------------------------------


class _SafeStream:
    """A text stream that prints "?" for what its encoding does not have."""

    def __init__(self, stream):
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text):
        text = text.encode(self.encoding, "replace").decode(self.encoding)
        return self._stream.write(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


class Display:
    """Progress of a run: a bar in a terminal, plain lines in a file or a notebook.

    `with Display() as display:` then `start`, `update` for every row, `note`.
    A validation row has its own line, above the bar.
    """

    def __init__(self, stream=None):
        stream = sys.stdout if stream is None else stream
        terminal = getattr(stream, "isatty", lambda: False)()
        notebook = "ipykernel" in sys.modules
        simple = os.environ.get("TERM", "") in ("dumb", "unknown")
        self._bar = terminal and not notebook and not simple
        self._console = Console(
            file=_SafeStream(stream),
            force_terminal=self._bar,
            force_jupyter=False,
            width=None if self._bar else 100,
            highlight=False,
        )
        self._progress = None
        self._total = self._done = 0
        self._since = None  # (step, time) of the first update: compilation is before it

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, total: int, done: int = 0):
        """Begins at step `done` of `total`."""
        self.stop()
        self._total, self._done, self._since = total, done, None
        if not self._bar:
            return
        self._progress = Progress(
            TextColumn("step {task.completed}/{task.total}", markup=False),
            BarColumn(None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
            expand=True,
            auto_refresh=False,  # no thread: it would take time from the training loop
        )
        self._task = self._progress.add_task(
            "", total=total, completed=done, text="compiling"
        )
        self._progress.start()
        self._progress.refresh()

    def update(self, step: int, metrics: dict):
        """Shows one row: loss, accuracy or mae, images_per_second; "split" if any."""
        parts = _shown(metrics)
        if metrics.get("split", "train") != "train":
            self.note("  ".join([self._at(step), str(metrics["split"]), *parts]))
            return
        self._done = step
        left = self._time_left(step)
        if left is not None:
            parts.append(f"{left} left")
        if self._progress is None:
            self.note("  ".join([self._at(step), *parts]))
        else:
            self._progress.update(
                self._task, completed=step, text="  ".join(parts), refresh=True
            )

    def note(self, text):
        """Prints a line of text, or anything that rich can print, above the bar."""
        if isinstance(text, str):
            if self._bar:
                self._console.print(Text(text), soft_wrap=True)
            else:  # a line stays a line, whatever the width
                self._console.file.write(text + "\n")
        else:
            self._console.print(text)
        self._console.file.flush()

    def stop(self):
        """Leaves the last state on the screen; safe to call twice."""
        if self._progress is not None:
            progress, self._progress = self._progress, None
            progress.stop()

    def _at(self, step):
        return f"step {step}/{self._total}" if self._total else f"step {step}"

    def _time_left(self, step):
        now = time.monotonic()
        if self._since is None:
            self._since = (step, now)
        first, then = self._since
        if step >= self._total:
            return "0:00"
        if step <= first:
            return None
        seconds = round((now - then) / (step - first) * (self._total - step))
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
        return f"{start}:{seconds:02d}"


def _shown(metrics):
    """The two or three numbers of a row that a person follows."""
    parts = []
    second = "accuracy" if metrics.get("accuracy") is not None else "mae"
    for name in ("loss", second):
        if metrics.get(name) is not None:
            parts.append(f"{name} {_number(metrics[name])}")
    rate = metrics.get("images_per_second")
    if rate is not None:
        parts.append(f"{float(rate):,.0f} images/s")
    return parts


def _number(value):
    value = float(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.3g}"


def summary_table(report: dict) -> Table:
    """The end of a run: test metrics, baselines beside them, and where it errs.

    Args:
      report: what a task's `report` returns; may hold "baselines": {name: a dict with
        the same keys, or some of them}.

    Returns:
      A table for `Display.note`; the best of each line is bold.
    """
    baselines = report.get("baselines") or {}
    unit = f" ({report['unit']})" if report.get("unit") else ""
    lines = [("accuracy", ("accuracy",), max)]
    lines += [
        (f"{key[:-9]} accuracy", (key,), max)
        for key in report
        if key.startswith("top") and key.endswith("_accuracy")
    ]
    lines += [
        ("F1, macro", ("macro", "f1"), max),
        ("ROC AUC, macro", ("macro", "roc_auc"), max),
        (f"MAE{unit}", ("mae",), min),
        (f"RMSE{unit}", ("rmse",), min),
        ("R2", ("r2",), max),
        ("loss", ("loss",), min),
    ]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"\nTest set: {report.get('examples', 0):,} examples", style="bold"),
        title_justify="left",
        caption=Text("\n".join(_findings(report)), style="dim"),
        caption_justify="left",
    )
    table.add_column("")
    for name in ("this run", *baselines):
        table.add_column(Text(str(name)), justify="right")
    for label, keys, pick in lines:
        values = [_lookup(each, keys) for each in (report, *baselines.values())]
        if values[0] is None:
            continue
        known = [value for value in values if value is not None]
        best = pick(known) if len(known) > 1 else None
        cells = [
            Text("-", style="dim")
            if value is None
            else Text(_number(value), style="bold green" if value == best else "")
            for value in values
        ]
        table.add_row(Text(label), *cells)
    return table


def profile_line(profile: dict) -> str:
    """What `training.profile` found, in words."""
    return (
        f"profile: {profile['whole_loop_ms']:.2f} ms a step, "
        f"{profile['step_alone_ms']:.2f} ms the compiled step alone (ratio "
        f"{profile['ratio']:.3f}, {profile['waiting']:.1%} waiting for data or "
        f"dispatch); the host: reading {profile['reading_ms']:.2f}, moving "
        f"{profile['moving_ms']:.2f}, dispatching {profile['dispatching_ms']:.2f} ms"
    )


def _lookup(report, keys):
    for key in keys:
        report = report.get(key) if isinstance(report, dict) else None
    return report


def _findings(report):
    """Lines in words: the hardest classes, and the mistake made most often."""
    classes, matrix = report.get("classes"), report.get("confusion_matrix")
    if not classes or not matrix:
        return []
    seen = [row for row in report.get("per_class", []) if row["support"]]
    hardest = sorted(seen, key=lambda row: row["f1"])[:3]
    lines = []
    if hardest and hardest[0]["f1"] < 1:
        named = [f"{r['name']} (F1 {r['f1']:.3f})" for r in hardest if r["f1"] < 1]
        lines.append("hardest: " + ", ".join(named))
    count, true, chosen = max(
        (matrix[i][j], -i, -j)
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j
    )
    if count:
        times = "once" if count == 1 else f"{count} times"
        lines.append(
            f"most often: {classes[-true]} taken for {classes[-chosen]}, {times}"
        )
    return lines
