"""The console output of a run: progress, notes, and the table of test metrics."""

import sys
import time
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from experiments.evaluation.undefined import undefined_auc
from experiments.numbers import number, percent
from experiments.terminal import is_terminal, printable
from lstm_jax import training

_EVERY = 0.2  # seconds between two refreshes of the bar


class _SafeStream:
    """A text stream that prints "?" for characters that its encoding lacks."""

    def __init__(self, stream):
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text):
        text = text.encode(self.encoding, "replace").decode(self.encoding)
        return self._stream.write(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


class Display:
    """The progress of a run: a bar in a terminal, lines in a file or a notebook.

    Use `with Display() as display:`, then `start`, `update` with each row of metrics,
    and `note`. Each validation has a line of its own above the bar.
    """

    def __init__(self, stream=None):
        stream = sys.stdout if stream is None else stream
        self._bar = is_terminal(stream)
        self._console = Console(
            file=_SafeStream(stream),
            force_terminal=self._bar,
            force_jupyter=False,
            width=None if self._bar else 100,
            highlight=False,
        )
        self._progress = None
        self._total = self._done = 0
        self._since = None  # (step, time) of the first update, after compilation
        self._started = self._shown = 0.0  # times of the start and of the last refresh

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, total: int, done: int = 0):
        """Starts the progress at step `done` of `total`."""
        self.stop()
        self._total, self._done, self._since = total, done, None
        self._started, self._shown = time.monotonic(), 0.0
        if not self._bar:
            return
        self._progress = Progress(
            TextColumn("step {task.completed}/{task.total}", markup=False),
            BarColumn(None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
            expand=True,
            auto_refresh=False,  # a thread would slow the training loop down
        )
        self._task = self._progress.add_task(
            "", total=total, completed=done, text="compiling"
        )
        self._progress.start()
        self._progress.refresh()

    def progress(self, step: int):
        """Shows how many steps are complete; of the first call, that the program is
        compiled. A bar is refreshed at most every 0.2 seconds."""
        now = time.monotonic()
        compiled = not self._shown
        if not compiled and now - self._shown < _EVERY:
            return
        self._shown = now
        if self._progress is None:
            if compiled:
                self.note(f"{self._at(step)}  compiled in {now - self._started:.0f} s")
            return
        text = {} if not compiled else {"text": "first step"}
        if self._since is None and step > self._done:
            text = {"text": "training"}
        self._progress.update(self._task, completed=step, refresh=True, **text)

    def update(self, step: int, metrics: dict):
        """Shows a row of metrics: loss, a metric of the task, images_per_second."""
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
            text = printable(text)
            if self._bar:
                self._console.print(Text(text), soft_wrap=True)
            else:  # lines are not wrapped
                self._console.file.write(text + "\n")
        else:
            self._console.print(text)
        self._console.file.flush()

    def notes(self, lines):
        """Prints each of the lines."""
        for line in lines:
            self.note(line)

    def stop(self):
        """Ends the progress bar, whose last state stays; safe to call twice."""
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
    """The two or three most important metrics of a row, and the speed, as text."""
    parts = []
    names = ("loss", "accuracy", "foreground_iou", "f1", "mse", "ssim", "mae")
    names += ("cer", "exact")
    for name in names:
        if len(parts) == (3 if "mse" in metrics else 2):
            break
        if metrics.get(name) is not None:
            parts.append(f"{name} {number(float(metrics[name]), name)}")
    rate = metrics.get("images_per_second")
    if rate is not None:
        parts.append(f"{float(rate):,.0f} images/s")
    return parts


def closing(experiment, report: dict) -> Table | str:
    """The `summary_table` of report.json; a note if no test example has a label."""
    test = report["test"]
    if not test.get("known", test["examples"]):
        return "no test example has a label, so there are no test metrics"
    scores = test | {"baselines": report["baselines"]}
    return summary_table(scores, experiment.kind.metrics)


def summary_table(report: dict, metrics: tuple[tuple[str, str, str], ...]) -> Table:
    """A table of test metrics and baselines, with the most frequent errors.

    Args:
      report: as a task's `report` returns it; optionally with "baselines", a dict of
        such reports by name.
      metrics: as in `TaskKind.metrics`.

    Returns:
      A table for `Display.note`; the best value of each row is bold.
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
            else Text(number(value, keys[-1]), "bold green" if value == best else "")
            for value in values
        ]
        table.add_row(Text(label), *cells)
    return table


def diagnosis_lines(report: dict) -> list[str]:
    """Lines about forgotten test examples, and the diagnosis with its suggestions."""
    return [
        *forgotten_lines(report),
        *(
            f"found: {each['words']}\n  may help: {each['suggestion']}"
            for each in report.get("diagnosis", [])
        ),
    ]


def counted_diagnoses(reports: list[dict], what: str) -> list[str]:
    """A line for each kind of problem: in how many reports, and its words in the first.

    Args:
      reports: of several runs.
      what: they are, such as "seeds".
    """
    found: dict[str, list[dict]] = {}
    for report in reports:
        for each in report["diagnosis"]:
            found.setdefault(each["name"], []).append(each)
    return [
        f"found in {len(some)} of {len(reports)} {what}: {some[0]['words']}\n"
        f"  may help: {some[0]['suggestion']}"
        for some in found.values()
    ]


def forgotten_lines(report: dict) -> list[str]:
    """A line on the test set of the run that this one began with, if any."""
    found = report.get("forgotten")
    if not found:
        return []
    if "skipped" in found:
        return [f"{found['source']}: not tested again, {found['skipped']}"]
    values = [
        percent(found[when]) if found["rate"] else number(found[when])
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


def show_profile(display: Display, directory, state, step, **batches: Any) -> dict:
    """Times steps with `training.profile`, and shows the result; part of the report."""
    profile = training.profile(state, step, trace=str(directory / "profile"), **batches)
    display.note(
        f"profile: {profile['whole_loop_ms']:.2f} ms per step, "
        f"{profile['step_alone_ms']:.2f} ms for the compiled step alone (ratio "
        f"{profile['ratio']:.3f}, {percent(profile['waiting'])} waiting for data or "
        f"dispatch); on the host: reading {profile['reading_ms']:.2f}, transfer "
        f"{profile['moving_ms']:.2f}, dispatch {profile['dispatching_ms']:.2f} ms"
    )
    return {"profile": profile}


def _lookup(report, keys):
    for key in keys:
        report = report.get(key) if isinstance(report, dict) else None
    return report


def _remarks(report):
    """Lines about undefined metrics, the lowest F1, and the most frequent confusion."""
    lines = [undefined_auc(report)] if undefined_auc(report) else []
    classes, matrix = report.get("classes"), report.get("confusion_matrix")
    if not classes or not matrix:
        return lines
    seen = [row for row in report.get("per_class", []) if row["support"]]
    hardest = sorted(seen, key=lambda row: row["f1"])[:3]
    if hardest and hardest[0]["f1"] < 1:
        named = [f"{r['name']} ({r['f1']:.3f})" for r in hardest if r["f1"] < 1]
        lines.append("lowest F1: " + ", ".join(named))
    count, true, chosen = max(
        (matrix[i][j], -i, -j)
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j
    )
    if count:
        times = "once" if count == 1 else f"{count} times"
        lines.append(
            f"most frequent error: {classes[-true]} predicted as {classes[-chosen]}, "
            f"{times}"
        )
    return lines
