"""Answers for pictures: `python -m experiments.predict RUN PATH…`.

Pictures of any size, folders of them, or a CSV with a column `path`. A file that
is no picture gets one line, the others are still answered, and the exit code is 1.
"""

import csv
import dataclasses
import functools
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from experiments.config import UsageError, explain, from_dict, read_run

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Options:
    """Answers for pictures, by a trained run."""

    run: Path
    """Folder of the run, such as runs/digits."""
    paths: tuple[str, ...]
    """Pictures, folders, or a CSV with a column `path`."""
    out: Path | None = None
    """Also write the answers with all probabilities to a .csv or .jsonl file."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"


@functools.lru_cache(maxsize=4)
def _load(run: str, written: float):
    """`(facts, task, answer)` of a run; `written` makes a new run load anew."""
    import jax
    import numpy as np

    from experiments import build
    from lstm_jax import training

    saved = read_run(Path(run))
    config, about = from_dict(saved["config"]), build.Facts(**saved["data"])
    task = build.task(config, about)

    def blank():
        key = jax.random.key(0)
        params = build.init_params(config, about, key)
        tx = build.optimizer(config, build.schedule(config, steps=1))
        return training.TrainState(np.int32(0), params, tx.init(params), key)

    with training.Checkpoints(
        Path(run, "checkpoints"), monitor=task.monitor, mode=task.mode
    ) as checkpoints:
        step = checkpoints.best_step() if config.select == "best" else None
        params = checkpoints.restore(jax.eval_shape(blank), step).params
    apply = build.apply_fn(config, about)
    compiled = jax.jit(lambda images: task.predict(apply(params, images)))

    def answer(images: np.ndarray) -> np.ndarray:
        padded = np.zeros((BATCH, *images.shape[1:]), images.dtype)
        padded[: len(images)] = images
        return np.asarray(compiled(padded))[: len(images)]

    return about, answer


def predict(run: str | Path, *paths: str | Path) -> list[dict[str, Any]]:
    """Answers for pictures.

    Args:
      run: folder of a trained run.
      *paths: picture files of any size, folders, or a CSV with a column `path`.

    Returns:
      A dict for each picture, in order: `path`, and `label`, `confidence` and
      `probabilities` (a dict by class); or `value` for a regression; or `error`, one
      line, for a file that is no picture.

    Raises:
      ValueError: if the run, or a path, does not exist.
    """
    import numpy as np

    from lstm_jax import data

    known = Path(run, "config.json")
    if not known.exists():
        raise UsageError(
            f"{run} holds no run (no config.json); train one first with "
            "`python -m experiments.train`, then give its folder"
        )
    if not paths:
        raise UsageError("no pictures named: give files, folders or a CSV")
    about, answer = _load(str(run), known.stat().st_mtime)
    shape = tuple(about.image_shape)
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
            for row, output in zip(good, answer(np.stack(images)), strict=True):
                row |= _describe(output.tolist(), about.classes)
        answers += rows
    return answers


def _describe(output: list[float], classes: list[str]) -> dict[str, Any]:
    if not classes:
        return {"value": output[0] if len(output) == 1 else output}
    best = max(range(len(output)), key=output.__getitem__)
    return {
        "label": classes[best],
        "confidence": output[best],
        "probabilities": dict(zip(classes, output, strict=True)),
    }


def write(answers: list[dict[str, Any]], out: Path) -> None:
    """Writes answers to `.csv` or `.jsonl`, beside and then renamed."""
    text = io.StringIO()
    if out.suffix == ".jsonl":
        text.writelines(json.dumps(row) + "\n" for row in answers)
    else:
        flat = [
            {k: v for k, v in row.items() if k != "probabilities"}
            | {f"p_{k}": v for k, v in row.get("probabilities", {}).items()}
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


def _show(answers: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    regression = any("value" in row for row in answers)
    for column in ("picture", "value") if regression else ("picture", "label", ""):
        table.add_column(column, overflow="fold")
    for row in answers:
        if "value" in row:
            values = row["value"] if isinstance(row["value"], list) else [row["value"]]
            table.add_row(row["path"], ", ".join(f"{value:.4g}" for value in values))
        elif "label" in row:
            table.add_row(row["path"], row["label"], f"{row['confidence']:.1%}")
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
        if options.out and options.out.suffix not in (".csv", ".jsonl"):
            raise UsageError(
                f"--out={options.out}: the name must end in .csv or .jsonl"
            )
        from lstm_jax import training

        training.select_accelerator(options.accelerator)
        answers = predict(options.run, *options.paths)
        _show(answers)
        if options.out:
            write(answers, options.out)
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2
    return 1 if any("error" in row for row in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
