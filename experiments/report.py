"""What runs are worth: `python -m experiments.report RUN [RUN…]`.

Evaluates a run's chosen checkpoint on the test examples, diagnoses it, and
writes one page that needs nothing else, RUN/report.html; several runs are compared.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from experiments import cli
from experiments.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Options:
    """A report of a trained run, or a comparison of several."""

    runs: tuple[Path, ...]
    """Folders of runs, such as runs/digits."""
    out: Path | None = None
    """The page; default RUN/report.html, of several runs runs/comparison.html."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"


@dataclasses.dataclass(frozen=True)
class Report:
    """Where the page is, what is on it, its numbers as plain values, and the runs."""

    path: Path
    sections: list[Any]
    numbers: dict[str, Any]
    runs: list[Any]

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"


def report(*runs: str | Path, out: str | Path | None = None) -> Report:
    """Evaluates runs, writes the page and prints the same.

    Args:
      *runs: folders of trained runs; one that was stopped half-way will do.
      out: the page; default RUN/report.html, of several runs runs/comparison.html.

    Returns:
      A `Report`.

    Raises:
      ValueError: if a folder holds no run, or no checkpoint yet.
    """
    from experiments.reporting import compare, page, sections
    from experiments.reporting.evaluation import evaluate
    from experiments.run import record

    if not runs:
        raise UsageError("no run named: give the folder of one, such as runs/digits")
    folders = [Path(run).expanduser() for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice: give each once")
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
    """The command line. Exit code 0; 2 for a mistake, with one clear message."""
    return cli.run("report", Options, _run, arguments)


def _run(options: Options) -> None:
    from lstm_jax import training

    training.select_accelerator(options.accelerator)
    report(*options.runs, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
