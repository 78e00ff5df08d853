"""The callbacks of a run, and how it is resumed."""

from typing import Any, NamedTuple

import jax

from experiments import optimization
from experiments.choices import to_dict
from experiments.experiment import Experiment
from experiments.run.display import Display
from experiments.run.extend import extension
from experiments.run.folder import check_same, run_files
from experiments.run.load_run import check_best
from experiments.run.loggers import make_loggers
from experiments.run.record import MetricsLog, parse_rows
from lstm_jax import training


class Resumed(NamedTuple):
    """The point from which a run is resumed.

    Attributes:
      state: the state in the latest readable checkpoint, or the initial state.
      step: the step of the state.
      owed: whether the validation at this step still has to be done.
      rows: rows of metrics.jsonl up to `step`; later rows are deleted.
      notes: lines to print.
    """

    state: training.TrainState
    step: int
    owed: bool
    rows: list[dict[str, Any]]
    notes: list[str]


def resume(
    experiment: Experiment, checkpoints: Any, log: MetricsLog, state: Any
) -> Resumed:
    """Restores the latest checkpoint; `state` is the initial state.

    Raises:
      UsageError: the best checkpoint is damaged or missing, or the latest one was
        saved with another configuration.
    """
    restored, step, notes = checkpoints.restore_latest(state)
    owed, content = False, b""
    if step:
        saved, where = checkpoints.config(step), log.path.parent
        check_same(saved, experiment.config, where)
        if extended := extension(saved, experiment, where):
            notes.append(extended)
        content = checkpoints.file(log.path.name, step)
    rows = list(parse_rows(content, log.path))
    if step:
        check_best(checkpoints, experiment.config, rows)
        due = step == experiment.steps or step % experiment.eval_every == 0
        state, owed = restored, due and not checkpoints.evaluated(step)
        notes.append(f"resuming at step {step:,} of {experiment.steps:,}")
    if jax.process_index() == 0 and (damage := log.restore(content)):
        notes.insert(0, damage)
    return Resumed(state, step or 0, owed, rows, notes)


def run_callbacks(
    experiment: Experiment,
    checkpoints: Any,
    log: MetricsLog,
    display: Display,
    resumed: Resumed,
) -> list[training.Callback]:
    """Callbacks for metrics, display, early stopping, plateau, checkpoints, loggers."""
    config, task = experiment.config, experiment.task
    writes, start = jax.process_index() == 0, resumed.step

    def save(step, state, metrics):
        again, files = step == start, run_files(log.path.parent)
        checkpoints.save(step, state, to_dict(config), metrics, again, files)

    on_log = [log.append] * writes + [lambda row: display.update(row["step"], row)]
    return [
        *(training.LambdaCallback(on_log=listener) for listener in on_log),
        training.LambdaCallback(on_progress=display.progress),
        training.EarlyStopping(
            task.monitor,
            task.mode,
            config.early_stopping_patience,
            min_delta=config.min_delta,
            rows=resumed.rows,
        ),
        *optimization.plateau(config, task),
        training.LambdaCallback(on_save=save),
        *(make_loggers(config, log.path.parent, start, resumed.rows) if writes else ()),
    ]
