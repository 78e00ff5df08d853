"""Answers for pictures and clips: `python -m experiments.predict RUN PATH…`.

Pictures of any size, folders of them, or a CSV with a column `path`; for a run on
clips, clips. A file that cannot be read gets one line, the others are still answered,
and the exit code is 1. With `--live` frames are answered as they come.
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
    """Predictions of a trained run for images or clips."""

    run: Path
    """Folder of the run, such as runs/digits; or a .safetensors or .jaxexport file that
    export made of one."""
    paths: tuple[str, ...]
    """Images, folders, or a CSV with a column `path`; clips for a run on clips."""
    out: Path | None = None
    """Also write the predictions with all probabilities to a .csv or .jsonl file; text
    also to a .txt or, with the position of each word, an .xml file (ALTO)."""
    live: str | None = None
    """Predict frame by frame: from the file or folder of a clip, a camera number, or -
    for raw uint8 frames on standard input."""
    explain: bool = False
    """Also draw how each is read: RUN/predictions/NAME.png and an animation, .gif."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"


@functools.lru_cache(maxsize=4)
def _load(run: str, written: float):
    """The `Predictor` of a run or a file; `written` makes a new one load anew."""
    return _source(run).predictor(run)


def _loaded(run: str | Path):
    """As `_load`, anew where the run was begun again or the file written again."""
    path = Path(run) if Path(run).is_file() else Path(run, "config.json")
    return _load(str(run), path.stat().st_mtime if path.exists() else 0.0)


def _exported(run: str | Path) -> bool:
    return str(run).endswith(".jaxexport")


def _source(run: str | Path):
    """Makes predictors and watches streams; of an exported file by JAX alone."""
    if _exported(run):
        from experiments.prediction import exported as source
    else:
        from experiments.prediction import trained as source
    return source


def predict(run: str | Path, *paths: str | Path) -> list[dict[str, Any]]:
    """Answers for pictures.

    Args:
      run: folder of a trained run, or a file that export made of one.
      *paths: picture files of any size, folders, or a CSV with a column `path`; clips,
        folders of frames or of clips for a run on clips, .npy for one on features.

    Returns:
      A dict for each picture or clip, in order: `path`, and `label`, `confidence` and
      `probabilities` (a dict by class); or `value` for a regression, `probabilities`
      for labels of yes and no (lists by step where each has its own); or `frames`,
      `[horizon, H, W, C]` in [0, 1], that follow the clip, and `seen`, the ones before;
      or `mask` and `shares`, or `boxes`, as the task's `describe` has them;
      or `text`, `confidence` and `characters` of a line of text;
      or `error`, one line, for a file that cannot be read.

    Raises:
      ValueError: if the run, or a path, does not exist.
    """
    if not paths:
        raise UsageError("no pictures named: give files, folders or a CSV")
    predictor = _loaded(run)
    return list(predictor.kind.predict(predictor, paths))


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 1 if a file was no picture; 2 for a mistake."""
    return cli.run("predict", Options, _run, arguments)


def _start(options: Options) -> tuple[str, ...]:
    """Chooses devices; the endings of files for answers."""
    if _exported(options.run):
        _source(options.run).start(options.accelerator)
        if options.explain:
            raise UsageError(
                f"--explain: {options.run} does not hold what its layers do"
            )
        return output.ENDINGS
    saved = saved_run(options.run)
    from lstm_jax import data, training

    training.select_accelerator(options.accelerator)
    if saved is None:  # told when it is read
        return output.ENDINGS
    kind = TASKS[saved["config"]["task"]["name"]]
    if kind.bucketed:  # a program for each width
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
        raise UsageError("no pictures named: give files, folders or a CSV")
    predictor = _loaded(options.run)
    kind, answers = predictor.kind, []
    for row in kind.predict(predictor, options.paths):
        answers.append(row)
        if kind.prints_at_once:
            output.show_line(kind, row)
    run = options.run.expanduser()
    folder = Path(run if run.is_dir() else run.parent, "predictions")
    kind.save(predictor.spec, answers, folder)
    if not kind.prints_at_once:
        output.show(kind, answers)
    if options.explain:
        from experiments.prediction.explain import explain

        explain(predictor, folder, answers)
    if options.out:
        output.write(kind, answers, options.out)
    return 1 if any("error" in row for row in answers) else 0


if __name__ == "__main__":
    gc.set_threshold(100_000)  # imports are no garbage: 0.1 s less to the first answer
    sys.exit(main())
