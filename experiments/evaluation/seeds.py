"""Many seeds of one training in one program: `sweep PRESET --seeds=8`.

The seeds differ in what a seed decides, their first weights, order of examples and
noise, and share data and split. Each ends as a run in a folder of its own, equal to
that of `train --seed=S`; a seed's own checkpoints and pictures on the way are left out.
On text lines each seed has a sequence of widths of its own; see `make_seeds_step`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.choices import flat, to_dict
from experiments.config import Config
from experiments.errors import UsageError
from experiments.evaluation.measured import tested_splits
from experiments.experiment import Experiment
from experiments.options import Plateau
from experiments.run import record, setup
from experiments.run.display import Display
from experiments.run.finish import make_report
from experiments.run.folder import begin, empty, place_of, spread
from experiments.run.load_run import checkpoints_of
from experiments.run.loggers import LOGGERS
from lstm_jax import data, training
from lstm_jax.training.checkpoint import rank

SUMMARY = "seeds.json"


def train_seeds(name: str, config: Config, seeds: int) -> dict[str, Any]:
    """Trains seeds `config.seed …` side by side.

    Args:
      name: of the preset.
      config: of the first seed.
      seeds: S; a multiple of the number of devices, which share them.

    Returns:
      What is written to seeds.json: "seeds", and for each test metric its "values",
      their "mean" and "sd" (with S - 1).

    Raises:
      UsageError: an option that lets seeds go different ways, or a folder that holds
        something.
    """
    _check(config, seeds)
    directory = _directory(name, config)
    experiment, mesh = setup.start(config, directory, seeds)
    if seeds % mesh.size:
        raise UsageError(
            f"{seeds} seeds do not share {mesh.size} devices evenly; give a "
            f"multiple, such as --seeds={-(-seeds // mesh.size) * mesh.size}"
        )
    each = [config.seed + number for number in range(seeds)]
    firsts = [setup.first_weights(experiment, seed) for seed in each]
    params, keys, _ = zip(*firsts, strict=True)
    tx, dataset = experiment.optimizer, experiment.dataset
    step = training.make_seeds_step(
        experiment.loss,
        tx,
        mesh,
        data=experiment.resident_data(),
        accumulate=config.grad_accum_steps,
        widths=experiment.training_widths,
    )
    evaluate_one = experiment.evaluator(mesh)
    states = training.init_seeds(params, tx, jax.numpy.stack(keys))
    feed = experiment.feed() | dict(batch_at=_batches(experiment, each))

    def evaluate(params):
        apart = _apart(jax.device_get(params), seeds)
        means = [evaluate_one(p, dataset.splits["validation"])[0] for p in apart]
        return {name: [each[name] for each in means] for name in means[0]}

    # From here on something is written.
    if config.overwrite:
        empty(directory)
    with Display() as display:
        display.notes(dataset.notes)
        display.note(f"{dataset.name}: seeds {each[0]} to {each[-1]} side by side")
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
        reports, tested = [], tested_splits(dataset).items()
        for number, seed in enumerate(each):
            one = dataclasses.replace(config, seed=seed, run_dir=None, overwrite=False)
            folder, (state, metrics) = directory / f"seed-{seed}", kept.chosen[number]
            begin(folder, name, one, experiment.spec)
            log = record.MetricsLog(folder)
            for row in kept.rows[number]:
                log.append(row)
            log.write_csv()
            with checkpoints_of(folder, experiment.task) as checkpoints:
                checkpoints.save(
                    int(state.step), state, to_dict(one), metrics, force=True
                )
            final = training.weights(state)
            predictions = {n: evaluate_one(final, split)[1] for n, split in tested}
            report = make_report(experiment, state, predictions, experiment.steps)
            record.write_json(folder / "report.json", report)
            reports.append(flat(report["test"]))
        summary = {"preset": name, "seeds": each, "test": spread(reports)}
        record.write_json(directory / SUMMARY, summary)
        for metric, found in summary["test"].items():
            values = "  ".join(f"{value:.4f}" for value in found["values"])
            display.note(
                f"{metric}: {found['mean']:.4f} ± {found['sd']:.4f}   {values}"
            )
        each_step = 1e3 * kept.seconds / experiment.steps
        display.note(
            f"a step of {seeds} seeds took {each_step:.3g} ms, of one "
            f"{each_step / seeds:.3g} ms; the training of all {kept.seconds:.3g} s, of "
            f"one {kept.seconds / seeds:.3g} s"
        )
        display.note(f"written to {directory}/: seeds.json, and a run for each seed")
    return summary


class _Kept(training.Callback):
    """What is kept of each seed: its rows, and its best or last state and metrics.

    Attributes:
      rows: of each seed.
      chosen: of each seed `(state, metrics)`.
      seconds: that the training of all took.
    """

    saves = True

    def __init__(self, experiment: Experiment, keys, display: Display):
        self._config, self._task = experiment.config, experiment.task
        self._keys, self._display, self._step = keys, display, 0
        self.rows, self.chosen = [[] for _ in keys], [None for _ in keys]
        self.seconds = 0.0

    def on_log(self, row):
        row = dict(row)
        if rate := row.pop("images_per_second", None):  # to `fit` a seed is an image
            self.seconds += (row["step"] - self._step) * len(self._keys) / rate
            self._step = row["step"]
        for number, rows in enumerate(self.rows):
            rows.append(_map_lists(lambda x, n=number: x[n], row))
        self._display.update(row["step"], _map_lists(np.mean, row))

    def on_save(self, step, state, metrics):
        states = _apart(jax.device_get(state._replace(key=None)), len(self._keys))
        monitor, sign = self._task.monitor, 1 if self._task.mode == "max" else -1
        for number, own in enumerate(states):
            mine, best = _map_lists(lambda x, n=number: x[n], metrics), True
            if self._config.tests_best and self.chosen[number]:
                before = rank(self.chosen[number][1], monitor, sign)
                best = rank(mine, monitor, sign) >= before
            if best:
                self.chosen[number] = own._replace(key=self._keys[number]), mine


def _apart(tree: Any, seeds: int) -> list[Any]:
    """A tree of leaves [S, ...] as one a seed."""
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
                f"{option} lets seeds go ways of their own, which --seeds cannot; "
                "train them one by one"
            )
    for option in ("distributed", "folds", *LOGGERS, "profile"):
        if getattr(config, option):
            raise UsageError(f"{option} is of a single run; leave it out with --seeds")


def _directory(name: str, config: Config) -> Path:
    directory = place_of(name, config)
    if config.run_dir is None:
        directory = directory.with_name(f"{directory.name}-seeds")
    if not directory.is_dir() or not any(directory.iterdir()):
        return directory
    if not ((directory / SUMMARY).exists() or any(directory.glob("seed-*"))):
        raise UsageError(
            f"{directory} holds files, but no seeds; give another --run-dir"
        )
    if not config.overwrite:
        raise UsageError(
            f"{directory} holds seeds, which do not go on. Start anew with "
            "--overwrite, or give another --run-dir"
        )
    return directory
