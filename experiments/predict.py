"""Predictions of a trained run: `python -m experiments.predict RUN PATH…`.

Paths are images of any size, folders, or a CSV with a column `path`; for a run on
clips, clips. Missing and unreadable files are reported, predictions are made for the
rest, and the exit code is 1. `--live` predicts frame by frame from a stream.
"""

import dataclasses
import gc
import sys
from pathlib import Path
from typing import Any, Literal

from experiments import cli
from experiments.errors import UsageError
from experiments.prediction import loading, output


@dataclasses.dataclass(frozen=True)
class Tables:
    """Tables of files, as in training."""

    columns: str | None = None
    """The column of the paths: path:filename; or its number."""
    encoding: str | None = None
    """Encoding, such as cp1251; default UTF-8 or UTF-16."""
    follow_outside: bool = False
    """Read files that a table names outside of its folder."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Make predictions with a trained run for images, clips or lines of text."""

    run: Path
    """Run folder, such as runs/digits, or an exported file."""
    paths: tuple[str, ...]
    """Images, folders, a CSV with a column `path`, clips, or PAGE or ALTO XML."""
    out: Path | None = None
    """Also write a .csv or .jsonl file, of text .txt or .xml; or a folder."""
    live: str | None = None
    """Predict frame by frame: a clip, a camera number, or - for raw frames on stdin."""
    explain: bool = False
    """Also draw the network's steps: RUN/predictions/NAME.png and NAME.gif."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    data: Tables = Tables()


def predict(run: str | Path, *paths: str | Path, **tables: Any) -> list[dict[str, Any]]:
    """Predictions for files.

    Args:
      run: folder of a trained run, or an exported file.
      *paths: image files of any size, folders, or a CSV with a column `path`; for a run
        on clips: clips, folders of frames or of clips; for one on features: .npy files;
        for one on text also PAGE or ALTO XML, whose lines are cut from the page image.
      **tables: `columns`, `encoding` and `follow_outside`, as in `lstm_jax.data.load`.

    Returns:
      A dict for each file, in order, with `path` and, depending on the task:
      classification: `label`, `confidence` and `probabilities` (a dict by class);
      regression: `value`; multilabel: `probabilities` (lists by step if each step has
      labels); forecasting: `frames` `[horizon, H, W, C]` in [0, 1], and `seen`, the
      input frames; segmentation: `mask` and `shares`; detection: `boxes`; text
      recognition: `text`, `confidence` and `characters`. For a missing or unreadable
      file: `error`, one line.

    Raises:
      ValueError: there is no such run.
    """
    if not paths:
        raise UsageError("no files given: name image files, folders or a CSV")
    predictor = loading.load(run, Tables(**tables))
    return list(predictor.kind.predict(predictor, paths))


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 1 after unreadable files; 2 after an error."""
    return cli.run("predict", Options, _run, arguments)


def _run(options: Options) -> int:
    if options.out:
        options = dataclasses.replace(options, out=options.out.expanduser())
    kind = loading.start(options.run, options.accelerator)
    if options.explain and loading.is_exported(options.run):
        raise UsageError(
            f"--explain: {options.run} is an exported function without layers; give "
            "the run folder"
        )
    if options.out:
        output.check(kind, options.out, options.paths)
    if options.live is not None:
        loading.source(options.run).watch(options.run, options.live)
        return 0
    if not options.paths:
        raise UsageError("no files given: name image files, folders or a CSV")
    predictor = loading.load(options.run, options.data)
    kind, found = predictor.kind, []
    for row in kind.predict(predictor, options.paths):
        found.append(row)
        if kind.prints_at_once:
            output.show_line(kind, row)
    folder = output.folder_of(options.run, options.out)
    asked = options.out is not None and output.is_folder(options.out)
    if asked or not kind.saves_when_asked:
        kind.save(predictor.spec, found, folder)
    if not kind.prints_at_once:
        output.show(kind, found)
    if options.explain:
        from experiments.prediction.explain import explain

        explain(predictor, folder, found)
    if options.out and not asked:
        output.write(kind, found, options.out)
    return 1 if any("error" in row for row in found) else 0


if __name__ == "__main__":
    gc.set_threshold(100_000)  # fewer collections during imports save 0.1 s
    sys.exit(main())
