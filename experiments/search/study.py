"""The trials of a sweep, stored by Optuna in a SQLite file."""

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from experiments.errors import UsageError
from experiments.search.space import Choices, Range, Space

FILE = "study.db"
# Trials are compared at twentieths of their runs, even if their lengths differ.
PARTS = 20
_END = "end"


@dataclasses.dataclass(frozen=True)
class Search:
    """Options of the search."""

    trials: int = 20
    """Total number of trials; rerun with a larger number to continue a sweep."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Tree-structured Parzen estimator, or random search."""
    pruner: Literal["median", "none"] = "median"
    """Stop trials that are worse than the median of completed trials."""


def optuna():
    """Imports Optuna and turns its log messages off.

    Raises:
      UsageError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "a sweep needs Optuna, which is not installed: pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def opened(directory: Path, mode: str, search: Search) -> Iterator[Any]:
    """Opens or creates the study of a folder.

    Raises:
      UsageError: its file is damaged.
    """
    _check_file(directory / FILE)
    pruners = optuna().pruners
    pruner = pruners.NopPruner()
    if search.pruner == "median":
        # In the first third, metrics depend on the warm-up more than on the trial.
        pruner = pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=PARTS // 3)
    storage = optuna().storages.RDBStorage(
        f"sqlite:///{(directory / FILE).resolve().as_posix()}"
    )
    try:
        yield optuna().create_study(
            storage=storage,
            study_name="sweep",
            direction="maximize" if mode == "max" else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_file(path: Path) -> None:
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (found,) = database.execute("pragma integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = error
    if found != "ok":
        reason = " ".join(str(found).split())
        raise UsageError(
            f"{path} is damaged ({reason}); start again with --overwrite, or give "
            "another --run-dir"
        )


def trials(study, search: Search, seed: int) -> Iterator[Any]:
    """Yields unfinished trials, then new ones, up to `search.trials` in total.

    The sampler of each trial is seeded by (seed, number), so that a resumed sweep
    samples the same values.
    """
    running = (optuna().trial.TrialState.RUNNING,)
    for left in study.get_trials(deepcopy=False, states=running):
        study.sampler = _sampler(search, seed, left.number)
        yield optuna().trial.Trial(study, left._trial_id)
    for number in range(len(study.get_trials(deepcopy=False)), search.trials):
        study.sampler = _sampler(search, seed, number)
        yield study.ask()


def _sampler(search: Search, seed: int, number: int):
    import numpy as np

    samplers = optuna().samplers
    kinds = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler}
    mixed = np.random.SeedSequence((seed, number)).generate_state(1)[0]
    return kinds[search.sampler](seed=int(mixed))


def draw(trial, space: Space) -> dict[str, Any]:
    """The values of a trial by flag; a resumed trial keeps its values."""
    return {
        name: what.rounded(_draw(trial, name, what)) for name, what in space.items()
    }


def _draw(trial, name: str, what: Range | Choices) -> Any:
    if isinstance(what, Choices):
        return trial.suggest_categorical(name, list(what.values))
    suggest = trial.suggest_int if what.whole else trial.suggest_float
    return suggest(name, what.low, what.high, log=what.log)


def pruning(trial, monitor: str, steps: int):
    """A function of validation rows that reports them and may prune the trial.

    Args:
      trial: of Optuna.
      monitor: the metric of the search.
      steps: of the run.

    Returns:
      `row -> None`, which raises optuna.TrialPruned to end the trial.
    """
    numbers = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    reported = set(numbers)  # by an earlier process

    def report(row: dict[str, Any]) -> None:
        at = PARTS * row["step"] // steps
        if at not in reported:
            reported.add(at)
            trial.report(row[monitor], at)
        if trial.should_prune():
            raise optuna().TrialPruned(f"at step {row['step']:,} of {steps:,}")

    return report


def end(trial, state: str, best: dict[str, Any] | None, why: str = "") -> None:
    """Marks a trial as ended.

    Args:
      trial: of Optuna.
      state: "complete", "pruned", "diverged" or "failed".
      best: {"value", "step"} of its best validation; None if there is none.
      why: the reason if it was not completed.
    """
    best = best or {"value": None, "step": None}
    trial.set_user_attr(_END, {"state": state, **best, "why": why})
    if state == "complete":
        trial.study.tell(trial, best["value"])
    else:  # the sampler ranks it below all completed trials
        trial.study.tell(trial, state=optuna().trial.TrialState.PRUNED)


def finished(study, space: Space) -> list[dict[str, Any]]:
    """The ended trials as dicts, by number."""
    return [
        {
            "trial": trial.number,
            **trial.user_attrs[_END],
            "parameters": {k: s.rounded(trial.params[k]) for k, s in space.items()},
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]


def best_of(tried: list[dict[str, Any]], mode: str) -> dict[str, Any] | None:
    """The best completed trial, the first one of ties; None without any."""
    complete = [row for row in tried if row["state"] == "complete"]
    pick = max if mode == "max" else min
    return pick(complete, key=lambda row: row["value"], default=None)


def importance(study) -> dict[str, float]:
    """Importance of each flag: its share of the variance of the completed trials.

    {} for fewer than five trials, or if all values are equal. Reference: fANOVA
    (Hutter et al. 2014).
    """
    complete = (optuna().trial.TrialState.COMPLETE,)
    values = [t.value for t in study.get_trials(deepcopy=False, states=complete)]
    if len(values) < 5 or len(set(values)) < 2:
        return {}
    found = optuna().importance
    evaluator = found.FanovaImportanceEvaluator(seed=0)
    return found.get_param_importances(study, evaluator=evaluator)
