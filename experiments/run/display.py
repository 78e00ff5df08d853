"""What people see of a run: its progress, its table, its hardest classes."""

import os
import sys
import time

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text


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

    def notes(self, lines):
        """Prints some lines."""
        for line in lines:
            self.note(line)

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
    names = ("loss", "accuracy", "foreground_iou", "f1", "mse", "ssim", "mae")
    names += ("cer", "exact")
    for name in names:
        if len(parts) == (3 if "mse" in metrics else 2):
            break
        if metrics.get(name) is not None:
            parts.append(f"{name} {_number(metrics[name])}")
    rate = metrics.get("images_per_second")
    if rate is not None:
        parts.append(f"{float(rate):,.0f} images/s")
    return parts


def _number(value):
    value = float(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.3g}"


def closing(experiment, report: dict) -> Table | str:
    """The end of a run: `summary_table` of its report.json, if any label is known."""
    test = report["test"]
    if not test.get("known", test["examples"]):
        return "no test example has a label: there is nothing to score"
    scores = test | {"baselines": report["baselines"]}
    return summary_table(scores, experiment.kind.metrics)


def summary_table(report: dict, metrics: tuple[tuple[str, str, str], ...]) -> Table:
    """The end of a run: test metrics, baselines beside them, and where it errs.

    Args:
      report: what a task's `report` returns; may hold "baselines": {name: a dict with
        the same keys, or some of them}.
      metrics: those of the task, as `TaskKind.metrics` has them.

    Returns:
      A table for `Display.note`; the best of each line is bold.
    """
    baselines = scored_baselines(report)
    unit = f" ({report['unit']})" if report.get("unit") else ""
    lines = [
        (label + unit * (name in ("mae", "rmse")), name.split("."), better)
        for name, label, better in (*metrics, ("parameters", "parameters", "min"))
    ]
    remarks = _remarks(report)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"\nTest set: {report.get('examples', 0):,} examples", style="bold"),
        title_justify="left",
        caption=Text("\n".join(remarks), style="dim"),
        caption_justify="left",
        min_width=max(map(len, remarks), default=0),
    )
    table.add_column("")
    for name in ("this run", *baselines):
        table.add_column(Text(str(name)), justify="right")
    for label, keys, better in lines:
        values = [_lookup(each, keys) for each in (report, *baselines.values())]
        if values[0] is None:
            continue
        known = [value for value in values if value is not None]
        best = None
        if len(known) > 1 and better:
            best = max(known) if better == "max" else min(known)
        cells = [
            Text("-", style="dim")
            if value is None
            else Text(_number(value), style="bold green" if value == best else "")
            for value in values
        ]
        table.add_row(Text(label), *cells)
    return table


def findings(report: dict) -> list[str]:
    """Lines on what the numbers of a report say, with what may help."""
    return [
        *forgotten_lines(report),
        *(
            f"found: {each['words']}\n  may help: {each['suggestion']}"
            for each in report.get("diagnosis", [])
        ),
    ]


def forgotten_lines(report: dict) -> list[str]:
    """A line on the test set of the run that this one began with, if any."""
    found = report.get("forgotten")
    if not found:
        return []
    if "skipped" in found:
        return [f"{found['source']}: not tested again, {found['skipped']}"]
    values = [
        f"{found[when]:.2%}" if found["rate"] else _number(found[when])
        for when in ("before", "after")
    ]
    return [
        f"{found['source']}: on {found['examples']:,} of its own test examples the "
        f"{found['label']} was {values[0]} before this training and is {values[1]} now"
    ]


def scored_baselines(report: dict) -> dict[str, dict]:
    """Baselines and references of a report by name, those that have any metric."""
    found = dict(report.get("references") or {})
    for name, scores in (report.get("baselines") or {}).items():
        found[name] = found.get(name, {}) | scores
    other = {"trivial", "learnt", "examples", "seconds", "difference"}
    return {name: scores for name, scores in found.items() if scores.keys() - other}


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


def _remarks(report):
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
