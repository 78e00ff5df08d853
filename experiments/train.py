"""Trains a recurrent network on images: `python -m experiments.train [PRESET]`.

Read from top to bottom: data, model, optimizer, state, loop, test. The same as a
function, `train("digits", steps=500)`, for a notebook.
"""

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

from experiments.config import (
    Config,
    UsageError,
    check,
    explain,
    flat,
    override,
    parse,
    preset,
    read_run,
)

# What a resumed run may change, for it changes no number of the training.
FREE = {
    "run_dir",
    "overwrite",
    "accelerator",
    "parallel",
    "log_every",
    "select",
    "baselines",
    "data.dir",
    "data.manual_dir",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, its report and its pictures."""

    directory: Path
    config: Config
    report: dict[str, Any]
    history: list[dict[str, Any]]
    figures: dict[str, Any]
    params: Any

    def curves(self):
        """Loss and metrics against steps, a matplotlib figure."""
        return self.figures["curves"]

    def confusion(self):
        """The confusion matrix on the test pictures, a matplotlib figure."""
        if "confusion_matrix" not in self.figures:
            raise UsageError("a regression has no confusion matrix; see figures")
        return self.figures["confusion_matrix"]

    def predict(self, *paths: str) -> list[dict[str, Any]]:
        """Answers for picture files or folders, a dict each."""
        from experiments.predict import predict

        return predict(self.directory, *paths)

    def __repr__(self) -> str:
        test = {k: v for k, v in self.report["test"].items() if isinstance(v, float)}
        return f"Run({str(self.directory)!r}, test={test})"


def train(name: str = "digits", **options: Any) -> Run:
    """Trains a preset.

    Args:
      name: of the preset, such as "digits".
      **options: values to change, as on the command line, `__` for the dot:
        `train("digits", steps=500, model__features=128, data="photos/")`.

    Returns:
      A `Run`.
    """
    return _train(name, check(override(preset(name), options)))


def _train(name: str, config: Config) -> Run:
    # Imported here so that `--help` is instant.
    import jax
    import numpy as np

    from experiments import baselines, build, record
    from lstm_jax import data, tasks, training

    devices = training.select_accelerator(config.accelerator)
    training.check_batch_size(config.batch_size, len(devices))
    mesh = training.data_mesh(devices)
    directory = _run_directory(name, config)

    # Data: uint8 pictures in memory, normalised on the device.
    dataset = build.load_data(config)
    about = build.facts(config, dataset)
    train_split, validation = dataset.splits["train"], dataset.splits["validation"]
    per_epoch = data.steps_per_epoch(len(train_split.inputs), config.batch_size)
    steps = config.steps or max(1, round(config.epochs * per_epoch))
    eval_every = config.eval_every or max(per_epoch, -(-steps // 20))

    # Model and task.
    task = build.task(config, about)
    apply = build.apply_fn(config, about)

    def loss_fn(params, batch, keys):
        images = batch["inputs"]
        if config.data.shift:
            shift_keys, keys = jax.vmap(jax.random.split, out_axes=1)(keys)
            images = training.shift(images, shift_keys, config.data.shift)
        outputs = apply(params, images, keys)
        return task.loss(outputs, batch), task.metrics(outputs, batch)

    def eval_fn(params, batch):
        outputs = apply(params, batch["inputs"])
        return task.metrics(outputs, batch), task.predict(outputs)

    # Optimizer and state.
    schedule = build.schedule(config, steps)
    tx = build.optimizer(config, schedule)
    step = training.make_train_step(loss_fn, tx, mesh, config.parallel)
    eval_step = training.make_eval_step(eval_fn, mesh)
    key_params, key_run = jax.random.split(jax.random.key(config.seed))
    params = build.init_params(config, about, key_params)
    state = training.init_state(params, tx, key_run, mesh)

    def evaluate(params, split):
        """Means of all metrics over a split, and its predictions [N, K]."""
        size = -(-min(500, len(split.inputs)) // len(devices)) * len(devices)
        sums, predictions = {}, []
        for batch in data.eval_batches(split, size):
            metrics, outputs = jax.device_get(eval_step(params, batch))
            predictions.append(outputs[batch["mask"] > 0])
            for metric, pair in metrics.items():
                sums[metric] = sums.get(metric, 0) + np.asarray(pair, np.float64)
        means = {metric: float(total / n) for metric, (total, n) in sums.items()}
        return means, np.concatenate(predictions)

    # From here on something is written.
    if config.overwrite:
        _empty(directory)
    directory.mkdir(parents=True, exist_ok=True)
    record.write_json(
        directory / "config.json",
        {
            "preset": name,
            "config": dataclasses.asdict(config),
            "data": dataclasses.asdict(about),
        },
    )
    log = record.MetricsLog(directory)
    display = record.Display()
    with (
        training.Checkpoints(
            directory / "checkpoints", monitor=task.monitor, mode=task.mode
        ) as checkpoints,
        display,
    ):
        for line in dataset.notes:
            display.note(line)
        if config.optimizer.warmup_steps > steps // 2:
            display.note(f"a short run: its warm-up is cut to {steps // 2} steps")
        sizes = {name: len(split.inputs) for name, split in dataset.splits.items()}
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        display.note(
            f"{dataset.name}: {sizes['train']:,} training, {sizes['validation']:,} "
            f"validation and {sizes['test']:,} test pictures of "
            f"{'x'.join(map(str, dataset.image_shape))}; {count:,} parameters on "
            f"{len(devices)} {devices[0].platform} device(s)"
        )
        restored, start, notes = checkpoints.restore_latest(state)
        for line in notes:
            display.note(line)
        start = start or 0
        if start:
            state = restored
            display.note(f"resuming at step {start:,} of {steps:,}")
        log.truncate_after(start)
        display.start(steps, start)

        def on_log(row):
            log.append(row)
            display.update(row["step"], row)

        state = training.fit(
            state,
            step,
            steps=steps,
            batch_at=lambda at: data.train_batch(
                train_split, config.batch_size, seed=config.seed, step=at
            ),
            evaluate=lambda params: evaluate(params, validation)[0],
            eval_every=eval_every,
            log_every=config.log_every,
            save=lambda at, state, metrics: checkpoints.save(
                at, state, dataclasses.asdict(config), metrics
            ),
            save_every=eval_every,
            on_log=on_log,
            schedule=schedule,
        )
        chosen = checkpoints.best_step() if config.select == "best" else steps
        if chosen != steps:
            state = checkpoints.restore(state, chosen)

        # Test, once, at the end.
        test = dataset.splits["test"]
        _, predictions = evaluate(state.params, test)
        rows = log.rows()
        report = {
            "test": task.report(predictions, test.targets),
            "train": {
                "steps": steps,
                "checkpoint": int(chosen),
                "images": sizes["train"],
                "images_per_second": _steady_rate(rows),
            },
            "model": {"parameters": count},
            "baselines": baselines.fit(dataset) if config.baselines else {},
            "environment": record.environment(),
        }
        figures = task.figures(predictions, test.targets)
        figures["curves"] = tasks.curves(rows)
        record.write_json(directory / "report.json", report)
        for title, figure in figures.items():
            record.save_figure(directory / f"{title}.png", figure)
        log.write_csv()
    display.note(
        record.summary_table(report["test"] | {"baselines": report["baselines"]})
    )
    display.note(
        f"written to {directory}/: report.json and {', '.join(figures)} (.png)"
    )
    return Run(directory, config, report, rows, figures, state.params)


def _run_directory(name: str, config: Config) -> Path:
    """The run's folder, new or with the same run in it; nothing is written yet."""
    source = config.data.source
    if config.run_dir:
        directory = Path(config.run_dir).expanduser()
    elif source != preset(name).data.source:
        directory = Path("runs", Path(source).expanduser().resolve().stem or name)
    else:
        directory = Path("runs", name)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; give another --run-dir")
    try:
        old = read_run(directory)
    except UsageError as error:
        raise UsageError(f"{error}. Give another --run-dir") from error
    if config.overwrite:
        if old is None and directory.exists() and any(directory.iterdir()):
            raise UsageError(
                f"{directory} holds files, but no run; --overwrite would delete them. "
                "Give another --run-dir"
            )
    elif old is not None:
        was, now = flat(old["config"]), flat(dataclasses.asdict(config))
        changed = [
            f"{key} was {was.get(key)!r}, is {now[key]!r}"
            for key in now
            if key not in FREE and was.get(key) != now[key]
        ]
        if changed:
            raise UsageError(
                f"{directory} holds a run with another configuration "
                f"({'; '.join(changed)}). Start anew with --overwrite, or give "
                "another --run-dir"
            )
    return directory


def _empty(directory: Path) -> None:
    """Deletes what is in a folder, but not the folder, which may be a link."""
    for path in directory.iterdir() if directory.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _steady_rate(rows: list[dict[str, Any]]) -> float | None:
    """Median pictures a second over the windows of the run."""
    rates = sorted(
        row["images_per_second"] for row in rows if row.get("images_per_second")
    )
    return rates[len(rates) // 2] if rates else None


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, or 2 with one clear message."""
    try:
        name, config = parse(sys.argv[1:] if arguments is None else arguments)
        _train(name, config)
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same line goes on from the last checkpoint")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
