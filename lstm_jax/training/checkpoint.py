"""Checkpoints of a run: the latest ones and the best one, written in the background."""

import asyncio
import contextlib
import errno
import math
import pathlib
import shutil
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from lstm_jax.training.devices import barrier
from lstm_jax.training.warm_start import flatten_params

State = Any  # a tree of arrays; typed PRNG keys are leaves too


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message is complete."""


class Checkpoints:
    """The checkpoints in one directory; use it in a `with` statement.

    The latest `keep` checkpoints stay, and the one that is best on `monitor`: the
    best is for prediction, the latest for going on.

    Args:
      directory: made by the first save.
      monitor: the name of the metric that says which is best.
      mode: "max" or "min" of it is best.
      keep: how many of the latest to keep, 1 or more.

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

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except CheckpointError:
            if error is None:  # the first error is the one to show
                raise

    def close(self) -> None:
        """Waits for the save under way, then lets go of the directory.

        Raises:
          CheckpointError: that save failed.
        """
        if self._open_manager is None:
            return
        try:
            self._wait()
        finally:
            manager, self._open_manager = self._open_manager, None
            with contextlib.suppress(Exception):  # what failed was told by _wait
                manager.close()

    def save(
        self,
        step: int,
        state: State,
        config: dict,
        metrics: dict | None = None,
        force: bool = False,
    ) -> bool:
        """Starts to write a checkpoint; the state may be donated at once.

        Args:
          step: the number of updates done.
          state: a tree of arrays, typed keys among them.
          config: what JSON can hold; `config()` gives it back.
          metrics: those of this very state, or None if it was not evaluated.
          force: replace a checkpoint of the same step, which else stays as it is.

        Returns:
          Whether a checkpoint is being written.

        Raises:
          CheckpointError: the disk is full or does not allow it (also of the save
            before), or `metrics` lack the monitored one.
        """
        if metrics is not None and self.monitor not in metrics:
            raise CheckpointError(
                f"checkpoint {step}: the monitored metric {self.monitor!r} is not "
                f"among {', '.join(sorted(metrics)) or 'no metrics'}"
            )
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        with self._writing():
            if not self._swept:  # by who writes: a reader may come during a save
                self._remove_unfinished()
                self._swept = True
            manager = self._manager()
            manager.wait_until_finished()
            if step in manager.all_steps():
                if not force:
                    return False
                manager.delete(step)
            return manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(jax.tree.map(_key_to_data, state)),
                    config=ocp.args.JsonSave(config),
                ),
                metrics={**metrics, "step": step},  # the step breaks ties
                force=True,
            )

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint, None if there is none."""
        return max(self._steps(), default=None)

    def best_step(self) -> int | None:
        """The step of the best checkpoint; see `rank` for ties.

        If none was evaluated it is the latest; None if there is none at all.
        """
        return self._manager().best_step() if self._steps() else None

    def evaluated(self, step: int) -> bool:
        """Whether `step` was saved with metrics."""
        self._existing(step)
        return self.monitor in (self._manager().metrics(step) or {})

    def config(self, step: int | None = None) -> dict:
        """The config saved with `step`, by default the latest.

        Raises:
          CheckpointError: there is no such checkpoint, or it cannot be read.
        """
        step = self._existing(step)
        with self._reading(step):
            args = ocp.args.Composite(config=ocp.args.JsonRestore())
            return self._manager().restore(step, args=args).config

    def restore(self, template: State, step: int | None = None) -> State:
        """Reads the state of one checkpoint.

        Args:
          template: the tree to fill; of its leaves only shape and dtype matter, so
            arrays, NumPy arrays and the result of `jax.eval_shape` all do.
          step: by default the latest.

        Returns:
          The state with NumPy leaves (and typed keys), whatever devices it was saved
          from: put it on devices with `TrainStep.put_state`.

        Raises:
          CheckpointError: there is no such checkpoint, it cannot be read, or it does
            not fit the template (names the leaf and both shapes).
        """
        step = self._existing(step)
        directory, reader = self._manager().directory / str(step) / "state", _reader()
        with self._reading(step), contextlib.closing(reader):
            metadata = reader.metadata(directory)
            saved = flatten_params(getattr(metadata, "tree", metadata))
            if not saved:
                raise FileNotFoundError("files are missing")
        blank = jax.tree.map(_numpy_blank, template)
        _check_fit(step, saved, flatten_params(blank))
        as_numpy = jax.tree.map(
            lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), blank
        )
        reader = _reader()
        with self._reading(step), contextlib.closing(reader):
            args = ocp.args.PyTreeRestore(item=blank, restore_args=as_numpy)
            state = reader.restore(directory, args=args)
        return jax.tree.map(_data_to_key, template, state)

    def restore_latest(
        self, template: State
    ) -> tuple[State | None, int | None, list[str]]:
        """Reads the latest checkpoint that can be read.

        A corrupt one is moved aside to `corrupt-STEP`, so that its step can be saved
        again, and the one before it is read.

        Args:
          template: as in `restore`.

        Returns:
          The state and its step (None and None if nothing was ever saved), and one
          line for each checkpoint that was passed over.

        Raises:
          CheckpointError: all are corrupt, or one does not fit the template.
        """
        notes = []
        for step in sorted(self._steps(), reverse=True):
            try:
                return self.restore(template, step), step, notes
            except _Corrupt as error:
                aside = self._move_aside(step)
                notes.append(f"{error}; moved to {aside}, went back to the one before")
        if notes:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be read: "
                f"{'; '.join(notes)}. Start again in a new directory."
            )
        return None, None, notes

    def _manager(self) -> ocp.CheckpointManager:
        if self._open_manager is None:
            policy = preservation_policy
            # The policies decide what stays; best_fn makes best_step() right.
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(
                    [
                        policy.LatestN(self._keep),
                        policy.BestN(get_metric_fn=self._rank, n=1),
                    ]
                ),
                best_fn=self._rank,
                best_mode="max",
            )
            self.directory.mkdir(parents=True, exist_ok=True)
            self._open_manager = ocp.CheckpointManager(
                self.directory,
                options=options,
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "config": ocp.JsonCheckpointHandler(),
                },
            )
        return self._open_manager

    def _rank(self, metrics: dict) -> tuple[float, float, int]:
        return (*rank(metrics, self.monitor, self._sign), metrics["step"])

    def _wait(self) -> None:
        with self._writing():
            self._open_manager.wait_until_finished()

    def _steps(self) -> list[int]:
        if not self.directory.is_dir():  # reading makes no directory
            return []
        self._manager()
        self._wait()
        return list(self._open_manager.all_steps())

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
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)
        barrier(f"checkpoint {step} is moved aside")
        self._open_manager.reload()
        return aside.name

    def _remove_unfinished(self) -> None:
        if jax.process_index():
            return
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns a failed write into one clear line."""
        try:
            yield
        except Exception as error:
            full = _disk_full(error)
            if not full and not isinstance(error, OSError):
                raise
            self._remove_unfinished()
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            if full:
                cause = "the disk is full: free some space or choose another directory"
            raise CheckpointError(
                f"cannot write a checkpoint to {self.directory}: {cause}; "
                "the checkpoints before it are kept"
            ) from error

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise _Corrupt(
                f"checkpoint {step} in {self.directory} is corrupt ({text[0][:200]})"
            ) from error


