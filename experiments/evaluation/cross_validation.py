"""k-fold cross-validation: a run for each fold, and pooled out-of-fold predictions."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.choices import flat
from experiments.config import Config, read_run
from experiments.numbers import mean_and_sd
from experiments.run.folder import Run, begin, directory_of, spread
from experiments.run.lock import locked
from experiments.run.sealed import read_sealed, write_sealed

_COLUMNS = {  # the table shows the first four that exist; keys as in `flat`
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
    """A finished cross-validation: its folder, folds.json, and the run of each fold."""

    directory: Path
    config: Config
    report: dict[str, Any]
    runs: list[Run]
    figures: dict[str, Any]

    def __repr__(self) -> str:
        scores = {
            name: mean_and_sd(score["mean"], score["sd"], name)
            for name, score in self.report["metrics"].items()
            if name in _COLUMNS and score["sd"] is not None
        }
        return f"Folds({str(self.directory)!r}, {scores})"


def train_folds(
    name: str, config: Config, train_one: Callable[[str, Config], Run]
) -> Folds:
    """Trains all folds that are not finished, and evaluates them together.

    Args:
      name: of the preset.
      config: with `folds`, without `fold`.
      train_one: trains or resumes the run of one fold.

    Returns:
      The `Folds`; its folder contains fold-0, fold-1, …, and folds.json,
      out_of_fold.csv and figures of all folds.
    """
    from experiments.experiment import Experiment
    from lstm_jax import data, training

    directory = directory_of(name, config)
    mesh = training.data_mesh(training.select_accelerator(config.accelerator))
    whole = Experiment(config)
    dataset = whole.dataset
    share = dict(validation=config.data.validation, seed=config.data.split_seed)
    folds = data.split_folds(dataset, config.folds, **share)
    each = [
        dataclasses.replace(
            config, fold=k, run_dir=str(directory / f"fold-{k}"), overwrite=False
        )
        for k in range(config.folds)
    ]
    for own in () if config.overwrite else each:
        directory_of(name, own)  # raises now if a fold's folder has another run
    with locked(directory):
        begin(directory, name, config, whole.spec)
        return _train_each(name, each, train_one, whole, mesh, folds)


def _train_each(name, each, train_one, whole, mesh, folds) -> Folds:
    """Trains the runs of `each` that are not finished, and evaluates all of them."""
    from experiments.run import record
    from experiments.run.display import Display, counted_diagnoses

    config, directory = whole.config, Path(each[0].run_dir).parent
    display, runs, known = Display(), [], []
    for own in each:
        if _finished(own):
            display.note(f"{own.run_dir}: already finished")
            run = _read(own)
        else:
            display.note(f"{own.run_dir}: fold {own.fold} of 0 to {config.folds - 1}")
            run = train_one(name, own)
        run, *pair = _evaluate(run, mesh)
        runs.append(run)
        known.append(pair)
    report, figures = _pool(whole, folds, runs, known)
    for title, figure in figures.items():
        record.save_figure(directory / f"{title}.png", figure)
    write_sealed(directory / "folds.json", report)
    display.note(_table(report))
    display.notes(counted_diagnoses([run.report for run in runs], "folds"))
    display.note(
        f"written to {directory}/: folds.json, out_of_fold.csv and "
        f"{', '.join(figures)} (.png)"
    )
    return Folds(directory, config, report, runs, figures)


def _finished(config: Config) -> bool:
    """Whether the run of a fold is complete, with the same final test."""
    directory = Path(config.run_dir)
    # A run writes these two files last.
    if not all((directory / f).exists() for f in ("report.json", "metrics.csv")):
        return False
    was = read_run(directory)
    return was is not None and all(
        was["config"][k] == getattr(config, k) for k in ("test_checkpoint", "baselines")
    )


def _read(config: Config) -> Run:
    """The finished run of a fold, without figures."""
    from experiments.run.load_run import checkpoints_of, load_run, rows_of

    directory = Path(config.run_dir)
    report = read_sealed(directory / "report.json")
    experiment, params = load_run(directory)
    with checkpoints_of(directory, experiment.task) as checkpoints:
        rows = rows_of(directory, checkpoints)
    return Run(directory, config, report, rows, {}, params)


def _evaluate(run: Run, mesh):
    """`(run with figures, predictions [N, ...], targets)` of a fold's test split."""
    from experiments.experiment import Experiment
    from lstm_jax.figures import curves

    experiment = Experiment(run.config)
    split = experiment.dataset.splits["test"]
    _, predictions = experiment.evaluator(mesh)(run.params, split)
    known = experiment.aligned(split, predictions)
    if not run.figures:
        figures = experiment.task.figures(*known)
        figures |= {"curves": curves(run.history)}
        run = dataclasses.replace(run, figures=figures)
    return run, *known


