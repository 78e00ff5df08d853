"""The folder of a run, and the `Run` that training returns."""

import dataclasses
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

from experiments.choices import flat, to_dict
from experiments.config import Config, preset, read_run
from experiments.errors import UsageError
from experiments.run import lock
from experiments.run.extend import LENGTH, check_extends
from experiments.run.sealed import copy_of, write_sealed

# Options that a resumed run may change: they change results by rounding at most.
FREE = {
    "run_dir",
    "overwrite",
    "accelerator",
    "parallel",
    "grad_accum_steps",
    "data_placement",
    "steps_per_execution",
    "distributed",
    "coordinator",
    "processes",
    "process_id",
    "profile",
    "tensorboard",
    "wandb",
    "mlflow",
    "compilation_cache",
    "log_every",
    "test_checkpoint",
    "baselines",
    "data.dir",
    "data.manual_dir",
    "data.allow_changed",
    "data.follow_outside",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, report and figures."""

    directory: Path
    config: Config
    report: dict[str, Any]
    history: list[dict[str, Any]]
    figures: dict[str, Any]
    params: Any

    def curves(self):
        """Loss and metrics against steps, a Matplotlib figure."""
        return self.figures["curves"]

    def confusion(self):
        """The confusion matrix of the test split, a Matplotlib figure."""
        if "confusion_matrix" not in self.figures:
            raise UsageError("this run has no confusion matrix; see Run.figures")
        return self.figures["confusion_matrix"]

    def predict(self, *paths: str) -> list[dict[str, Any]]:
        """Predictions for image files or folders, one dict per prediction."""
        from experiments.predict import predict

        return predict(self.directory, *paths)

    def __repr__(self) -> str:
        test = {k: v for k, v in self.report["test"].items() if isinstance(v, float)}
        return f"Run({str(self.directory)!r}, test={test})"


def place_of(name: str, config: Config, root: str = "runs") -> Path:
    """The run's folder, without checking its content; below `root` by default."""
    if config.run_dir:
        directory = Path(config.run_dir).expanduser()
    else:
        source = config.data.source
        if source != preset(name).data.source:
            name = Path(source).expanduser().resolve().stem or name
        directory = Path(root, name)
        if config.fold is not None:
            directory = directory / f"fold-{config.fold}"
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; give another --run-dir")
    return directory


def directory_of(name: str, config: Config) -> Path:
    """The run's folder; checks that it is free or holds this run, and writes nothing.

    Raises:
      UsageError: the folder holds another run or other files, or lacks config.json.
    """
    directory = place_of(name, config)
    try:
        old = read_run(directory)
    except UsageError as error:
        raise UsageError(f"{error}. Give another --run-dir") from error
    if config.overwrite:
        if old is None and content(directory):
            raise UsageError(
                f"{directory} holds files, but no run; --overwrite would delete them. "
                "Give another --run-dir"
            )
    elif old is not None:
        check_same(old["config"], config, directory)
    elif copy := copy_of(directory / "config.json"):
        raise UsageError(
            f"{directory / 'config.json'} is missing, but there are checkpoints. Copy "
            f"{copy} to its place, or give another --run-dir"
        )
    return directory


def check_same(saved: dict[str, Any], config: Config, where: Path) -> None:
    """Checks that a configuration is the one that a run was started with.

    Only its length may differ, if `check_extends` allows it.

    Args:
      saved: the configuration of the run, from `to_dict`.
      config: the configuration of the command.
      where: the folder that holds the run, for the message.

    Raises:
      UsageError: the configurations differ; the message lists the differences.
    """
    was, now = flat(saved), flat(to_dict(config))
    changed = {
        key: f"{key} was {was.get(key)!r}, is {now.get(key)!r}"
        for key in now | was
        if key not in FREE and was.get(key) != now.get(key)
    }
    if changed.keys() and changed.keys() <= LENGTH:
        check_extends(was, config, where)
    elif changed:
        raise UsageError(
            f"{where} holds a run with another configuration ("
            f"{'; '.join(changed.values())}). Start again with --overwrite, or give "
            "another --run-dir"
        )


def underway(directory: Path, config: Config) -> bool:
    """Whether a run would resume from a checkpoint in its folder."""
    kept = directory / "checkpoints"
    found = kept.is_dir() and any(path.name.isdecimal() for path in kept.iterdir())
    return found and not config.overwrite


def begin(directory: Path, name: str, config: Config, spec: Any) -> None:
    """Creates a run's folder, or empties it with `--overwrite`, and writes config.json.

    Args:
      directory: the folder.
      name: name of the preset.
      config: configuration of the run.
      spec: the `DataSpec`, which predictions need.
    """
    if config.overwrite:
        empty(directory)
    directory.mkdir(parents=True, exist_ok=True)
    values = dict(preset=name, config=to_dict(config), data=dataclasses.asdict(spec))
    (directory / "report.json").unlink(missing_ok=True)  # of the run as it was
    write_sealed(directory / "config.json", values)


def content(directory: Path) -> list[Path]:
    """Paths in a folder, without the lock file."""
    found = directory.iterdir() if directory.exists() else ()
    return [path for path in found if path.name != lock.NAME]


def run_files(directory: Path) -> dict[str, bytes]:
    """The content, by name, of the run's files that each checkpoint copies."""
    paths = (directory / name for name in ("config.json", "metrics.jsonl"))
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def empty(directory: Path) -> None:
    """Deletes the content of a folder, but not the folder, which may be a link."""
    for path in content(directory):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def steady_rate(rows: list[dict[str, Any]]) -> float | None:
    """Median images per second over the logged rows of a run; None without any."""
    rates = sorted(
        row["images_per_second"] for row in rows if row.get("images_per_second")
    )
    return rates[len(rates) // 2] if rates else None


def spread(scores: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (with n - 1) and values of each metric.

    Args:
      scores: a dict of metrics for each run or fold, as `flat` returns it.
    """
    names = dict.fromkeys(
        name
        for each in scores
        for name, value in each.items()
        if isinstance(value, float) and not name.endswith("seconds")
    )
    found = {}
    for name in names:
        values = [each.get(name) for each in scores]
        known = [value for value in values if value is not None]
        found[name] = {
            "mean": math.fsum(known) / len(known),
            "sd": statistics.stdev(known) if len(known) > 1 else None,
            "values": values,
        }
    return found
