"""Trains a recurrent network on images: `python -m experiments.train [PRESET]`.

Read from top to bottom: the experiment, its folder, callbacks, loop, test, report. The
same as a function, `train("digits", steps=500)`, for a notebook.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from experiments.config import Config, check, override, preset
from experiments.errors import STOPPED, exit_code
from experiments.evaluation.cross_validation import Folds, train_folds
from experiments.flags import parse
from experiments.run.folder import Run, begin, directory_of, underway


def train(name: str = "digits", **options: Any) -> Run | Folds:
    """Trains a preset.

    Args:
      name: of the preset, such as "digits".
      **options: values to change, as on the command line, `__` for the dot:
        `train("digits", steps=500, model__features=128, data="photos/")`.

    Returns:
      A `Run`; with `folds` alone, `Folds`.
    """
    return _train(name, check(override(preset(name), options)))


def _train(name: str, config: Config, callbacks: Sequence = ()) -> Run | Folds:
    """As `train`; `callbacks` are more ones of `training.fit`, which may raise."""
    if config.folds and config.fold is None:
        return train_folds(name, config, lambda *own: _train(*own, callbacks))

    # Imported here so that `--help` is instant.
    import jax

    from experiments.evaluation.measured import measure
    from experiments.run import finish, setup
    from experiments.run.callbacks import resume, run_callbacks
    from experiments.run.display import Display, closing, findings, profile_line
    from experiments.run.load_run import checkpoints_of
    from experiments.run.record import MetricsLog
    from lstm_jax import training

    directory = directory_of(name, config)
    experiment, mesh = setup.start(config, directory)
    dataset, steps = experiment.dataset, experiment.steps
    step, stop = experiment.train_step(mesh), training.StopSignals()
    feed, evaluate = experiment.feed(), experiment.evaluator(mesh, stop)
    begins = not underway(directory, config)
    params, key, sources = setup.first_weights(experiment, config.seed, begins)
    state = training.init_state(params, experiment.optimizer, key, mesh)

    # From here on something is written, by the first process.
    writes = jax.process_index() == 0
    if writes:
        begin(directory, name, config, experiment.spec)
    training.barrier("the run's folder is there")
    log = MetricsLog(directory)
    with (
        checkpoints_of(directory, experiment.task) as checkpoints,
        Display(None if writes else open(os.devnull, "w")) as display,
        stop,
    ):
        display.notes(setup.opening(experiment, mesh, params))
        resumed = resume(experiment, checkpoints, log, state)
        display.notes(resumed.notes if resumed.step else resumed.notes + sources)
        profile = {}
        if config.profile:
            trace = str(directory / "profile")
            found = training.profile(resumed.state, step, trace=trace, **feed)
            display.note(profile_line(found))
            profile = {"profile": found}
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
        report = finish.make_report(
            experiment, state, predictions, reached, rows, facts, compared=writes
        )
        report |= profile
        if writes:
            figures = finish.write(experiment, log, report, predictions, own)
    display.note(closing(experiment, report))
    display.notes(findings(report))
    display.note(
        f"written to {directory}/: report.json and {', '.join(figures)} (.png)"
    )
    return Run(directory, config, report, rows, figures, final)


def main(arguments: list[str] | None = None) -> int:
    """The command line.

    Returns:
      The exit code: 0; 2 with one clear message; 75 if SIGTERM, 130 if Ctrl-C stopped
      the run: rerun the same command to resume it.
    """

    def command() -> None:
        _train(*parse(sys.argv[1:] if arguments is None else arguments))

    return exit_code(
        command, "stopped; rerun the same command to resume from the last checkpoint"
    )


if __name__ == "__main__":
    # Until the loop hears it, there is nothing to save.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    sys.exit(main())
