"""Callbacks of `fit`: logging, evaluation, saving and early stopping."""

from collections.abc import Callable, Iterable
from typing import Any

from lstm_jax.training.plateau import evaluations_without_improvement, lower_on_plateau


class Callback:
    """Base class; every method does nothing unless it is overridden.

    Attributes:
      saves: whether `fit` calls `on_save`.
    """

    saves = False

    def on_progress(self, step: int) -> None:
        """Called when the step is compiled, and then as further steps are complete."""

    def on_log(self, row: dict[str, Any]) -> None:
        """Called with a row {"step", "split": "train" | "validation", name: number}."""

    def on_evaluation(self, state: Any, metrics: dict[str, float]) -> Any:
        """Called after an evaluation; returns the state to continue with and save."""
        return state

    def on_save(self, step: int, state: Any, metrics: dict | None) -> None:
        """Called with a state to save, and its metrics if it was evaluated."""

    def ends(self) -> bool:
        """Whether to end training; called at the start and after each evaluation."""
        return False


class LambdaCallback(Callback):
    """A callback made of functions; arguments are the methods of `Callback`."""

    def __init__(
        self,
        *,
        on_progress: Callable[[int], Any] | None = None,
        on_log: Callable[[dict], Any] | None = None,
        on_evaluation: Callable[[Any, dict], Any] | None = None,
        on_save: Callable[[int, Any, dict | None], Any] | None = None,
        ends: Callable[[], bool] | None = None,
    ):
        given = dict(
            on_progress=on_progress,
            on_log=on_log,
            on_evaluation=on_evaluation,
            on_save=on_save,
            ends=ends,
        )
        vars(self).update({name: f for name, f in given.items() if f is not None})
        self.saves = on_save is not None


class EarlyStopping(Callback):
    """Ends training after `patience` evaluations without improvement.

    Args:
      monitor: name of the metric.
      mode: "max" or "min", whether the metric is maximized or minimized.
      patience: number of evaluations, at least 1; None never ends training.
      min_delta: smallest change that counts as an improvement, at least 0.
      rows: logged rows of the run that is resumed.
    """

    def __init__(
        self,
        monitor: str,
        mode: str,
        patience: int | None,
        *,
        min_delta: float = 0.0,
        rows: Iterable[dict[str, Any]] = (),
    ):
        self._monitor, self._mode, self._patience = monitor, mode, patience
        self._min_delta, self._values = min_delta, []
        for row in rows:
            self.on_log(row)

    def on_log(self, row):
        if row["split"] == "validation":
            self._values.append(row.get(self._monitor))

    def ends(self):
        if self._patience is None:
            return False
        return (
            evaluations_without_improvement(self._values, self._mode, self._min_delta)
            >= self._patience
        )


class ReduceOnPlateau(Callback):
    """Lowers the learning rate when a metric stops improving.

    The optimizer must contain `scale_on_plateau`.

    Args:
      monitor: name of the metric.
      mode: "max" or "min", whether the metric is maximized or minimized.
      **options: `factor`, `patience` and `min_delta` of `lower_on_plateau`.
    """

    def __init__(self, monitor: str, mode: str, **options: Any):
        self._monitor, self._sign = monitor, -1 if mode == "max" else 1
        self._options = options

    def on_evaluation(self, state, metrics):
        value = self._sign * metrics.get(self._monitor, float("nan"))
        return lower_on_plateau(state, value, **self._options)