def rank(metrics: dict, monitor: str, sign: float) -> tuple[float, float]:
    """By which checkpoints are ordered, the best last; of equals the later is best.

    An accuracy on few examples has ties in plenty, of which the first is the least
    trained: a lower loss breaks them, then the later step.

    Args:
      metrics: of a checkpoint; empty if it was not evaluated.
      monitor: the metric that is compared.
      sign: 1 where more of it is better, -1 where less is.

    Returns:
      `(sign * monitored metric, -loss)`, -inf for what is missing or NaN.
    """

    def finite(value: float) -> float:
        return -math.inf if math.isnan(value) else value

    value = sign * metrics.get(monitor, math.nan)
    return finite(value), finite(-metrics.get("loss", math.nan))


class _Reads:
    """Part of a handler of arrays: reads that fail wait for those in flight.

    Orbax's own handlers raise with the first error, upon which it closes the event
    loop under the other reads. Their threads then find it closed, and each prints
    "RuntimeError: Event loop is closed" to stderr.
    """

    def __init__(self, in_flight: set[asyncio.Task]):
        super().__init__()
        self._in_flight = in_flight  # by all handlers of a reader

    async def metadata(self, infos):
        own = super().metadata
        return await self._each(own([info]) for info in infos)

    async def deserialize(self, infos, args=None):
        own, args = super().deserialize, args or [ocp.RestoreArgs()] * len(infos)
        pairs = zip(infos, args, strict=True)
        return await self._each(own([info], [arg]) for info, arg in pairs)

    async def _each(self, reads: Iterable[Coroutine]) -> list:
        tasks = [asyncio.ensure_future(read) for read in reads]
        self._in_flight.update(tasks)
        while waiting := {task for task in self._in_flight if not task.done()}:
            await asyncio.wait(waiting)
        self._in_flight.difference_update(tasks)
        for error in [task.exception() for task in tasks]:  # asks all: none is logged
            if error is not None:
                raise error
        return [array for task in tasks for array in task.result()]


class _NumpyHandler(_Reads, ocp.type_handlers.NumpyHandler):
    pass


class _ArrayHandler(_Reads, ocp.type_handlers.ArrayHandler):
    pass


def _reader() -> ocp.PyTreeCheckpointHandler:
    """Reads a saved state into NumPy arrays."""
    in_flight = set()
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _NumpyHandler(in_flight)), (jax.Array, _ArrayHandler(in_flight))
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


class _Corrupt(CheckpointError):
    """The files of a checkpoint are damaged or missing."""


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_to_data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _numpy_blank(leaf) -> np.ndarray:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.empty(leaf.shape, leaf.dtype)


def _data_to_key(leaf, data):
    if not _is_key(leaf):
        return data
    return jax.random.wrap_key_data(data, impl=_key_impl(leaf.dtype))


def _key_impl(dtype) -> str:
    """The name of the generator of a typed key."""
    for name in ("threefry2x32", "rbg", "unsafe_rbg"):
        if (
            jax.eval_shape(lambda name=name: jax.random.key(0, impl=name)).dtype
            == dtype
        ):
            return name
    raise CheckpointError(f"checkpoint: keys of type {dtype} cannot be restored")


def _check_fit(step: int, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    def refuse(what: str) -> None:
        raise CheckpointError(
            f"checkpoint {step} does not fit: {what}; use the model and optimizer that "
            "it was saved with"
        )

    for name, leaf in wanted.items():
        shape = tuple(leaf.shape)
        if name not in saved:
            refuse(f"it has no {name}, which this model wants with shape {shape}")
        if (found := tuple(saved[name].shape)) != shape:
            refuse(f"{name} has shape {found}, but this model wants {shape}")
    for name in sorted(saved.keys() - wanted.keys()):
        refuse(f"this model has no {name} (shape {tuple(saved[name].shape)})")


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "no space left" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
