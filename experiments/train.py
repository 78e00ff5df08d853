"""Trains a recurrent network: `python -m experiments.train [PRESET]`.

In a notebook, call `train("digits", steps=500)`. `_train` sets up an experiment, its
folder and the callbacks, runs the training loop, tests once, and writes the report.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from experiments.config import Config, check, override, preset
from experiments.errors import STOPPED, exit_code
from experiments.evaluation.cross_validation import Folds, train_folds
from experiments.flags import parse_command
from experiments.run.folder import Run, begin, directory_of, underway
from experiments.run.status import reading


def train(name: str = "digits", **options: Any) -> Run | Folds:
    """Trains a preset, or resumes its run.

    Args:
      name: of the preset, such as "digits".
      **options: values to change, named as on the command line, with `__` for the dot:
        `train("digits", steps=500, model__features=128, data="photos/")`.

    Returns:
      A `Run`; `Folds` if `folds` is given without `fold`.

    Raises:
      UsageError: an unknown preset or option, or a value that is not allowed.
    """
    return _train(name, check(override(preset(name), options)))


def _train(name: str, config: Config, callbacks: Sequence = ()) -> Run | Folds:
    """As `train`, with further callbacks for `training.fit`, which may raise."""
    if config.folds and config.fold is None:
        return train_folds(name, config, lambda *own: _train(*own, callbacks))

    with reading(config) as status:
        # Imported here so that `--help` and the first line of text are instant.
        import jax

        from experiments.evaluation.measured import measure
        from experiments.run import data_check, finish, setup
        from experiments.run.callbacks import resume, run_callbacks
        from experiments.run.display import Display, show_profile
        from experiments.run.load_run import checkpoints_of
        from experiments.run.lock import locked
        from experiments.run.record import MetricsLog
        from lstm_jax import training

        directory = directory_of(name, config)
        experiment, mesh = setup.start(config, directory, status=status)
        experiment, changes = data_check.compare(directory, experiment)
        training.barrier("data compared")  # before process 0 writes
        dataset, steps = experiment.dataset, experiment.steps
        step, stop = experiment.train_step(mesh), training.StopSignals()
        feed, evaluate = experiment.feed(), experiment.evaluator(mesh, stop)
        begins = not underway(directory, config)
        status.show("initialising the network")
        params, key, sources = setup.first_weights(experiment, config.seed, begins)
        state = training.init_state(params, experiment.optimizer, key, mesh)
        opening = setup.opening(experiment, mesh, params)

    # Nothing has been written so far; from here on, only process 0 writes.
    writes, log = jax.process_index() == 0, MetricsLog(directory)
    with (
        locked(directory if writes else None),
        checkpoints_of(directory, experiment.task) as checkpoints,
        Display(None if writes else open(os.devnull, "w")) as display,
        stop,
    ):
        if writes:
            directory_of(name, config)  # another process may have been there since
            begin(directory, name, config, experiment.spec)
            data_check.write(directory, experiment, changes)
        training.barrier("run folder created")
        display.notes(opening + changes)
        resumed = resume(experiment, checkpoints, log, state)
        display.notes(resumed.notes if resumed.step else resumed.notes + sources)
        profile = {}
        if config.profile:
            profile = show_profile(display, directory, resumed.state, step, **feed)
        display.start(steps, resumed.step)
        own = run_callbacks(experiment, checkpoints, log, display, resumed)
        state = training.fit(
            resumed.state,
            step,
            steps=steps,
            **feed,
            evaluate=lambda params: evaluate(params, dataset.splits["validation"])[0],
            eval_every=experiment.eval_every,
            evaluate_first=resumed.owed,
            log_every=config.log_every,
            save_every=experiment.eval_every,
            schedule=experiment.schedule,
            should_stop=stop,
            callbacks=[*own, *callbacks],
        )
        reached = int(state.step)
        if not stop.signal:
            state = finish.choose(experiment, checkpoints, display, state)

        # Test, once, at the end.
        final = training.weights(state)
        predictions, facts = measure(experiment, evaluate, final)
        if stop.signal:
            raise training.Stopped(
                f"stopped by {stop.signal} at step {reached:,} of {steps:,}; "
                "saved: rerun the same command to resume",
                stop.signal,
            )
        rows, figures = log.rows() if writes else [], {}
        about = experiment, state, predictions, reached, rows, facts
        report = finish.make_report(*about, compared=writes) | profile
        if writes:
            figures = finish.write(experiment, log, report, predictions, own)
    display.notes(finish.closing_notes(experiment, report, directory, figures))
    return Run(directory, config, report, rows, figures, final)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code.

    It is 0; 1 if --check-data finds a problem; 2 after an error message; 75 if SIGTERM
    and 130 if Ctrl-C stopped the run, which the same command resumes.
    """

    def command() -> int | None:
        given = sys.argv[1:] if arguments is None else arguments
        name, config, actions = parse_command(given)
        if actions.check_data:
            from experiments.run.data_report import report_data

            return report_data(config)
        _train(name, config)

    return exit_code(
        command, "stopped; rerun the same command to resume from the last checkpoint"
    )


if __name__ == "__main__":
    # Until the training loop handles SIGTERM, there is nothing to save.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    sys.exit(main())
