"""Searches hyperparameters: `python -m experiments.sweep [PRESET] --FLAG=RANGE …`.

A sweep command is a `train` command in which some values are ranges or lists:

    python -m experiments.sweep digits --trials=20 --steps=300 \\
        --optimizer.learning-rate=1e-4..1e-2 --model.features=32,64,128

A trial is a run of `train` in its own folder. Its score is the best value of
the task's metric on the validation set; the test set is not used for selection.
"""

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from experiments import flags
from experiments.choices import flat, to_dict
from experiments.config import Config, from_dict, override, preset, train_line
from experiments.errors import STOPPED, UsageError, exit_code
from experiments.numbers import number
from experiments.run.folder import FREE, content, empty, place_of
from experiments.run.lock import locked
from experiments.run.sealed import read_sealed, write_sealed
from experiments.search import study as studies
from experiments.search.space import Space, read, split, split_flags, with_values
from experiments.search.study import Search

SUMMARY, FIGURE = "sweep.json", "sweep.png"


@dataclasses.dataclass(frozen=True)
class Other:
    """Alternatives to a search."""

    lr_find: bool = False
    """Run a learning-rate range test from 1e-6 to 10 and suggest a rate."""
    seeds: int | None = None
    """Train this many seeds in one program, to measure their variation."""


class Sweep(NamedTuple):
    """A finished sweep.

    A trial is a dict: "trial", its number; "state": "complete", "pruned", "diverged" or
    "failed"; "value" and "step" of its best validation; "parameters" by flag; "why",
    the reason if it was not completed.
    """

    directory: Path
    trials: list[dict[str, Any]]
    best: dict[str, Any] | None
    line: str | None  # the train command of the best trial
    figure: Any


def sweep(
    name: str = "digits",
    *,
    trials: int = 20,
    sampler: str = "tpe",
    pruner: str = "median",
    **options: Any,
) -> Sweep:
    """Searches hyperparameters of a preset, or resumes a search.

    Args:
      name: of the preset.
      trials: total number of trials.
      sampler: "tpe" or "random".
      pruner: "median" or "none".
      **options: as in `train`; a range as a string, or a list, is searched:
        `sweep("digits", optimizer__learning_rate="1e-4..1e-2", model__layers=[1, 2])`.

    Returns:
      A `Sweep`.

    Raises:
      UsageError: nothing to search, or values that are not allowed.
      training.Stopped: by a signal; repeat the call to resume.
    """
    for what, given, known in (
        ("sampler", sampler, ("tpe", "random")),
        ("pruner", pruner, ("median", "none")),
    ):
        if given not in known:
            raise UsageError(f"{what}={given!r}, but it must be {' or '.join(known)}")
    config, searched = split(preset(name), options)
    config, space = read(config, searched)
    return _sweep(name, config, space, Search(trials, sampler, pruner))


