"""The trials of a sweep, kept by Optuna in a SQLite file; a kill loses none."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from experiments.errors import UsageError
from experiments.search.space import Choices, Range, Space

FILE = "study.db"
# Values of trials are compared at twentieths of their runs, whatever the length.
PARTS = 20
_END = "end"


@dataclasses.dataclass(frozen=True)
class Search:
    """The search."""

    trials: int = 20
    """Total number of trials; rerun with a larger number to continue a sweep."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How the next trial is chosen: near good trials (a tree-structured Parzen
    estimator), or at random."""
    pruner: Literal["median", "none"] = "median"
    """Stop a trial that is worse than the median of complete ones at that step."""


def optuna():
    """Optuna, silenced.

    Raises:
      UsageError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "a sweep wants Optuna, which is not installed: pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def opened(directory: Path, mode: str, search: Search) -> Iterator[Any]:
    """The study of a folder, new or as it was left."""
    pruners = optuna().pruners
    pruner = pruners.NopPruner()
    if search.pruner == "median":
        # The first third says more about the warm-up than about the end.
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


def trials(study, search: Search, seed: int) -> Iterator[Any]:
    """Trials that a kill left unfinished, then new ones, up to `search.trials` in all.

    The sampler of each is seeded by (seed, number), so that a resumed sweep draws
    what it would have drawn.
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
    """The values of a trial, by flag; those drawn before a kill stay."""
    return {
        name: what.rounded(_draw(trial, name, what)) for name, what in space.items()
    }


def _draw(trial, name: str, what: Range | Choices) -> Any:
    if isinstance(what, Choices):
        return trial.suggest_categorical(name, list(what.values))
    suggest = trial.suggest_int if what.whole else trial.suggest_float
    return suggest(name, what.low, what.high, log=what.log)


def pruning(trial, monitor: str, steps: int):
    """`row -> None` for the rows of a run of `steps`, which it may end.

    Raises, when called:
      optuna.TrialPruned: the trial is not worth going on with.
    """
    numbers = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    reported = set(numbers)  # before a kill

    def judge(row: dict[str, Any]) -> None:
        at = PARTS * row["step"] // steps
        if at not in reported:
            reported.add(at)
            trial.report(row[monitor], at)
        if trial.should_prune():
            raise optuna().TrialPruned(f"at step {row['step']:,} of {steps:,}")

    return judge


def end(trial, state: str, best: dict[str, Any] | None, why: str = "") -> None:
    """Closes a trial.

    Args:
      state: "complete", "pruned", "diverged" or "failed".
      best: {"value", "step"} of its best validation, None before the first.
      why: it was not completed.
    """
    best = best or {"value": None, "step": None}
    trial.set_user_attr(_END, {"state": state, **best, "why": why})
    if state == "complete":
        trial.study.tell(trial, best["value"])
    else:  # to the sampler, worse than any that was completed
        trial.study.tell(trial, state=optuna().trial.TrialState.PRUNED)


def finished(study, space: Space) -> list[dict[str, Any]]:
    """The trials that came to an end, a dict each, in the order of their numbers."""
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
    """The best of the completed trials, of equals the first; None without any."""
    complete = [row for row in tried if row["state"] == "complete"]
    pick = max if mode == "max" else min
    return pick(complete, key=lambda row: row["value"], default=None)


def importance(study) -> dict[str, float]:
    """Share of the variance of the completed trials' values that each flag explains.

    By fANOVA (Hutter et al. 2014); {} of less than five trials, or if all are equal.
    """
    complete = (optuna().trial.TrialState.COMPLETE,)
    values = [t.value for t in study.get_trials(deepcopy=False, states=complete)]
    if len(values) < 5 or len(set(values)) < 2:
        return {}
    found = optuna().importance
    evaluator = found.FanovaImportanceEvaluator(seed=0)
    return found.get_param_importances(study, evaluator=evaluator)
