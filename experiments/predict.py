"""Predictions of a trained run: `python -m experiments.predict RUN PATH…`.

Paths are images of any size, folders, or a CSV with a column `path`; for a run on
clips, clips. Unreadable files are reported, predictions are made for the rest, and the
exit code is 1. `--live` predicts frame by frame from a stream.
"""

import dataclasses
import functools
import gc
import sys
from pathlib import Path
from typing import Any, Literal

from experiments import cli
from experiments.errors import UsageError
from experiments.prediction import output
from experiments.run.load_run import saved_run
from experiments.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class Options:
    """Make predictions with a trained run for images, clips or lines of text."""

    run: Path
    """Run folder, such as runs/digits, or an exported file."""
    paths: tuple[str, ...]
    """Images, folders, or a CSV with a column `path`; clips for a run on clips."""
    out: Path | None = None
    """Also write predictions to a .csv or .jsonl file, text also to .txt or .xml."""
    live: str | None = None
    """Predict frame by frame: a clip, a camera number, or - for raw frames on stdin."""
    explain: bool = False
    """Also draw the network's steps: RUN/predictions/NAME.png and NAME.gif."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"


@functools.lru_cache(maxsize=4)
def _load(run: str, written: float):
    """The `Predictor` of a run or file; `written` reloads it when the file changes."""
    return _source(run).predictor(run)


def _loaded(run: str | Path):
    """`_load`, reloaded if the run or the file has been written again."""
    path = Path(run) if Path(run).is_file() else Path(run, "config.json")
    return _load(str(run), path.stat().st_mtime if path.exists() else 0.0)


def _exported(run: str | Path) -> bool:
    return str(run).endswith(".jaxexport")


def _source(run: str | Path):
    """The module that loads predictors: for exported files without Flax."""
    if _exported(run):
        from experiments.prediction import exported as source
    else:
        from experiments.prediction import trained as source
    return source


def predict(run: str | Path, *paths: str | Path) -> list[dict[str, Any]]:
    """Predictions for files.

    Args:
      run: folder of a trained run, or an exported file.
      *paths: image files of any size, folders, or a CSV with a column `path`; for a run
        on clips: clips, folders of frames or of clips; for one on features: .npy files.

    Returns:
      A dict for each file, in order, with `path` and, depending on the task:
      classification: `label`, `confidence` and `probabilities` (a dict by class);
      regression: `value`; multilabel: `probabilities` (lists by step if each step has
      labels); forecasting: `frames` `[horizon, H, W, C]` in [0, 1], and `seen`, the
      input frames; segmentation: `mask` and `shares`; detection: `boxes`; text
      recognition: `text`, `confidence` and `characters`. For an unreadable file:
      `error`, one line.

    Raises:
      ValueError: the run or a path does not exist.
    """
    if not paths:
        raise UsageError("no files given: name image files, folders or a CSV")
    predictor = _loaded(run)
    return list(predictor.kind.predict(predictor, paths))


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 1 after unreadable files; 2 after an error."""
    return cli.run("predict", Options, _run, arguments)


def _start(options: Options) -> tuple[str, ...]:
    """Selects the device; returns the file suffixes that `--out` may have."""
    if _exported(options.run):
        _source(options.run).start(options.accelerator)
        if options.explain:
            raise UsageError(
                f"--explain: {options.run} is an exported function without layers; "
                "give the run folder"
            )
        return output.ENDINGS
    saved = saved_run(options.run)
    from lstm_jax import data, training

    training.select_accelerator(options.accelerator)
    if saved is None:  # loading it raises the error
        return output.ENDINGS
    kind = TASKS[saved["config"]["task"]["name"]]
    if kind.bucketed:  # compiles a program for each width
        training.enable_compilation_cache(data.default_root() / "compiled")
    return kind.endings


def _run(options: Options) -> int:
    endings = _start(options)
    if options.out and options.out.suffix not in endings:
        raise UsageError(
            f"--out={options.out}: the name must end in {' or '.join(endings)}"
        )
    if options.live is not None:
        _source(options.run).watch(options.run, options.live)
        return 0
    if not options.paths:
        raise UsageError("no files given: name image files, folders or a CSV")
    predictor = _loaded(options.run)
    kind, found = predictor.kind, []
    for row in kind.predict(predictor, options.paths):
        found.append(row)
        if kind.prints_at_once:
            output.show_line(kind, row)
    run = options.run.expanduser()
    folder = Path(run if run.is_dir() else run.parent, "predictions")
    kind.save(predictor.spec, found, folder)
    if not kind.prints_at_once:
        output.show(kind, found)
    if options.explain:
        from experiments.prediction.explain import explain

        explain(predictor, folder, found)
    if options.out:
        output.write(kind, found, options.out)
    return 1 if any("error" in row for row in found) else 0


if __name__ == "__main__":
    gc.set_threshold(100_000)  # fewer collections during imports save 0.1 s
    sys.exit(main())
