"""k-fold cross-validation: every fold a run of its own, their answers put together."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.choices import flat
from experiments.config import Config, read_run
from experiments.run.folder import Run, begin, directory_of, spread
from experiments.run.lock import locked
from experiments.run.sealed import read_sealed

_COLUMNS = {  # of the table the first four that there are, as `flat` names them
    "accuracy": "accuracy",
    "macro.roc_auc": "ROC AUC",
    "macro.average_precision": "AP",
    "macro.f1": "macro F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
    "loss": "loss",
}


@dataclasses.dataclass(frozen=True)
class Folds:
    """A finished cross-validation: its folder, folds.json and the run of each fold."""

    directory: Path
    config: Config
    report: dict[str, Any]
    runs: list[Run]
    figures: dict[str, Any]

    def __repr__(self) -> str:
        scores = {
            name: f"{score['mean']:.4g} ± {score['sd']:.2g}"
            for name, score in self.report["metrics"].items()
            if name in _COLUMNS and score["sd"] is not None
        }
        return f"Folds({str(self.directory)!r}, {scores})"


def train_folds(
    name: str, config: Config, train_one: Callable[[str, Config], Run]
) -> Folds:
    """Trains every fold that is not finished, and judges all of them together.

    Args:
      name: of the preset.
      config: with `folds`, without `fold`.
      train_one: trains or resumes the run of one fold.

    Returns:
      The `Folds`; its folder holds fold-0, fold-1, … and of all together folds.json,
      out_of_fold.csv and the pictures.
    """
    from experiments.experiment import Experiment
    from lstm_jax import data, training

    directory = directory_of(name, config)
    mesh = training.data_mesh(training.select_accelerator(config.accelerator))
    whole = Experiment(config)
    dataset = whole.dataset
    share = dict(validation=config.data.validation, seed=config.data.split_seed)
    dealt = data.split_folds(dataset, config.folds, **share)
    each = [
        dataclasses.replace(
            config, fold=k, run_dir=str(directory / f"fold-{k}"), overwrite=False
        )
        for k in range(config.folds)
    ]
    for own in () if config.overwrite else each:
        directory_of(name, own)  # another run in the way is told before hours of work
    with locked(directory):
        begin(directory, name, config, whole.spec)
        return _train_each(name, each, train_one, whole, mesh, dealt)


def _train_each(name, each, train_one, whole, mesh, dealt) -> Folds:
    """Trains the runs of `each` that are not finished, and judges all together."""
    from experiments.run import record
    from experiments.run.display import Display

    config, directory = whole.config, Path(each[0].run_dir).parent
    display, runs, known = Display(), [], []
    for own in each:
        if _finished(own):
            display.note(f"{own.run_dir}: is finished")
            run = _read(own)
        else:
            display.note(f"{own.run_dir}: fold {own.fold} of 0 to {config.folds - 1}")
            run = train_one(name, own)
        run, *judged = _judge(run, mesh)
        runs.append(run)
        known.append(judged)
    report, figures = _put_together(whole, dealt, runs, known)
    for title, figure in figures.items():
        record.save_figure(directory / f"{title}.png", figure)
    record.write_json(directory / "folds.json", report)
    display.note(_table(report))
    display.note(
        f"written to {directory}/: folds.json, out_of_fold.csv and "
        f"{', '.join(figures)} (.png)"
    )
    return Folds(directory, config, report, runs, figures)


def _finished(config: Config) -> bool:
    """Whether the run of a fold has left its last file, and nothing is to be redone."""
    directory = Path(config.run_dir)
    # In this order a run writes them.
    if not all((directory / f).exists() for f in ("report.json", "metrics.csv")):
        return False
    was = read_run(directory)
    return was is not None and all(
        was["config"][k] == getattr(config, k) for k in ("test_checkpoint", "baselines")
    )


def _read(config: Config) -> Run:
    """The finished run of a fold, its pictures still to be drawn."""
    from experiments.run.load_run import checkpoints_of, load_run, rows_of

    directory = Path(config.run_dir)
    report = read_sealed(directory / "report.json")
    experiment, params = load_run(directory)
    with checkpoints_of(directory, experiment.task) as checkpoints:
        rows = rows_of(directory, checkpoints)
    return Run(directory, config, report, rows, {}, params)


def _judge(run: Run, mesh):
    """The run of a fold, its predictions [N, ...] and what they are judged by."""

    from experiments.experiment import Experiment
    from lstm_jax.figures import curves

    experiment = Experiment(run.config)
    split = experiment.dataset.splits["test"]
    _, answers = experiment.evaluator(mesh)(run.params, split)
    known = experiment.aligned(split, answers)
    if not run.figures:
        figures = experiment.task.figures(*known)
        figures |= {"curves": curves(run.history)}
        run = dataclasses.replace(run, figures=figures)
    return run, *known


def _put_together(whole, dealt, runs, known):
    """What folds.json holds, and the pictures; writes out_of_fold.csv."""
    import numpy as np

    from experiments.run import record

    config, dataset, task = whole.config, whole.dataset, whole.task
    order = np.argsort(np.concatenate([rows["test"] for rows in dealt]))
    fold = np.repeat(np.arange(len(dealt)), [len(rows["test"]) for rows in dealt])
    answers, targets = (
        np.concatenate(parts)[order] for parts in zip(*known, strict=True)
    )
    directory = Path(runs[0].directory).parent
    rows = _rows(dataset, whole.spec.classes, fold[order], answers, targets)
    record.write_table(directory / "out_of_fold.csv", rows)
    scores = [flat(run.report["test"]) for run in runs]
    theirs = [flat(run.report["baselines"]) for run in runs]
    report = {
        "folds": config.folds,
        "metrics": spread(scores),
        "baselines": spread(theirs),
        "pooled": task.report(answers, targets),
        "per_fold": [
            {
                "fold": k,
                "directory": run.directory.name,
                "examples": {name: len(rows) for name, rows in dealt[k].items()},
                "checkpoint": run.report["train"]["checkpoint"],
                "test": scores[k],
            }
            for k, run in enumerate(runs)
        ],
        "data": {
            "pool": len(order),
            "test_untouched": len(dataset.splits["test"].inputs),
            "notes": list(dataset.notes),
        },
        "environment": record.environment(),
    }
    return report, task.figures(answers, targets)


def _rows(dataset, classes, folds, answers, targets) -> list[dict[str, Any]]:
    """Lines of out_of_fold.csv: one an example, or one a step where each is judged."""
    import numpy as np

    pool = [dataset.splits[name] for name in ("train", "validation")]
    about = {
        column: (*values["train"], *values["validation"])
        for column, values in (("path", dataset.names), ("group", dataset.groups))
        if values
    }
    lengths = None
    if answers.ndim == 3 and pool[0].lengths is not None:
        lengths = np.concatenate([split.lengths for split in pool])
    lines = []
    for index, (fold, answer, target) in enumerate(
        zip(folds.tolist(), answers, targets, strict=True)
    ):
        where = {"index": index} | {name: about[name][index] for name in about}
        where["fold"] = fold
        if targets.ndim == 1:
            own = {
                "target": classes[target],
                "prediction": classes[int(answer.argmax())],
            }
            own |= {f"p_{c}": p for c, p in zip(classes, answer.tolist(), strict=True)}
            lines.append(where | own)
            continue
        names = [f"_{c}" for c in classes] or [f"_{k}" for k in range(len(target))]
        names = names if len(names) > 1 or classes else [""]
        said = "p" if classes else "prediction"
        steps = slice(None if lengths is None else lengths[index])
        pairs = zip(np.atleast_2d(answer), np.atleast_2d(target), strict=True)
        for step, (a, t) in enumerate([*pairs][steps]):
            at = {"step": step} if answer.ndim == 2 else {}
            values = {
                f"target{n}": "" if np.isnan(v) else v
                for n, v in zip(names, t.tolist(), strict=True)
            }
            values |= {f"{said}{n}": v for n, v in zip(names, a.tolist(), strict=True)}
            lines.append(where | at | values)
    return lines


def _digits(value: float) -> str:
    large = abs(value) >= 10**4
    return f"{value:,.0f}" if large else f"{value:#.4g}".rstrip(".")


def _table(report: dict[str, Any]):
    """A line for each fold, their mean and standard deviation, and all together."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    metrics, pooled = report["metrics"], flat(report["pooled"])
    columns = [(key, label) for key, label in _COLUMNS.items() if key in metrics]
    columns = dict(columns[:4])
    unit = report["pooled"].get("unit")
    table = Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=Text(
            f"\n{report['folds']} folds of {report['data']['pool']:,} examples"
            + (f", in {unit}" if unit else ""),
            style="bold",
        ),
        title_justify="left",
        caption=Text(
            "± is the standard deviation over the folds, whose training examples "
            "overlap; pooled: all out-of-fold answers judged at once",
            style="dim",
        ),
        caption_justify="left",
    )
    for name in ("", "examples", *columns.values()):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)

    def cell(value, spread=None):
        if value is None:
            return "-"
        number = _digits(value)
        if spread is None:
            return number
        return f"{number} ± {spread:,.{len(number.partition('.')[2])}f}"

    for k, each in enumerate(report["per_fold"]):
        values = [cell(each["test"].get(key)) for key in columns]
        table.add_row(
            f"fold {k}",
            f"{each['examples']['test']:,}",
            *values,
            end_section=k == report["folds"] - 1,
        )
    means = [cell(metrics[key]["mean"], metrics[key]["sd"]) for key in columns]
    table.add_row("mean ± sd", "", *means, style="bold")
    for name in dict.fromkeys(key.partition(".")[0] for key in report["baselines"]):
        values = [report["baselines"].get(f"{name}.{key}") for key in columns]
        cells = [cell(v["mean"], v["sd"]) if v else "-" for v in values]
        table.add_row(name.replace("_", " "), "", *cells, style="dim")
    total = f"{report['data']['pool']:,}"
    table.add_row("pooled", total, *(cell(pooled.get(key)) for key in columns))
    return table
