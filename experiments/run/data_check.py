"""Checks that a resumed run has the data that it began with: data_fingerprint.json."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config import read_run
from experiments.errors import UsageError
from experiments.experiment import Experiment
from experiments.run.folder import underway
from experiments.run.sealed import read_sealed, write_sealed
from experiments.spec import DataSpec
from lstm_jax import data

FILE = "data_fingerprint.json"
_ALLOW = "--data.allow-changed"


def write(directory: Path, experiment: Experiment, changes: Sequence[str] = ()) -> None:
    """Saves the fingerprint of the data in a run's folder, with a list of changes.

    Args:
      directory: the run's folder.
      experiment: the run.
      changes: lines from `compare`, appended to those in the file.
    """
    path = directory / FILE
    before = _read(path)
    told = [*(before["changes"] if before else ()), *changes]
    found = {"fingerprint": experiment.fingerprint, "changes": told}
    if before != found:
        write_sealed(path, found)


def compare(directory: Path, experiment: Experiment) -> tuple[Experiment, list[str]]:
    """Compares the data of a resumed run with the data that it began with.

    Args:
      directory: the run's folder.
      experiment: the run as it is about to resume.

    Returns:
      `(experiment, lines that say what changed)`. If the data changed and
      `--data.allow-changed` accepts that, the returned experiment keeps the
      normalization of the original data.

    Raises:
      UsageError: the data changed, or the file is damaged.
    """
    config = experiment.config
    if not underway(directory, config):
        return experiment, []
    changed = changes_of(directory, experiment)
    if changed is None:
        return experiment, [f"{directory / FILE} is missing: the data was not compared"]
    if not changed:
        if earlier_changes(directory):
            experiment = _normalised_as(read_run(directory), experiment)
        return experiment, []
    what = f"the data of {directory} changed since it began: {'; '.join(changed)}"
    saved = read_run(directory)
    old, new = DataSpec(**saved["data"]), experiment.spec
    if not _same_sizes(old, new, experiment.kind.bucketed):
        raise UsageError(
            f"{what}. The network's inputs or outputs no longer fit; restore the data, "
            f"or train a new run with another --run-dir and --init-from={directory}"
        )
    if not config.data.allow_changed:
        raise UsageError(
            f"{what}. Restore the data, resume on the changed data with {_ALLOW}, or "
            "train again with --overwrite"
        )
    return _normalised_as(saved, experiment), [
        f"{what}; resuming on the changed data ({_ALLOW})"
    ]


def _normalised_as(saved: dict[str, Any], experiment: Experiment) -> Experiment:
    """The experiment with the statistics of the data that its run began with."""
    measured = {
        name: saved["data"][name]
        for name in ("pixel_offset", "pixel_scale", "target_offset", "target_scale")
    }
    spec = dataclasses.replace(experiment.spec, **measured)
    return Experiment(experiment.config, spec, dataset=experiment.dataset)


def changes_of(directory: Path, experiment: Experiment) -> list[str] | None:
    """Lines on data changes since a run began; None if it has no fingerprint.

    Raises:
      UsageError: the file is damaged.
    """
    old = _read(directory / FILE)
    return old and data.differences(old["fingerprint"], experiment.fingerprint)


def earlier_changes(directory: Path) -> list[str]:
    """Lines on changes of the data with which a run was resumed."""
    found = _read(directory / FILE)
    return found["changes"] if found else []


def _same_sizes(old: DataSpec, new: DataSpec, any_width: bool) -> bool:
    shapes = [list(spec.image_shape) for spec in (old, new)]
    if any_width:
        shapes = [shape[:1] + shape[2:] for shape in shapes]
    return shapes[0] == shapes[1] and old.outputs == new.outputs


def _read(path: Path) -> dict[str, Any] | None:
    remedy = "Delete it to resume without comparing the data"
    found = read_sealed(path, remedy)
    if found and found["fingerprint"]["format"] != data.FINGERPRINT_FORMAT:
        raise UsageError(
            f"{path}: the fingerprint has format {found['fingerprint']['format']}, and "
            f"this version makes format {data.FINGERPRINT_FORMAT}. {remedy}"
        )
    return found