def _sweep(name: str, config: Config, space: Space, search: Search) -> Sweep:
    studies.optuna()
    _check(config, space, search)
    directory = place_of(name, config, "runs/sweeps")
    made_of = {
        "preset": name,
        "sampler": search.sampler,
        "pruner": search.pruner,
        "search": {key: str(what) for key, what in space.items()},
        "config": to_dict(config),
    }
    _check_same(directory, made_of, config.overwrite)
    goal, length = _goal(config)

    from experiments.run import record
    from experiments.run.display import Display
    from experiments.search.figures import overview, table
    from lstm_jax import training

    def write(tried, **more):
        found = {"monitor": goal.monitor, "mode": goal.mode, "trials": tried}
        write_sealed(directory / SUMMARY, made_of | found | more)

    display, begun = Display(), _begun(directory, config.overwrite, write)
    with begun, display, studies.opened(directory, goal.mode, search) as study:
        tried = studies.finished(study, space)
        if tried:
            display.note(f"resuming: {len(tried)} of {search.trials} trials are done")
        for trial in studies.trials(study, search, config.seed):
            own = dataclasses.replace(
                with_values(config, studies.draw(trial, space)),
                run_dir=str(directory / f"trial-{trial.number:03d}"),
                overwrite=False,
                baselines=False,
            )
            try:
                state, why = _train_trial(trial, name, own, goal, length, display)
            except training.Stopped as stopped:
                raise training.Stopped(
                    f"stopped by {stopped.signal} in trial {trial.number}, "
                    f"{len(tried)} of {search.trials} done; saved: rerun the same "
                    "command to resume",
                    stopped.signal,
                ) from None
            except ValueError as error:
                # An error in the first trial would occur in all trials.
                if not tried or isinstance(error, training.CheckpointError):
                    raise
                state, why = "failed", str(error)
            finally:
                display.stop()
            studies.end(trial, state, _best_validation(own, goal), why)
            if state == "pruned":  # its weights are not needed
                shutil.rmtree(Path(own.run_dir, "checkpoints"), ignore_errors=True)
            tried = studies.finished(study, space)
            write(tried)
            display.note(_line(tried, trial.number, search.trials, goal))
        importance = studies.importance(study)
    best, line = studies.best_of(tried, goal.mode), None
    if best:
        again = dict(run_dir=str(directory / "best"), overwrite=False)
        chosen = override(with_values(config, best["parameters"]), again)
        line = train_line(name, chosen)
    figure = overview(tried, space, goal.monitor, goal.mode, importance)
    record.save_figure(directory / FIGURE, figure)
    more = dict(best=best, line=line, importance=importance)
    write(tried, **more, environment=record.environment())
    display.note(table(tried, goal.monitor, goal.mode))
    display.note(_conclusion(tried, best, line, goal))
    display.note(f"written to {directory}/: {SUMMARY}, {FIGURE}, trial-…/")
    return Sweep(directory, tried, best, line, figure)


def _check(config: Config, space: Space, search: Search) -> None:
    if not space:
        raise UsageError(
            "nothing to search: give a flag a range, as "
            "--optimizer.learning-rate=1e-4..1e-2, or a list, as "
            "--model.features=32,64,128"
        )
    if search.trials < 1:
        raise UsageError(f"trials={search.trials}, but it must be 1 or more")
    if config.distributed:
        raise UsageError("a sweep does not support --distributed; leave it out")
    if config.folds and config.fold is None:
        raise UsageError("a sweep with --folds needs --fold; give it, or neither")


def _check_same(directory: Path, made_of: dict[str, Any], overwrite: bool) -> None:
    """Checks that the folder is empty or contains the same sweep.

    Raises:
      UsageError: it contains another sweep or other files, or sweep.json is damaged.
    """
    path = directory / SUMMARY
    old = read_sealed(path, "Give another --run-dir")
    if old is None:
        if content(directory):
            raise UsageError(
                f"{directory} contains other files; give another --run-dir"
            )
        return
    if made_of.keys() - old.keys():
        raise UsageError(f"{path} does not describe a sweep; give another --run-dir")
    from_dict(old["config"], path)
    was, now = (
        flat({key: values[key] for key in made_of}) for values in (old, made_of)
    )
    changed = [
        f"{key} was {was.get(key)!r}, is {now.get(key)!r}"
        for key in dict.fromkeys([*was, *now])
        if key.removeprefix("config.") not in FREE and was.get(key) != now.get(key)
    ]
    if changed and not overwrite:
        raise UsageError(
            f"{directory} contains another sweep ({'; '.join(changed)}); start again "
            "with --overwrite, or give another --run-dir"
        )


@contextlib.contextmanager
def _begun(directory: Path, overwrite: bool, write):
    """Holds the lock of a sweep's folder, emptied if asked, with a first summary."""
    with locked(directory):
        if overwrite:
            empty(directory)
        if not (directory / studies.FILE).exists():
            write([])
        yield


def _goal(config: Config):
    """`(task, config -> steps)`; raises for errors in the data before any trial."""
    from experiments.experiment import Experiment, length
    from lstm_jax import training

    training.select_accelerator(config.accelerator)
    experiment = Experiment(config)
    examples = len(experiment.split.inputs)
    return experiment.task, lambda config: length(config, examples)[0]


