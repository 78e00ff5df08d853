"""Answers for pictures and clips: `python -m experiments.predict RUN PATH…`.

Pictures of any size, folders of them, or a CSV with a column `path`; for a run on
clips, clips. A file that cannot be read gets one line, the others are still answered,
and the exit code is 1. With `--live` frames are answered as they come.
"""

import csv
import dataclasses
import functools
import gc
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from experiments.errors import UsageError, explain
from experiments.run.load_run import load_run, saved_run
from experiments.tasks import TASKS, TaskKind

EXPORTED = ".jaxexport"
_TABLES = ("probabilities", "shares")  # of an answer, a column for each entry
_ARRAYS = ("seen", "frames", "raw", "mask")  # of an answer, which no table holds
_NESTED = (*_TABLES, *_ARRAYS, "characters", "size")


@dataclasses.dataclass(frozen=True)
class Options:
    """Answers for pictures or clips, by a trained run."""

    run: Path
    """Folder of the run, such as runs/digits; or a .safetensors or .jaxexport file that
    export made of one."""
    paths: tuple[str, ...]
    """Pictures, folders, or a CSV with a column `path`; clips for a run on clips."""
    out: Path | None = None
    """Also write the answers with all probabilities to a .csv or .jsonl file; lines of
    text to a .txt, or with the place of each word to an .xml file (ALTO), too."""
    live: str | None = None
    """Answer frame by frame: a clip's file or folder, a camera's number, or - for raw
    frames of uint8 from standard input."""
    look: bool = False
    """Also draw how each one is read, RUN/predictions/NAME.png and, as a film, .gif."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"


def _written(run: str | Path) -> float:
    """When a run was last begun, or a file written."""
    path = Path(run)
    path = path if path.is_file() else path / "config.json"
    return path.stat().st_mtime if path.exists() else 0.0


@functools.lru_cache(maxsize=4)
def _load(run: str, written: float):
    """The `Predictor` of a run or a file; `written` makes a new one load anew."""
    if run.endswith(EXPORTED):
        from experiments.prediction import exported

        return exported.Predictor(run)
    from experiments.prediction.predictor import Predictor

    return Predictor(*load_run(run))


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
    predictor = _load(str(run), _written(run))
    return list(predictor.kind.predict(predictor, paths))


def write(kind: TaskKind, answers: list[dict[str, Any]], out: Path) -> None:
    """Writes answers to .csv or .jsonl, of lines also to .txt or, as ALTO, to .xml."""
    text = io.StringIO()
    if out.suffix in kind.formats:
        text.write(kind.formats[out.suffix](answers))
    elif out.suffix == ".jsonl":
        plain = [{k: v for k, v in a.items() if k not in _ARRAYS} for a in answers]
        dumps = functools.partial(json.dumps, ensure_ascii=False)
        text.writelines(dumps(row) + "\n" for row in plain)
    else:
        flat = [
            {k: v for k, v in row.items() if k not in _NESTED}
            | {f"p_{k}": v for k, v in row.get("probabilities", {}).items()}
            | {f"share_{k}": v for k, v in row.get("shares", {}).items()}
            | ({"boxes": json.dumps(row["boxes"])} if "boxes" in row else {})
            for row in answers
        ]
        columns = list(dict.fromkeys(key for row in flat for key in row))
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(flat)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    beside.write_text(text.getvalue(), encoding="utf-8")
    beside.replace(out)


def look(predictor: Any, folder: Path, answers: list[dict[str, Any]]) -> None:
    """Draws how each picture or clip was read: NAME.png and NAME.gif in a folder.

    Raises:
      UsageError: if the network of the run reads nothing step by step to an answer.
    """
    import numpy as np

    from experiments.run import record
    from lstm_jax import data, inspect

    experiment, spec = predictor.experiment, predictor.spec
    if not experiment.model_kind.explains:
        raise UsageError(
            f"--look: a {experiment.model_kind.name} does not read step by step to one "
            "answer; its answers are drawn without the flag"
        )
    module, params = experiment.network.module, predictor.params
    for row in answers:
        if "error" in row:
            continue
        path, length = Path(row["path"]), None
        if spec.pictures:
            image = data.read_image(path, tuple(spec.image_shape))
        else:
            image, length = predictor.read_clip(path)
        pixels = spec.normalize(image)
        options = dict(
            classes=spec.classes or None,
            shown=image if image.dtype == np.uint8 else None,
        )
        followed = inspect.follow(
            module, params, pixels, length=length, predict=experiment.task.predict
        )
        options |= dict(followed=followed)
        figure = inspect.reading(module, params, pixels, **options)
        record.save_figure(folder / f"{path.stem}.png", figure)
        film = inspect.reading_gif(module, params, pixels, **options)
        record.write_bytes(folder / f"{path.stem}.gif", film)
        place = folder / path.stem
        print(f"how {path.name} is read: {place}.png, {place}.gif", flush=True)


def show(kind: TaskKind, answers: list[dict[str, Any]]) -> None:
    """Prints answers as a table, and what could not be read on standard error."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in kind.columns:
        table.add_column(column, overflow="fold")
    for row in answers:
        if "error" not in row:
            table.add_row(*kind.row(row))
    if table.row_count:
        # Into a file or a pipe, a line stays a line, however long a name is.
        width = None if sys.stdout.isatty() else 1000
        Console(width=width).print(table)
    for row in answers:
        if "error" in row:
            print(row["error"], file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 1 if a file was no picture; 2 for a mistake."""
    import tyro

    options = tyro.cli(
        Options,
        args=arguments,
        prog="python -m experiments.predict",
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    try:
        return _run(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2


def _start(options: Options) -> tuple[tuple[str, ...], Any]:
    """Endings of files for answers, and what watches a stream; devices are chosen.

    Of an exported file by JAX alone.
    """
    if options.run.name.endswith(EXPORTED):
        from experiments.prediction import exported

        exported.start(options.accelerator)
        if options.look:
            raise UsageError(f"--look: {options.run} does not hold what its layers do")
        return (".csv", ".jsonl"), exported.watch
    saved = saved_run(options.run)
    from experiments.prediction.live import watch
    from lstm_jax import data, training

    training.select_accelerator(options.accelerator)
    if saved is None:  # told when it is read
        return (".csv", ".jsonl"), watch
    kind = TASKS[saved["config"]["task"]["name"]]
    if kind.bucketed:  # a program for each width
        training.keep_compiled(data.default_root() / "compiled")
    return kind.endings, watch


def _run(options: Options) -> int:
    endings, watch = _start(options)
    if options.out and options.out.suffix not in endings:
        raise UsageError(
            f"--out={options.out}: the name must end in {' or '.join(endings)}"
        )
    if options.live is not None:
        watch(options.run, options.live)
        return 0
    if not options.paths:
        raise UsageError("no pictures named: give files, folders or a CSV")
    run = options.run.expanduser()
    predictor = _load(str(options.run), _written(options.run))
    kind, answers = predictor.kind, []
    for row in kind.predict(predictor, options.paths):
        answers.append(row)
        if kind.prints_at_once:
            told = row["error"] if "error" in row else "\t".join(kind.row(row))
            place = sys.stderr if "error" in row else sys.stdout
            print(told, file=place, flush=True)
    folder = (run if run.is_dir() else run.parent) / "predictions"
    kind.save(predictor.spec, answers, folder)
    if not kind.prints_at_once:
        show(kind, answers)
    if options.look:
        look(predictor, folder, answers)
    if options.out:
        write(kind, answers, options.out)
    return 1 if any("error" in row for row in answers) else 0


if __name__ == "__main__":
    gc.set_threshold(100_000)  # imports are no garbage: 0.1 s less to the first answer
    sys.exit(main())