def _pool(whole, folds, runs, known):
    """`(contents of folds.json, figures)` of all folds; writes out_of_fold.csv."""
    import numpy as np

    from experiments.run import record

    config, dataset, task = whole.config, whole.dataset, whole.task
    order = np.argsort(np.concatenate([rows["test"] for rows in folds]))
    fold = np.repeat(np.arange(len(folds)), [len(rows["test"]) for rows in folds])
    predictions, targets = (
        np.concatenate(parts)[order] for parts in zip(*known, strict=True)
    )
    directory = Path(runs[0].directory).parent
    rows = _rows(dataset, whole.spec.classes, fold[order], predictions, targets)
    record.write_table(directory / "out_of_fold.csv", rows)
    scores = [flat(run.report["test"]) for run in runs]
    theirs = [flat(run.report["baselines"]) for run in runs]
    report = {
        "folds": config.folds,
        "metrics": spread(scores),
        "baselines": spread(theirs),
        "pooled": task.report(predictions, targets),
        "per_fold": [
            {
                "fold": k,
                "directory": run.directory.name,
                "examples": {name: len(rows) for name, rows in folds[k].items()},
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
    return report, task.figures(predictions, targets)


def _rows(dataset, classes, folds, predictions, targets) -> list[dict[str, Any]]:
    """Rows of out_of_fold.csv: one per example, or one per step with a target."""
    import numpy as np

    pool = [dataset.splits[name] for name in ("train", "validation")]
    about = {
        column: (*values["train"], *values["validation"])
        for column, values in (("path", dataset.names), ("group", dataset.groups))
        if values
    }
    lengths = None
    if predictions.ndim == 3 and pool[0].lengths is not None:
        lengths = np.concatenate([split.lengths for split in pool])
    lines = []
    for index, (fold, output, target) in enumerate(
        zip(folds.tolist(), predictions, targets, strict=True)
    ):
        where = {"index": index} | {name: about[name][index] for name in about}
        where["fold"] = fold
        if targets.ndim == 1:
            own = {
                "target": classes[target],
                "prediction": classes[int(output.argmax())],
            }
            own |= {f"p_{c}": p for c, p in zip(classes, output.tolist(), strict=True)}
            lines.append(where | own)
            continue
        names = [f"_{c}" for c in classes] or [f"_{k}" for k in range(len(target))]
        names = names if len(names) > 1 or classes else [""]
        prefix = "p" if classes else "prediction"
        steps = slice(None if lengths is None else lengths[index])
        pairs = zip(np.atleast_2d(output), np.atleast_2d(target), strict=True)
        for step, (a, t) in enumerate([*pairs][steps]):
            at = {"step": step} if output.ndim == 2 else {}
            values = {
                f"target{n}": "" if np.isnan(v) else v
                for n, v in zip(names, t.tolist(), strict=True)
            }
            values |= {
                f"{prefix}{n}": v for n, v in zip(names, a.tolist(), strict=True)
            }
            lines.append(where | at | values)
    return lines


def _table(report: dict[str, Any]):
    """A table of folds, mean and standard deviation, baselines, pooled metrics."""
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
            "± standard deviation over folds, whose training examples overlap; pooled: "
            "metrics over all out-of-fold predictions",
            style="dim",
        ),
        caption_justify="left",
    )
    for name in ("", "examples", *columns.values()):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)

    def cell(key, mean, sd=None):
        return "-" if mean is None else mean_and_sd(mean, sd, key)

    for k, each in enumerate(report["per_fold"]):
        values = [cell(key, each["test"].get(key)) for key in columns]
        table.add_row(
            f"fold {k}",
            f"{each['examples']['test']:,}",
            *values,
            end_section=k == report["folds"] - 1,
        )
    means = [cell(key, metrics[key]["mean"], metrics[key]["sd"]) for key in columns]
    table.add_row("mean ± sd", "", *means, style="bold")
    for name in dict.fromkeys(key.partition(".")[0] for key in report["baselines"]):
        values = {key: report["baselines"].get(f"{name}.{key}") for key in columns}
        cells = [cell(k, v["mean"], v["sd"]) if v else "-" for k, v in values.items()]
        table.add_row(name.replace("_", " "), "", *cells, style="dim")
    total = f"{report['data']['pool']:,}"
    table.add_row("pooled", total, *(cell(key, pooled.get(key)) for key in columns))
    return table
