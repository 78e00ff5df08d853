"""The callbacks of a run, and how it is resumed."""

from typing import Any, NamedTuple

import jax

from experiments import optimization
from experiments.choices import to_dict
from experiments.experiment import Experiment
from experiments.run.display import Display
from experiments.run.loggers import make_loggers
from experiments.run.record import MetricsLog
from lstm_jax import training


class Resumed(NamedTuple):
    """The point from which a run is resumed.

    Attributes:
      state: of the latest readable checkpoint, or the initial state.
      step: of the state.
      owed: whether the validation at this step is missing.
      rows: of metrics.jsonl up to `step`; later rows are deleted.
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
    """Restores the latest checkpoint; `state` is the initial state."""
    restored, step, notes = checkpoints.restore_latest(state)
    owed = False
    if step:
        due = step == experiment.steps or step % experiment.eval_every == 0
        state, owed = restored, due and not checkpoints.evaluated(step)
        notes.append(f"resuming at step {step:,} of {experiment.steps:,}")
    step = step or 0
    if jax.process_index() == 0:
        log.truncate_after(step)
    rows = [row for row in log.rows() if row["step"] <= step]
    return Resumed(state, step, owed, rows, notes)


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
        checkpoints.save(step, state, to_dict(config), metrics, force=step == start)

    on_log = [log.append] * writes + [lambda row: display.update(row["step"], row)]
    return [
        *(training.LambdaCallback(on_log=listener) for listener in on_log),
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
