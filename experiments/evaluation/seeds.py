"""Multi-seed training in one program: `sweep PRESET --seeds=8`.

Seeds differ in initial weights, order of examples and noise, and share the data and its
split. Each becomes a run in its own folder, with the numbers of `train --seed=S`, but
without intermediate checkpoints and figures. With lines of text, each seed has its own
sequence of padded widths; see `make_seeds_step`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.choices import flat, to_dict
from experiments.config import Config
from experiments.errors import UsageError
from experiments.evaluation import baselines
from experiments.evaluation.measured import measure
from experiments.experiment import Experiment
from experiments.numbers import mean_and_sd, number
from experiments.options import Plateau
from experiments.run import data_check, record, setup
from experiments.run.display import Display, counted_diagnoses
from experiments.run.finish import make_report
from experiments.run.folder import begin, content, empty, place_of, run_files, spread
from experiments.run.load_run import checkpoints_of
from experiments.run.lock import locked
from experiments.run.loggers import LOGGERS
from experiments.run.sealed import write_sealed
from lstm_jax import data, training
from lstm_jax.training.checkpoint import rank

SUMMARY = "seeds.json"


def train_seeds(name: str, config: Config, seeds: int) -> dict[str, Any]:
    """Trains the seeds `config.seed, config.seed + 1, …` in parallel.

    Args:
      name: of the preset.
      config: of the first seed.
      seeds: S, a multiple of the number of devices.

    Returns:
      The contents of seeds.json: "preset", "seeds", and in "test" and "baselines" for
      each metric its "values", "mean" and "sd" (with S - 1).

    Raises:
      UsageError: an option that --seeds does not support, or a folder that is not
        empty.
    """
    _check(config, seeds)
    directory = _directory(name, config)
    experiment, mesh = setup.start(config, directory, seeds)
    if seeds % mesh.size:
        raise UsageError(
            f"--seeds={seeds} is not a multiple of the {mesh.size} devices; use "
            f"--seeds={-(-seeds // mesh.size) * mesh.size}"
        )
    each = [config.seed + index for index in range(seeds)]
    firsts = [setup.first_weights(experiment, seed) for seed in each]
    params, keys, _ = zip(*firsts, strict=True)
    tx, dataset = experiment.optimizer, experiment.dataset
    step = training.make_seeds_step(
        experiment.loss,
        tx,
        mesh,
        data=experiment.resident_data(),
        grad_accum_steps=config.grad_accum_steps,
        widths=experiment.training_widths,
    )
    evaluate_one = experiment.evaluator(mesh)
    states = training.init_seeds(params, tx, jax.numpy.stack(keys))
    feed = experiment.feed() | dict(batch_at=_batches(experiment, each))

    def evaluate(params):
        apart = _apart(jax.device_get(params), seeds)
        means = [evaluate_one(p, dataset.splits["validation"])[0] for p in apart]
        return {name: [each[name] for each in means] for name in means[0]}

    # Nothing has been written so far.
    with locked(directory), Display() as display:
        if config.overwrite:
            empty(directory)
        display.notes([*dataset.notes, *experiment.duplicates.lines()])
        display.note(f"{dataset.name}: seeds {each[0]} to {each[-1]} in parallel")
        display.start(experiment.steps)
        kept = _Kept(experiment, keys, display)
        training.fit(
            states,
            step,
            steps=experiment.steps,
            **feed,
            evaluate=evaluate,
            eval_every=experiment.eval_every,
            log_every=config.log_every,
            schedule=experiment.schedule,
            callbacks=[kept],
        )
        reports, fitted = [], baselines.fit(experiment)
        for index, seed in enumerate(each):
            one = dataclasses.replace(config, seed=seed, run_dir=None, overwrite=False)
            folder, (state, metrics) = directory / f"seed-{seed}", kept.chosen[index]
            begin(folder, name, one, experiment.spec)
            data_check.write(folder, experiment)
            log = record.MetricsLog(folder)
            content = b""  # of metrics.jsonl, up to the step that is kept
            for row in kept.rows[index]:
                log.append(row)
                content = log.content() if row["step"] <= state.step else content
            log.write_csv()
            with checkpoints_of(folder, experiment.task) as checkpoints:
                files = run_files(folder) | {log.path.name: content}
                save = int(state.step), state, to_dict(one), metrics
                checkpoints.save(*save, force=True, files=files)
            final = training.weights(state)
            predictions, facts = measure(experiment, evaluate_one, final)
            about = experiment, state, predictions, experiment.steps, (), facts
            reports.append(make_report(*about, compared=True, baselines=fitted))
            write_sealed(folder / "report.json", reports[-1])
        summary = {"preset": name, "seeds": each} | {
            part: spread([flat(report[part]) for report in reports])
            for part in ("test", "baselines")
        }
        write_sealed(directory / SUMMARY, summary)
        for metric, found in summary["test"].items():
            values = "  ".join(number(value, metric) for value in found["values"])
            mean = mean_and_sd(found["mean"], found["sd"], metric)
            display.note(f"{metric}: {mean}   {values}")
        display.notes(counted_diagnoses(reports, "seeds"))
        each_step = 1e3 * kept.seconds / experiment.steps
        display.note(
            f"{each_step:.3g} ms per step of {seeds} seeds, {each_step / seeds:.3g} ms "
            f"per seed; {kept.seconds:.3g} s of training, {kept.seconds / seeds:.3g} s "
            "per seed"
        )
        display.note(f"written to {directory}/: seeds.json and a run for each seed")
    return summary


class _Kept(training.Callback):
    """Collects the metrics of each seed, and its best or last state.

    Attributes:
      rows: of metrics, for each seed.
      chosen: `(state, metrics)` of the state to test, for each seed.
      seconds: of training, for all seeds together.
    """

    saves = True

    def __init__(self, experiment: Experiment, keys, display: Display):
        self._config, self._task = experiment.config, experiment.task
        self._keys, self._display, self._step = keys, display, 0
        self.rows, self.chosen = [[] for _ in keys], [None for _ in keys]
        self.seconds = 0.0

    def on_log(self, row):
        row = dict(row)
        if rate := row.pop("images_per_second", None):  # `fit` counts a seed as one
            self.seconds += (row["step"] - self._step) * len(self._keys) / rate
            self._step = row["step"]
        for index, rows in enumerate(self.rows):
            rows.append(_map_lists(lambda x, n=index: x[n], row))
        self._display.update(row["step"], _map_lists(np.mean, row))

    def on_save(self, step, state, metrics):
        states = _apart(jax.device_get(state._replace(key=None)), len(self._keys))
        monitor, sign = self._task.monitor, 1 if self._task.mode == "max" else -1
        for index, own in enumerate(states):
            mine, best = _map_lists(lambda x, n=index: x[n], metrics), True
            if self._config.tests_best and self.chosen[index]:
                before = rank(self.chosen[index][1], monitor, sign)
                best = rank(mine, monitor, sign) >= before
            if best:
                self.chosen[index] = own._replace(key=self._keys[index]), mine


def _apart(tree: Any, seeds: int) -> list[Any]:
    """Splits a pytree with leaves [S, ...] into one pytree per seed."""
    return [jax.tree.map(lambda x, n=n: x[n], tree) for n in range(seeds)]


def _map_lists(function, row: dict[str, Any]) -> dict[str, Any]:
    return {k: function(x) if isinstance(x, list) else x for k, x in row.items()}


def _batches(experiment: Experiment, each: list[int]):
    """`step -> batch [S, B, ...]`."""
    batch_of = [experiment.batches(seed=seed) for seed in each]
    widths = experiment.training_widths

    def batch_at(step):
        batches = [batch_at(step) for batch_at in batch_of]
        if widths:
            batches = [data.pad_to_widest(batch, widths) for batch in batches]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    return batch_at


def _check(config: Config, seeds: int) -> None:
    if seeds < 2:
        raise UsageError(f"seeds={seeds}: for one seed use experiments.train")
    alone = {
        "early_stopping_patience": config.early_stopping_patience,
        "optimizer.schedule=plateau": isinstance(config.optimizer.schedule, Plateau),
        "parallel=pmap": config.parallel == "pmap",
    }
    for option, given in alone.items():
        if given:
            raise UsageError(
                f"--seeds does not support {option}, which differs between seeds; "
                "train them one by one"
            )
    if config.seed + seeds > 2**32:
        raise UsageError(
            f"--seeds={seeds} from seed={config.seed} on: seeds must be below 2**32"
        )
    for option in ("distributed", "folds", *LOGGERS, "profile"):
        if getattr(config, option):
            raise UsageError(f"--seeds does not support {option}; leave it out")


def _directory(name: str, config: Config) -> Path:
    directory = place_of(name, config)
    if config.run_dir is None:
        directory = directory.with_name(f"{directory.name}-seeds")
    if not content(directory):
        return directory
    if not ((directory / SUMMARY).exists() or any(directory.glob("seed-*"))):
        raise UsageError(f"{directory} contains other files; give another --run-dir")
    if not config.overwrite:
        raise UsageError(
            f"{directory} contains seeds, which cannot be resumed; start again with "
            "--overwrite, or give another --run-dir"
        )
    return directory
