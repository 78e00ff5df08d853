"""Saves and restores checkpoints: the latest ones and the best one, asynchronously."""

import contextlib
import json
import math
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from lstm_jax.training import manifest
from lstm_jax.training.checkpoint_errors import (
    CheckpointError,
    CorruptCheckpoint,
    reading,
    write_error,
)
from lstm_jax.training.checkpoint_reader import keys_as_data, read_state
from lstm_jax.training.devices import barrier

State = Any  # a tree of arrays; typed PRNG keys are leaves too
_DELETED = ".deleted"  # moved here first, so that a kill leaves no partial checkpoint


class Checkpoints:
    """The checkpoints in one directory; use it in a `with` statement.

    The latest `keep` checkpoints are kept for resuming, and the one that is best on
    `monitor` for prediction. Each has a manifest with checksums of its files, which
    are verified before the checkpoint is restored.

    Args:
      directory: created by the first save.
      monitor: the name of the metric that determines the best checkpoint.
      mode: "max" if higher values are better, "min" if lower ones are.
      keep: number of latest checkpoints to keep, 1 or more.

    Raises:
      ValueError: an argument out of range.
    """

    def __init__(self, directory, *, monitor="accuracy", mode="max", keep=2):
        if mode not in ("max", "min"):
            raise ValueError(f"mode: got {mode!r}, want 'max' or 'min'")
        if keep < 1:
            raise ValueError(f"keep: got {keep}, want 1 or more")
        self.directory = pathlib.Path(directory).expanduser().resolve()
        self.monitor = monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._keep = keep
        self._open_manager = None
        self._swept = False
        self._saving: Any = None  # step, manifest and files of the save under way

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except CheckpointError:
            if error is None:  # the first error is the one to show
                raise

    def close(self) -> None:
        """Waits for a running save, then releases the directory.

        Raises:
          CheckpointError: the save failed.
        """
        if self._open_manager is None:
            return
        try:
            self._wait()
        finally:
            manager, self._open_manager = self._open_manager, None
            with contextlib.suppress(Exception):  # _wait has already raised it
                manager.close()
        self._remove_deleted()

    def save(
        self,
        step: int,
        state: State,
        config: dict,
        metrics: dict | None = None,
        force: bool = False,
        files: dict[str, bytes] | None = None,
    ) -> bool:
        """Starts to write a checkpoint; the state may be donated after the call.

        Args:
          step: the number of updates done.
          state: a tree of arrays, which may include typed PRNG keys.
          config: JSON values; `config()` returns them.
          metrics: metrics of this state; None if it was not evaluated.
          force: whether to replace an existing checkpoint of the same step.
          files: content of further files to store, by name; `file()` returns it.

        Returns:
          Whether a checkpoint is being written.

        Raises:
          CheckpointError: writing failed, for example because the disk is full (now or
            in the previous save), or `metrics` lack the monitored one.
        """
        if metrics is not None and self.monitor not in metrics:
            raise CheckpointError(
                f"checkpoint {step}: the monitored metric {self.monitor!r} is not "
                f"among {', '.join(sorted(metrics)) or 'no metrics'}"
            )
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        with self._writing():
            if not self._swept:  # only writers clean up: readers may run during a save
                self._remove_unfinished()
                self._swept = True
            manager = self._manager()
            manager.wait_until_finished()
            self._remove_deleted()
            if step in manager.all_steps():
                if not force:
                    return False
                manager.delete(step)
                self._remove_deleted()
            kept = json.loads(json.dumps({"config": config, "metrics": metrics}))
            self._saving = step, kept, files or {}
            return manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(keys_as_data(state))
                ),
                metrics={**metrics, "step": step},  # the step breaks ties
                force=True,
            )

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint; None if there is none."""
        return max(self._steps(), default=None)

    def best_step(self) -> int | None:
        """The step of the best checkpoint; see `rank` for ties.

        The latest one if none was evaluated; None if there are no checkpoints.

        Raises:
          CheckpointError: the metrics of a checkpoint are damaged.
        """
        rows = []
        for step in self._steps():
            try:
                rows.append(self._manifest(step)["metrics"] | {"step": step})
            except CorruptCheckpoint:
                if (self.directory / str(step)).is_dir():  # else it was just deleted
                    raise
        return self.best_of(rows)

    def best_of(self, rows: Iterable[dict[str, Any]]) -> int | None:
        """The step of the best row of metrics, by the rule of `best_step`.

        Args:
          rows: dicts of metrics and "step"; None values count as NaN.
        """
        nan = float("nan")
        rows = [{k: nan if v is None else v for k, v in row.items()} for row in rows]
        return max(rows, key=self._rank)["step"] if rows else None

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics saved with `step`; {} if it was not evaluated."""
        return self._manifest(self._existing(step))["metrics"]

    def evaluated(self, step: int) -> bool:
        """Whether `step` was saved with metrics."""
        return self.monitor in self.metrics(step)

    def config(self, step: int | None = None) -> dict:
        """The config saved with `step`, by default the latest.

        Raises:
          CheckpointError: there is no such checkpoint, or it is damaged.
        """
        return self._manifest(self._existing(step))["config"]

    def file(self, name: str, step: int | None = None) -> bytes:
        """A file saved with `step`, by default the latest; empty if there is none.

        Raises:
          CheckpointError: there is no such checkpoint, or it is damaged.
        """
        step = self._existing(step)
        with self._reading(step):
            return manifest.read_file(self.directory / str(step), step, name)

    def restore(self, template: State, step: int | None = None) -> State:
        """Verifies the checksums of a checkpoint and reads its state.

        Args:
          template: a tree like the state; only shape and dtype of its leaves are used,
            so it may be the result of `jax.eval_shape`.
          step: by default the latest.

        Returns:
          The state with NumPy leaves (and typed keys), independent of the devices it
          was saved from; `TrainStep.put_state` puts it on devices.

        Raises:
          CheckpointError: there is no such checkpoint, it is damaged, or it does not
            fit the template (names the leaf and both shapes).
        """
        step = self._existing(step)
        with self._reading(step):
            manifest.verify(self.directory / str(step), step)
        return self._restore(template, step)

    def restore_latest(
        self, template: State
    ) -> tuple[State | None, int | None, list[str]]:
        """Verifies all checkpoints, and reads the latest one that is not damaged.

        Damaged ones are renamed to `corrupt-STEP`, so that their steps can be saved
        again.

        Args:
          template: as in `restore`.

        Returns:
          The state and its step (None and None if nothing was ever saved), and one
          line for each damaged checkpoint.

        Raises:
          CheckpointError: all are damaged, or one does not fit the template.
        """
        damage, sound = self._verify_all()
        state, step = None, None
        for step in sorted(sound, reverse=True):
            try:
                state = self._restore(template, step)
                break
            except CorruptCheckpoint as error:
                damage[step] = str(error)
        if damage and state is None:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be read: "
                f"{'; '.join(damage.values())}. Start again in a new directory"
            )
        notes = []
        for number in sorted(damage, reverse=True):
            aside = self._move_aside(number)
            back = f", went back to step {step}" if number > step else ""
            notes.append(f"{damage[number]}; moved to {aside}{back}")
        return state, step, notes

    def _restore(self, template: State, step: int) -> State:
        with self._reading(step):
            return read_state(self.directory / str(step) / "state", template, step)

    def _verify_all(self) -> tuple[dict[int, str], list[int]]:
        """(the error of each damaged checkpoint by step, steps of the others)."""
        damage, sound = {}, []
        for step in self._steps():
            try:
                with self._reading(step):
                    manifest.verify(self.directory / str(step), step)
                sound.append(step)
            except CorruptCheckpoint as error:
                damage[step] = str(error)
        return damage, sound

    def _manifest(self, step: int) -> dict[str, Any]:
        with self._reading(step):
            return manifest.read(self.directory / str(step), step)

    def _manager(self) -> ocp.CheckpointManager:
        if self._open_manager is None:
            policy = preservation_policy
            # The policies decide which checkpoints are kept; best_fn ranks them.
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(
                    [
                        policy.LatestN(self._keep),
                        policy.BestN(get_metric_fn=self._rank, n=1),
                    ]
                ),
                best_fn=self._rank,
                best_mode="max",
                todelete_subdir=_DELETED,
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._write_manifest
                ),
            )
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                self._open_manager = ocp.CheckpointManager(
                    self.directory,
                    options=options,
                    item_handlers={"state": ocp.StandardCheckpointHandler()},
                )
            except (ValueError, TypeError) as error:  # of Orbax's record of a step
                raise CheckpointError(
                    f"a checkpoint in {self.directory} is corrupt ({error})"
                ) from error
        return self._open_manager

    def _write_manifest(self) -> None:
        """Adds the manifest to a finished save, before its folder is renamed."""
        step, values, files = self._saving
        (folder,) = self.directory.glob(f"{step}.orbax-checkpoint-tmp*")
        for name, content in files.items():
            (folder / name).write_bytes(content)
        manifest.write(folder, step, values)

    def _rank(self, metrics: dict) -> tuple[float, float, int]:
        return (*rank(metrics, self.monitor, self._sign), metrics["step"])

    def _wait(self) -> None:
        with self._writing():
            self._open_manager.wait_until_finished()

    def _steps(self) -> list[int]:
        if self._open_manager is not None:
            self._wait()
        if not self.directory.is_dir():  # reading must not create it
            return []
        folders = (path for path in self.directory.iterdir() if path.is_dir())
        return sorted(int(path.name) for path in folders if _is_step(path.name))

    def _existing(self, step: int | None) -> int:
        steps = self._steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.directory}")
        if step is None:
            return max(steps)
        if step not in steps:
            raise CheckpointError(
                f"there is no checkpoint of step {step} in {self.directory}; there are "
                f"{', '.join(map(str, sorted(steps)))}"
            )
        return step

    def _move_aside(self, step: int) -> str:
        aside = self.directory / f"corrupt-{step}"
        barrier(f"checkpoint {step} was read")
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)
        barrier(f"checkpoint {step} is moved aside")
        if self._open_manager is not None:
            self._open_manager.reload()
        return aside.name

    def _remove_unfinished(self) -> None:
        if jax.process_index():
            return
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)
        self._remove_deleted()

    def _remove_deleted(self) -> None:
        if jax.process_index() == 0:
            shutil.rmtree(self.directory / _DELETED, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            told = write_error(self.directory, error)
            if told is None:
                raise
            self._remove_unfinished()
            raise told from error

    def _reading(self, step: int):
        return reading(self.directory, step)


def rank(metrics: dict, monitor: str, sign: float) -> tuple[float, float]:
    """Sort key of checkpoints, the best last.

    Accuracies on few examples are often equal, and the earliest of equal checkpoints is
    the least trained one. Therefore the lower loss decides between equal metrics, and
    then the later step.

    Args:
      metrics: metrics of a checkpoint; empty if it was not evaluated.
      monitor: the name of the monitored metric.
      sign: 1 if higher is better, -1 if lower is better.

    Returns:
      `(sign * monitored metric, -loss)`, with -inf for missing values and NaN.
    """

    def finite(value: float) -> float:
        return -math.inf if math.isnan(value) else value

    value = sign * metrics.get(monitor, math.nan)
    return finite(value), finite(-metrics.get("loss", math.nan))


def _is_step(name: str) -> bool:
    """Whether a folder's name is a step: decimal, without sign or leading zeros."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name
