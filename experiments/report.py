"""Reports of trained runs: `python -m experiments.report RUN [RUN…]`.

Evaluates the selected checkpoint on the test split, diagnoses the network, and writes a
self-contained page, RUN/report.html; several runs are compared.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from experiments import cli
from experiments.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Options:
    """Write a report of a trained run, or compare several runs."""

    runs: tuple[Path, ...]
    """Folders of runs, such as runs/digits."""
    out: Path | None = None
    """The HTML file; default RUN/report.html, or runs/comparison.html for several."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"


@dataclasses.dataclass(frozen=True)
class Report:
    """A written report: its path, its sections, its numbers, the evaluated runs."""

    path: Path
    sections: list[Any]
    numbers: dict[str, Any]
    runs: list[Any]

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"


def report(*runs: str | Path, out: str | Path | None = None) -> Report:
    """Evaluates runs, writes the report and prints it.

    Args:
      *runs: folders of runs, which may be unfinished.
      out: the HTML file; default RUN/report.html, or runs/comparison.html for several
        runs.

    Returns:
      A `Report`.

    Raises:
      ValueError: a folder without a run, or without a checkpoint.
    """
    from experiments.reporting import compare, page, sections
    from experiments.reporting.evaluation import evaluate
    from experiments.run import record

    if not runs:
        raise UsageError("no run given: name a run folder, such as runs/digits")
    folders = [Path(run).expanduser() for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is given twice: name each run once")
    found = [evaluate(folder) for folder in folders]
    if len(found) == 1:
        title, lead, parts, numbers = sections.single(*found)
        path = Path(out) if out else folders[0] / "report.html"
    else:
        title, lead, parts, numbers = compare.comparison(found)
        path = Path(out) if out else Path("runs", "comparison.html")
    path = path.expanduser()
    record.write_bytes(path, page.html(title, lead, parts).encode())
    page.show(title, lead, parts)
    print(f"\nwritten to {path}")
    return Report(path, parts, numbers, found)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 2 after an error message."""
    return cli.run("report", Options, _run, arguments)


def _run(options: Options) -> None:
    from lstm_jax import training

    training.select_accelerator(options.accelerator)
    report(*options.runs, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
