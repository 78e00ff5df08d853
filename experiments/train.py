"""Trains a recurrent network on images: `python -m experiments.train [PRESET]`.

Read from top to bottom: devices, data, model, optimizer, state, loop, test. The same
as a function, `train("digits", steps=500)`, for a notebook.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from experiments.choices import to_dict
from experiments.config import Config, check, override, preset
from experiments.errors import explain
from experiments.evaluation.cross_validation import Folds, train_folds
from experiments.flags import parse
from experiments.run.folder import Run, directory_of, empty, steady_rate, underway

# Of the exit: told to stop, all is saved, the same line goes on (EX_TEMPFAIL).
STOPPED = 75


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

    from experiments import optimization
    from experiments.evaluation import baselines
    from experiments.experiment import Experiment
    from experiments.run import record
    from experiments.run.display import Display, profile_line, summary_table
    from experiments.run.init_from import known_labels, weights_from
    from experiments.run.tensorboard import Board
    from lstm_jax import data, training
    from lstm_jax.figures import curves

    # Devices, of this process and of all others.
    if config.distributed:
        training.start_processes(
            config.coordinator, config.processes, config.process_id
        )
    else:
        training.split_cpu()
    directory = directory_of(name, config)
    experiment = Experiment(config, labels=known_labels(config, directory))
    devices = training.select_accelerator(config.accelerator)
    # A core with few examples waits for the others longer than it works, unless
    # images are convolved.
    examples = config.batch_size // config.grad_accum_steps
    least = 1 if experiment.model_kind.convolves(config) else 32
    devices = training.enough_cores(devices, examples, least=least)
    training.check_batch_size(config.batch_size, len(devices), config.grad_accum_steps)
    mesh = training.data_mesh(devices)
    share = jax.process_index(), jax.process_count()
    writes = jax.process_index() == 0
    if config.compilation_cache:
        training.keep_compiled(data.default_root() / "compiled")

    # Data: uint8 pictures in memory, normalised on the device. Task, model, optimizer.
    dataset, spec, task = experiment.dataset, experiment.spec, experiment.task
    validation, steps = dataset.splits["validation"], experiment.steps
    eval_every, schedule = experiment.eval_every, experiment.schedule
    feed = dict(
        batch_at=experiment.batches(share),
        per_dispatch=experiment.per_dispatch,
        read=map if experiment.resident else data.prefetch,
    )
    step = training.make_train_step(
        experiment.loss,
        experiment.optimizer,
        mesh,
        optimization.parallel(config, devices),
        data=experiment.resident_data(),
        accumulate=config.grad_accum_steps,
    )
    eval_step = training.make_eval_step(experiment.evaluate, mesh)
    key_params, key_run = jax.random.split(jax.random.key(config.seed))
    begins = not underway(directory, config)
    params = experiment.init(key_params, pretrained=begins)
    params, warm = weights_from(config.init_from if begins else None, spec, params)
    state = training.init_state(params, experiment.optimizer, key_run, mesh)
    stop = training.StopSignals()

    def evaluate(params, split):
        options = dict(devices=len(devices), share=share, stop=stop)
        return experiment.evaluate_split(eval_step, params, split, **options)

    # From here on something is written, by the first process.
    if writes:
        if config.overwrite:
            empty(directory)
        directory.mkdir(parents=True, exist_ok=True)
        record.write_json(
            directory / "config.json",
            {
                "preset": name,
                "config": to_dict(config),
                "data": dataclasses.asdict(spec),
            },
        )
    training.wait_for_all("the run's folder is there")
    log = record.MetricsLog(directory)
    display = Display(None if writes else open(os.devnull, "w"))
    with (
        training.Checkpoints(
            directory / "checkpoints", monitor=task.monitor, mode=task.mode
        ) as checkpoints,
        display,
        stop,
    ):
        for line in dataset.notes:
            display.note(line)
        if config.optimizer.schedule.warmup_steps > steps // 2:
            display.note(f"a short run: its warm-up is cut to {steps // 2} steps")
        kind = "pictures" if spec.pictures else "clips"
        kind = "lines" if experiment.kind.bucketed else kind
        sizes = {name: len(split.inputs) for name, split in dataset.splits.items()}
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        display.note(
            f"{dataset.name}: {sizes['train']:,} training, {sizes['validation']:,} "
            f"validation and {sizes['test']:,} test {kind} of "
            f"{'x'.join(map(str, dataset.image_shape))}; {count:,} parameters on "
            f"{len(devices)} {devices[0].platform} device(s)"
        )
        restored, start, notes = checkpoints.restore_latest(state)
        for line in notes:
            display.note(line)
        start = start or 0
        for line in () if start else warm:
            display.note(line)
        if start:
            state = restored
            display.note(f"resuming at step {start:,} of {steps:,}")
        due = start == steps or start % eval_every == 0
        owed = bool(start and due and not checkpoints.evaluated(start))
        if writes:
            log.truncate_after(start)
        profile = None
        if config.profile:
            profile = training.profile(
                state, step, trace=str(directory / "profile"), **feed
            )
            display.note(profile_line(profile))
        display.start(steps, start)
        seen = [row for row in log.rows() if row["step"] <= start]
        board = None
        if config.tensorboard and writes:
            board = Board(directory, start, seen)
        listeners = [log.append] if writes else []
        listeners += [board.append] if board else []
        listeners += [lambda row: display.update(row["step"], row)]
        stopping = training.EarlyStopping(
            task.monitor,
            task.mode,
            config.early_stopping_patience,
            min_delta=config.min_delta,
            rows=seen,
        )

        def save(at, state, metrics):
            values = to_dict(config)
            checkpoints.save(at, state, values, metrics, force=at == start)

        state = training.fit(
            state,
            step,
            steps=steps,
            **feed,
            evaluate=lambda params: evaluate(params, validation)[0],
            eval_every=eval_every,
            evaluate_first=owed,
            log_every=config.log_every,
            save_every=eval_every,
            schedule=schedule,
            should_stop=stop,
            callbacks=[
                *(training.LambdaCallback(on_log=listener) for listener in listeners),
                stopping,
                *optimization.plateau(config, task),
                training.LambdaCallback(on_save=save),
                *callbacks,
            ],
        )
        reached = int(state.step)
        if reached < steps and not stop.signal:
            display.note(
                f"ended early at step {reached:,}: {config.early_stopping_patience} "
                f"validations without a better {task.monitor}; the best checkpoint is "
                "tested"
            )
        chosen = checkpoints.best_step() if config.tests_best else reached
        if chosen != reached and not stop.signal:
            state = checkpoints.restore(state, chosen)
        final = training.weights(state)

        # Test, once, at the end.
        test = dataset.splits["test"]
        _, predictions = evaluate(final, test)
        others = {
            name: evaluate(final, split)[1]
            for name, split in (dataset.more or {}).items()
        }
        if stop.signal:
            raise training.Stopped(
                f"stopped by {stop.signal} at step {reached:,} of {steps:,}; "
                "saved: the same line goes on from there",
                stop.signal,
            )
        rows = log.rows() if writes else []
        known = experiment.aligned(test, predictions)
        more = {
            name: task.report(*experiment.aligned(dataset.more[name], found))
            for name, found in others.items()
        }
        report = {
            "test": task.report(*known) if len(known[1]) else {"examples": 0},
            **more,
            "data": {"examples": sizes, "notes": list(dataset.notes)},
            "train": {
                "steps": reached,
                "checkpoint": int(chosen),
                "images": sizes["train"],
                "images_per_second": steady_rate(rows),
            },
            "model": {"parameters": count},
            "baselines": (
                baselines.fit(dataset) if config.baselines and writes else {}
            ),
            "environment": record.environment(),
        }
        if profile:
            report["profile"] = profile
        figures = {}
        if writes:
            figures = task.figures(*known) if len(known[1]) else {}
            figures["curves"] = curves(rows)
            record.write_json(directory / "report.json", report)
            for title, figure in figures.items():
                record.save_figure(directory / f"{title}.png", figure)
            experiment.kind.save_outputs(experiment, predictions, directory)
            if board:
                board.finish(reached, report["test"], sorted(directory.glob("*.png")))
            log.write_csv()
    if report["test"].get("known", report["test"]["examples"]):
        scores = report["test"] | {"baselines": report["baselines"]}
        table = summary_table(scores, experiment.kind.metrics)
    else:
        table = "no test example has a label: there is nothing to score"
    display.note(table)
    display.note(
        f"written to {directory}/: report.json and {', '.join(figures)} (.png)"
    )
    return Run(directory, config, report, rows, figures, final)


def main(arguments: list[str] | None = None) -> int:
    """The command line.

    Returns:
      The exit code: 0; 2 with one clear message; 75 if SIGTERM, 130 if Ctrl-C stopped
      the run: the same line goes on from where it was saved.
    """
    try:
        name, config = parse(sys.argv[1:] if arguments is None else arguments)
        _train(name, config)
    except KeyboardInterrupt:
        print("stopped; the same line goes on from the last checkpoint")
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        from lstm_jax import training

        if isinstance(error, training.Stopped):
            print(error)
            return STOPPED if error.signal == "SIGTERM" else 130
        print(training.lost_process(error) or explain(error), file=sys.stderr)
        training.leave_processes(2)
        return 2
    return 0


if __name__ == "__main__":
    # Until the loop hears it, there is nothing to save.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    sys.exit(main())