def _train_trial(trial, name: str, config: Config, goal, length, display):
    """Trains or resumes one trial; returns `(state, reason if not completed)`."""
    import jax

    from experiments.train import _train
    from lstm_jax import training

    steps = length(config)
    report, watched = studies.pruning(trial, goal.monitor, steps), sys.stdout.isatty()

    def on_log(row: dict[str, Any]) -> None:
        if row["split"] == "validation":
            report(row)
        elif watched:
            display.update(row["step"], row)

    if watched:
        display.start(steps)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            _train(name, config, [training.LambdaCallback(on_log=on_log)])
    except studies.optuna().TrialPruned as pruned:
        return "pruned", str(pruned)
    except training.Diverged as error:
        return "diverged", str(error).partition(". Try")[0]
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return "failed", "out of memory"
    return "complete", ""


def _best_validation(config: Config, goal) -> dict[str, Any] | None:
    """{"value", "step"} of a run's best validation, the first one of ties."""
    from experiments.run import record

    pick = max if goal.mode == "max" else min
    rows = [
        {"value": row[goal.monitor], "step": row["step"]}
        for row in record.MetricsLog(config.run_dir).rows()
        if row["split"] == "validation" and row[goal.monitor] is not None
    ]
    return pick(rows, key=lambda row: row["value"], default=None)


def _line(tried: list[dict[str, Any]], trial: int, total: int, goal) -> str:
    """One line about a trial."""
    row = next(row for row in tried if row["trial"] == trial)
    best = studies.best_of(tried, goal.mode)
    words = [f"trial {trial} ({len(tried)} of {total})"]
    if row["value"] is not None:
        words.append(f"{goal.monitor} {number(row['value'], goal.monitor)}")
    if row["state"] != "complete":
        words.append(f"{row['state']}: {row['why']}".removesuffix(": "))
    elif best is row:
        words.append("best so far")
    words.append(" ".join(f"{key}={what}" for key, what in row["parameters"].items()))
    return "  ".join(words)


def _conclusion(tried, best, line, goal) -> str:
    if best is None:
        return f"no trial was completed; the last error: {tried[-1]['why']}"
    return (
        f"best: trial {best['trial']}, validation {goal.monitor} "
        f"{number(best['value'], goal.monitor)} at step "
        f"{best['step']:,}; to train it again:\n{line}"
    )


def parse(arguments: list[str]) -> tuple[str, Config, Space, Search, Other]:
    """Parses the command line: a preset, flags of `train`, and flags of a sweep."""
    name, base, words = flags.begin(arguments)
    searched, words = split_flags(base, words)
    config, (search, other) = flags.read(
        base,
        words,
        Search(),
        Other(),
        prog="python -m experiments.sweep [PRESET]",
        description=__doc__.partition("\n")[2],
    )
    config, space = read(config, searched)
    return name, config, space, search, other


def main(arguments: list[str] | None = None) -> int:
    """The command line.

    Returns:
      The exit code: 0; 1 if no trial was completed; 2 after an error message; 75 if
      SIGTERM and 130 if Ctrl-C stopped it; rerun the command to resume a search.
    """

    def command() -> int:
        name, config, space, search, other = parse(
            sys.argv[1:] if arguments is None else arguments
        )
        instead = ["--lr-find"] * other.lr_find
        instead += ["--seeds"] * (other.seeds is not None)
        rest = instead[1:] + [f"the range of {key}" for key in space]
        if instead and rest:
            raise UsageError(
                f"{instead[0]} excludes a search; leave out {', '.join(rest)}"
            )
        if other.lr_find:
            from experiments.search.learning_rate import find

            find(name, config)
        elif other.seeds is not None:
            from experiments.evaluation.seeds import train_seeds

            train_seeds(name, config, other.seeds)
        else:
            return int(_sweep(name, config, space, search).best is None)
        return 0

    return exit_code(
        command,
        "stopped; rerun the command to resume a search; others start again",
    )


if __name__ == "__main__":
    # Until a training loop handles SIGTERM, there is nothing to save.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    sys.exit(main())
