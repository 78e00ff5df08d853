"""Many seeds of one training in one program: `sweep PRESET --seeds=8`.

The seeds differ in what a seed decides, their first weights, order of examples and
noise, and share data and split. Each ends as a run in a folder of its own, equal to
that of `train --seed=S`; a seed's own checkpoints and pictures on the way are left out.
On text lines each seed has a sequence of widths of its own; see `make_seeds_step`.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

from experiments.choices import flat, to_dict
from experiments.config import Config
from experiments.errors import UsageError
from experiments.options import Plateau
from experiments.run.folder import empty, place_of, spread

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
    import jax
    import numpy as np

    from experiments.experiment import Experiment
    from experiments.run import record
    from experiments.run.display import Display
    from experiments.run.init_from import known_labels, weights_from
    from lstm_jax import data, training

    _check(config, seeds)
    training.split_cpu()
    devices = training.select_accelerator(config.accelerator)
    devices = training.enough_cores(devices, seeds)
    if seeds % len(devices):
        raise UsageError(
            f"{seeds} seeds do not share {len(devices)} devices evenly; give a "
            f"multiple, such as --seeds={-(-seeds // len(devices)) * len(devices)}"
        )
    mesh = training.data_mesh(devices)
    directory = _directory(name, config)
    if config.compilation_cache:
        training.keep_compiled(data.default_root() / "compiled")

    experiment = Experiment(config, labels=known_labels(config, directory))
    dataset, spec, task = experiment.dataset, experiment.spec, experiment.task
    validation, steps = dataset.splits["validation"], experiment.steps
    eval_every, schedule = experiment.eval_every, experiment.schedule
    widths, per_dispatch = experiment.training_widths, experiment.per_dispatch
    each = [config.seed + number for number in range(seeds)]
    batch_of = [experiment.batches(seed=seed) for seed in each]

    def batch_at(number, at):
        batch = batch_of[number](at)
        return data.pad_to_widest(batch, widths) if widths else batch

    tx = experiment.optimizer
    step = training.make_seeds_step(
        experiment.loss,
        tx,
        mesh,
        data=experiment.resident_data(),
        accumulate=config.grad_accum_steps,
        widths=widths,
    )
    eval_step = training.make_seeds_eval(experiment.evaluate, mesh)
    params, keys = [], []
    for seed in each:
        key_params, key_run = jax.random.split(jax.random.key(seed))
        params_of = experiment.init(key_params, pretrained=True)
        params.append(weights_from(config.init_from, spec, params_of)[0])
        keys.append(key_run)
    states = training.init_seeds(params, tx, jax.numpy.stack(keys))
    matrices = training.matrix_names(params[0])

    def evaluate(weights, split):
        """Means `{name: [S]}` and predictions `[S, N, …]` of a split."""
        sums, predictions = {}, []
        for batch in experiment.eval_batches(split):
            metrics, outputs = jax.device_get(eval_step(weights, batch))
            predictions.append(outputs)
            for metric, pair in metrics.items():
                sums[metric] = sums.get(metric, 0) + np.asarray(pair, np.float64)
        ordered = [
            experiment.in_order(split, [p[number] for p in predictions])
            for number in range(seeds)
        ]
        return {k: total / n for k, (total, n) in sums.items()}, np.stack(ordered)

    # From here on something is written.
    if config.overwrite:
        empty(directory)
    sign = 1 if task.mode == "max" else -1
    best, chosen = np.full(seeds, -np.inf), [None] * seeds
    rows: list[list[dict]] = [[] for _ in each]
    with Display() as display:
        for line in dataset.notes:
            display.note(line)
        display.note(f"{dataset.name}: seeds {each[0]} to {each[-1]} side by side")
        display.start(steps)
        carried, at, window, seconds = step.put_state(states), 0, [], 0.0
        stacked = [
            training.stacker(functools.partial(batch_at, number), per_dispatch)
            for number in range(seeds)
        ]
        while at < steps:
            count = min(per_dispatch, steps - at)
            count = min(count, *(e - at % e for e in (eval_every, config.log_every)))
            parts = [batches(range(at, at + count)) for batches in stacked]
            batches = {key: np.stack([p[key] for p in parts]) for key in parts[0]}
            if not at:  # compiles
                held = step.run(carried, step.put_batches(batches), 0)
                carried, _ = jax.block_until_ready(held)
            since = time.perf_counter()
            carried, metrics = step.run(carried, step.put_batches(batches), count)
            window.append({k: np.asarray(v)[:, :, :count] for k, v in metrics.items()})
            seconds += time.perf_counter() - since
            at += count
            if at % config.log_every == 0 or at == steps:
                means = _means(window)
                _refuse_divergence(means["loss"], each, at)
                window = []
                rate = float(schedule(at - 1))
                for number, log in enumerate(rows):
                    row = {k: v[number] for k, v in means.items()}
                    row = training.row_of(row, matrices) | {"learning_rate": rate}
                    log.append(dict(step=at, split="train", **row))
                shown = {k: float(np.mean(v)) for k, v in means.items()}
                display.update(at, dict(step=at, split="train", **shown))
            if at % eval_every == 0 or at == steps:
                means, _ = evaluate(training.weights(carried), validation)
                host = jax.device_get(carried._replace(key=None))
                for number, log in enumerate(rows):
                    row = {k: float(v[number]) for k, v in means.items()}
                    log.append(dict(step=at, split="validation", **row))
                    score = sign * row[task.monitor]
                    better = score > best[number] or chosen[number] is None
                    if better or not config.tests_best:
                        best[number] = score
                        mine = jax.tree.map(lambda x, n=number: x[n], host)
                        chosen[number] = (mine._replace(key=keys[number]), row)
                shown = {k: float(np.mean(v)) for k, v in means.items()}
                display.update(at, dict(step=at, split="validation", **shown))

        test = dataset.splits["test"]
        final = [training.weights(state) for state, _ in chosen]
        final = jax.tree.map(lambda *leaves: np.stack(leaves), *final)
        _, predictions = evaluate(final, test)
        reports = []
        for number, seed in enumerate(each):
            state, row = chosen[number]
            known = experiment.aligned(test, predictions[number])
            report = {
                "test": task.report(*known) if len(known[1]) else {"examples": 0},
                "train": {"steps": steps, "checkpoint": int(state.step)},
                "baselines": {},
                "environment": record.environment(),
            }
            one = dataclasses.replace(config, seed=seed, run_dir=None, overwrite=False)
            _leave(directory / f"seed-{seed}", name, one, spec, rows[number])
            with training.Checkpoints(
                directory / f"seed-{seed}" / "checkpoints",
                monitor=task.monitor,
                mode=task.mode,
            ) as checkpoints:
                values = to_dict(one)
                checkpoints.save(int(state.step), state, values, row, force=True)
            record.write_json(directory / f"seed-{seed}" / "report.json", report)
            reports.append(flat(report["test"]))
        summary = {"preset": name, "seeds": each, "test": spread(reports)}
        record.write_json(directory / SUMMARY, summary)
        for metric, found in summary["test"].items():
            values = "  ".join(f"{value:.4f}" for value in found["values"])
            display.note(
                f"{metric}: {found['mean']:.4f} ± {found['sd']:.4f}   {values}"
            )
        each_step = 1e3 * seconds / steps
        display.note(
            f"a step of {seeds} seeds took {each_step:.3g} ms, of one "
            f"{each_step / seeds:.3g} ms; the training of all {seconds:.3g} s, of one "
            f"{seconds / seeds:.3g} s"
        )
        display.note(f"written to {directory}/: seeds.json, and a run for each seed")
    return summary


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
    for option in ("distributed", "folds", "tensorboard", "profile"):
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


def _leave(directory: Path, name: str, config: Config, spec, rows) -> None:
    """The files of one seed's run but its checkpoint and report."""
    from experiments.run import record

    directory.mkdir(parents=True, exist_ok=True)
    record.write_json(
        directory / "config.json",
        {
            "preset": name,
            "config": to_dict(config),
            "data": dataclasses.asdict(spec),
        },
    )
    log = record.MetricsLog(directory)
    log.truncate_after(-1)
    for row in rows:
        log.append(row)
    log.write_csv()


def _means(window: list[dict]) -> dict[str, Any]:
    """`{name: [S, …]}` of pairs (sum, count), each `[S, count, …]`."""
    import numpy as np

    means = {}
    for name in window[0]:
        sums = [pair[name].sum(2, dtype=np.float64) for pair in window]
        total, count = np.sum(sums, axis=0)
        means[name] = total / np.where(count, count, np.nan)
    return means


def _refuse_divergence(losses, each: list[int], at: int) -> None:
    import numpy as np

    from lstm_jax import training

    bad = [
        seed for seed, loss in zip(each, losses, strict=True) if not np.isfinite(loss)
    ]
    if bad:
        raise training.Diverged(
            f"training diverged by step {at}: the loss of seed {bad[0]} is not finite. "
            "Try a lower --optimizer.learning-rate"
        )
