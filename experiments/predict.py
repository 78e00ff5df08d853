"""Answers for pictures and clips: `python -m experiments.predict RUN PATH…`.

Pictures of any size, folders of them, or a CSV with a column `path`; for a run on
clips, clips. A file that cannot be read gets one line, the others are still answered,
and the exit code is 1. With `--live` frames are answered as they come.
"""

import collections
import csv
import dataclasses
import functools
import gc
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from experiments.config import FINDERS, UsageError, explain, from_dict
from experiments.restoring import restored, saved_run

BATCH = 256
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
    """`(config, facts, answer)` of a run; `written` makes a new run load anew."""
    import jax
    import numpy as np

    from experiments import network

    config, about, task, params = restored(run)
    forward = network.forward_fn(config, about)
    compiled = jax.jit(lambda batch: task.predict(forward(params, batch)[0]))

    def answer(**batch: np.ndarray) -> np.ndarray:
        count = len(batch["inputs"])
        whole = len(about.image_shape) != 3 or "lengths" in batch
        size = count if whole else BATCH

        def padded(x):
            return np.concatenate([x, np.zeros((size - count, *x.shape[1:]), x.dtype)])

        batch = {name: padded(x) for name, x in batch.items()}
        return np.asarray(compiled(batch))[:count]

    return config, about, answer


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
      or `mask` or `boxes`, as `locating.describe` has them, where things are found;
      or `text`, as `lines` has it;
      or `error`, one line, for a file that cannot be read.

    Raises:
      ValueError: if the run, or a path, does not exist.
    """
    import numpy as np

    from lstm_jax import data

    if str(run).endswith(EXPORTED):
        from experiments import exported

        return exported.predict(run, *paths)
    if not paths:
        raise UsageError("no pictures named: give files, folders or a CSV")
    config, about, answer = _load(str(run), _written(run))
    shape = tuple(about.image_shape)
    if config.task.name == "recognition":
        return list(lines(run, *paths))
    if len(shape) != 3:
        clips = data.clip_paths(paths)
        return [_answer_clip(config, about, answer, path) for path in clips]
    answers: list[dict[str, Any]] = []
    files = data.image_paths(paths)
    for start in range(0, len(files), BATCH):
        rows, images = [], []
        for path in files[start : start + BATCH]:
            rows.append({"path": str(path)})
            try:
                images.append(data.read_image(path, shape))
            except data.DataError as error:
                rows[-1]["error"] = str(error)
        good = [row for row in rows if "error" not in row]
        if good:
            outputs = answer(inputs=np.stack(images))
            for row, image, output in zip(good, images, outputs, strict=True):
                row |= _describe(config, about, image, output, Path(row["path"]))
        answers += rows
    return answers


def lines(run: str | Path, *paths: str | Path) -> Iterator[dict[str, Any]]:
    """Answers for pictures of lines of text, of a run that reads them, as they come.

    Yields:
      A dict for each, in order: `path`, and `text`, `confidence` and `characters`, as
      `reading.answer` has them; or `error`, one line.
    """
    from experiments import reading
    from lstm_jax import data

    config, about, answer = _load(str(run), _written(run))

    def read(inputs, lengths):
        return answer(inputs=inputs, lengths=lengths)

    return reading.predict(config, about, read, data.image_paths(paths))


def _answer_clip(config, about, answer, path: Path) -> dict[str, Any]:
    import numpy as np

    from lstm_jax import data

    frames, *shape = about.image_shape
    row: dict[str, Any] = {"path": str(path)}
    try:
        if config.task.name == "forecasting":
            seen = _last_frames(path, frames - config.task.horizon, tuple(shape))
            clip = np.zeros((1, *about.image_shape), np.uint8)
            clip[0, : len(seen)] = seen
            return row | {"seen": seen, "frames": answer(inputs=clip)[0]}
        clip, length = _read_clip(config, about, path)
    except data.DataError as error:
        return row | {"error": str(error)}
    lengths = np.asarray([length], np.int32)
    output = answer(inputs=clip[None], lengths=lengths)[0]
    if config.task.name in FINDERS:
        output = output[:length]
    if config.task.name == "multilabel":
        columns = output[:length] if output.ndim == 2 else output
        values = dict(zip(about.classes, columns.T.tolist(), strict=True))
        return row | {"probabilities": values}
    return row | _describe(config, about, clip[:length], output, path)


def _read_clip(config, about, path: Path):
    from lstm_jax import data

    frames, *shape = about.image_shape
    windows = config.data.sampling == "windows"
    sampling = "spread" if windows else config.data.sampling
    if len(shape) == 1:
        return data.read_features(path, frames, sampling)
    return data.read_clip(path, frames, tuple(shape), sampling)


def _last_frames(path: Path, count: int, shape: tuple[int, int, int]):
    import numpy as np

    from lstm_jax import data

    last = collections.deque(data.stream_frames(path, shape), maxlen=count)
    if len(last) < count:
        raise data.DataError(
            f"{path}: {len(last)} frames, but the run reads {count} to predict the next"
        )
    return np.stack(last)


def _describe(config, about, seen, output, path: Path) -> dict[str, Any]:
    classes = about.classes
    if config.task.name in FINDERS:
        from experiments import locating

        return locating.describe(config.task.name, output, classes, seen, path)
    output = output.tolist()
    if not classes:
        return {"value": output[0] if len(output) == 1 else output}
    best = max(range(len(output)), key=output.__getitem__)
    return {
        "label": classes[best],
        "confidence": output[best],
        "probabilities": dict(zip(classes, output, strict=True)),
    }


def write(answers: list[dict[str, Any]], out: Path) -> None:
    """Writes answers to .csv or .jsonl, of lines also to .txt or, as ALTO, to .xml."""
    text = io.StringIO()
    if out.suffix in (".txt", ".xml"):
        from experiments import reading

        as_file = reading.as_text if out.suffix == ".txt" else reading.as_alto
        text.write(as_file(answers))
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


def _write_pictures(run: Path, answers: list[dict[str, Any]]) -> None:
    """What is no word: films of forecasts, masks and boxes, in RUN/predictions/."""
    from experiments import locating, record
    from lstm_jax import figures

    folder = run if run.is_dir() else run.parent
    if any("raw" in row for row in answers):
        saved = saved_run(run)
        task = from_dict(saved["config"]).task.name
        locating.write(folder, task, saved["data"]["classes"], answers)
    for row in answers:
        if "frames" in row:
            path = folder / "predictions" / f"{Path(row['path']).stem}.gif"
            film = figures.forecast_gif(row["seen"], None, row["frames"])
            record.write_bytes(path, film)
            row["film"] = str(path)


def look(run: Path, answers: list[dict[str, Any]]) -> None:
    """Draws how each picture or clip was read: RUN/predictions/NAME.png and .gif.

    Raises:
      UsageError: if the network of the run reads nothing step by step to an answer.
    """
    import numpy as np

    from experiments import network, record
    from experiments.reporting.diagnosis import normalized
    from lstm_jax import data, inspect

    config, about, task, params = restored(run)
    if config.model.kind != "reader":
        raise UsageError(f"--look: {run} predicts frames, which predict shows as films")
    model = network.model(config, about)
    for row in answers:
        if "error" in row:
            continue
        path, length = Path(row["path"]), None
        if len(about.image_shape) == 3:
            image = data.read_image(path, tuple(about.image_shape))
        else:
            image, length = _read_clip(config, about, path)
        pixels = normalized(about, image)
        options = dict(
            classes=about.classes or None,
            shown=image if image.dtype == np.uint8 else None,
        )
        followed = inspect.follow(
            model, params, pixels, length=length, predict=task.predict
        )
        options |= dict(followed=followed)
        folder = run if run.is_dir() else run.parent
        place = folder / "predictions" / path.stem
        figure = inspect.reading(model, params, pixels, **options)
        record.save_figure(place.with_name(f"{path.stem}.png"), figure)
        film = inspect.reading_gif(model, params, pixels, **options)
        record.write_bytes(place.with_name(f"{path.stem}.gif"), film)
        print(f"how {path.name} is read: {place}.png, {place}.gif", flush=True)


def _show(answers: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    regression = any("value" in row for row in answers)
    found = any("drawn" in row for row in answers)
    columns = ("picture", "found" if found else "label", "")
    for column in ("picture", "value") if regression else columns:
        table.add_column(column, overflow="fold")
    for row in answers:
        if "value" in row:
            values = row["value"] if isinstance(row["value"], list) else [row["value"]]
            table.add_row(row["path"], ", ".join(f"{value:.4g}" for value in values))
        elif "film" in row:
            table.add_row(row["path"], row["film"])
        elif "drawn" in row:
            from experiments import locating

            table.add_row(row["path"], locating.words(row), row["drawn"])
        elif "label" not in row and "probabilities" in row:
            likely = {
                k: max(v) if isinstance(v, list) else v
                for k, v in row["probabilities"].items()
            }
            words = ", ".join(f"{k} {v:.1%}" for k, v in likely.items())
            table.add_row(row["path"], words)
        elif "label" in row:
            table.add_row(row["path"], row["label"], f"{row['confidence']:.1%}")
    if table.row_count:
        # Into a file or a pipe, a line stays a line, however long a name is.
        width = None if sys.stdout.isatty() else 1000
        Console(width=width).print(table)
    for row in answers:
        if "error" in row:
            print(row["error"], file=sys.stderr)


def _reads(run: Path) -> bool:
    """Whether a run reads lines of text."""
    saved = saved_run(run)
    return saved is not None and saved["config"]["task"]["name"] == "recognition"


def _read_lines(options: Options) -> int:
    """Prints the text of each line as it is read."""
    from lstm_jax import data, training

    training.keep_compiled(data.default_root() / "compiled")
    answers = []
    for row in lines(options.run, *options.paths):
        answers.append(row)
        if "error" in row:
            print(row["error"], file=sys.stderr, flush=True)
        else:
            print(f"{row['path']}\t{row['text']}", flush=True)
    if options.out:
        write(answers, options.out)
    return 1 if any("error" in row for row in answers) else 0


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 1 if a file was no picture; 2 for a mistake."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if any(argument.endswith(EXPORTED) for argument in arguments):
        from experiments import exported

        return exported.main(arguments)  # where neither tyro nor Flax has to be there

    import tyro

    options = tyro.cli(
        Options,
        args=arguments,
        prog="python -m experiments.predict",
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    try:
        reads = _reads(options.run)
        kinds = (".csv", ".jsonl", *(".txt", ".xml") * reads)
        if options.out and options.out.suffix not in kinds:
            raise UsageError(
                f"--out={options.out}: the name must end in {' or '.join(kinds)}"
            )
        from lstm_jax import training

        training.select_accelerator(options.accelerator)
        if options.live is not None:
            from experiments.live import watch

            watch(options.run, options.live)
            return 0
        if reads and options.look:
            raise UsageError("--look: a run that reads lines draws them by report")
        if reads:
            return _read_lines(options)
        answers = predict(options.run, *options.paths)
        _write_pictures(options.run, answers)
        _show(answers)
        if options.look:
            look(options.run, answers)
        if options.out:
            write(answers, options.out)
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2
    return 1 if any("error" in row for row in answers) else 0


if __name__ == "__main__":
    gc.set_threshold(100_000)  # imports are no garbage: 0.1 s less to the first answer
    sys.exit(main())
