"""Trainings side by side: LSTM and vanilla RNN; an LSTM here and in PyTorch."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Memory:
    """LSTM against vanilla RNN on digits with rows of noise below them."""

    noise_rows: tuple[int, ...] = (0, 24, 56)
    """Rows of noise, each a task of its own; a digit itself has 8 rows."""
    seeds: int = 2
    epochs: float = 100
    features: int = 64
    out: Path = Path("runs/memory")
    """Folder of the runs, the table (.json) and the plot (.png)."""


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The same network on Fashion-MNIST rows, here and in PyTorch."""

    manual_dir: str | None = None
    """Folder with the four idx files, where there is no network."""
    seeds: int = 3
    epochs: float = 6
    out: Path = Path("runs/accuracy")


def accuracy(options: Accuracy) -> list[dict[str, Any]]:
    """Trains with the same batches, schedule and clipping, and prints a table.

    Each library draws its weights as it is used to: PyTorch uniformly, we Glorot,
    orthogonal and with a forget bias of 1. Images per second are of the training steps
    alone, batches included: of ours without what compiled, of PyTorch's without the
    first ten.
    """
    from experiments.train import train

    rows = []
    for seed in range(options.seeds):
        start = time.perf_counter()
        run = train(
            "fashion-rows",
            run_dir=str(options.out / f"seed-{seed}"),
            overwrite=True,
            seed=seed,
            epochs=options.epochs,
            test_checkpoint="last",
            data__manual_dir=options.manual_dir,
            log_every=400,
        )
        found = run.report["test"]["accuracy"], run.report["train"]["images_per_second"]
        rows.append(_row("lstm_jax", seed, *found, time.perf_counter() - start))
        start = time.perf_counter()
        found = _train_torch(run.config)
        rows.append(_row("torch", seed, *found, time.perf_counter() - start))
    rates = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        scores, seconds = ([row[k] for row in own] for k in ("accuracy", "seconds"))
        rates[name] = [row["images_per_second"] for row in own]
        each = " ".join(f"{score:.4f}" for score in scores)
        print(
            f"  {name:<22} mean {np.mean(scores):.4f}   seeds {each}   "
            f"{np.median(rates[name]):,.0f} images/s   {np.mean(seconds):.0f} s a run"
        )
    ratio = np.median(np.divide(rates["lstm_jax"], rates["torch"]))
    print(f"  images per second, lstm_jax to torch, median of seeds: {ratio:.2f}")
    (options.out / "accuracy.json").write_text(json.dumps(rows, indent=2))
    return rows


def _row(name: str, seed: int, score, rate, seconds) -> dict[str, Any]:
    print(f"{name}, seed {seed}: {score:.4f}, {rate:,.0f} images/s", flush=True)
    return {
        "name": name,
        "seed": seed,
        "accuracy": score,
        "images_per_second": rate,
        "seconds": seconds,
    }


def _train_torch(config) -> tuple[float, float]:
    """Test accuracy and images/s of `nn.LSTM` and `nn.Linear` as a run is set."""
    import torch

    from experiments.experiment import Experiment
    from lstm_jax import data, training

    experiment = Experiment(config)
    spec, steps = experiment.spec, experiment.steps
    split, test = experiment.split, experiment.dataset.splits["test"]
    o = config.optimizer
    schedule = training.make_schedule(o.schedule.name, o.learning_rate, steps)
    rates = np.asarray([schedule(step) for step in range(steps)])

    def rows(images):  # [B, H, W, 1] -> [B, T, F]
        images = spec.normalize(images)
        return torch.from_numpy(images.reshape(*images.shape[:2], -1))

    torch.manual_seed(config.seed)
    h, w, c = spec.image_shape
    lstm = torch.nn.LSTM(w * c, config.model.features, batch_first=True)
    head = torch.nn.Linear(config.model.features, spec.outputs)
    weights = [*lstm.parameters(), *head.parameters()]
    adam, warm = torch.optim.Adam(weights), min(10, steps - 1)
    for step in range(steps):
        if step == warm:
            start = time.perf_counter()
        batch = data.train_batch(split, config.batch_size, seed=config.seed, step=step)
        adam.param_groups[0]["lr"] = float(rates[step])
        adam.zero_grad()
        logits = head(lstm(rows(batch["inputs"]))[0][:, -1])
        targets = torch.from_numpy(batch["targets"]).long()
        torch.nn.functional.cross_entropy(logits, targets).backward()
        torch.nn.utils.clip_grad_norm_(weights, o.clip)
        adam.step()
    rate = (steps - warm) * config.batch_size / (time.perf_counter() - start)
    with torch.no_grad():
        logits = head(lstm(rows(test.inputs))[0][:, -1])
    return float((logits.argmax(-1).numpy() == test.targets).mean()), rate


def memory(options: Memory) -> list[dict[str, Any]]:
    """Trains both cells on each task; prints a table, draws gradients over time."""
    from experiments.train import train

    rows, curves = [], {}
    for noise in options.noise_rows:
        for cell in ("lstm", "rnn"):
            scores, seconds = [], []
            for seed in range(options.seeds):
                start = time.perf_counter()
                run = train(
                    "digits",
                    run_dir=str(options.out / f"{cell}-{noise}-{seed}"),
                    overwrite=True,
                    seed=seed,
                    epochs=options.epochs,
                    baselines=False,
                    log_every=1_000_000,
                    data__noise_rows=noise,
                    augment__translate=0,
                    model__cell=cell,
                    model__features=options.features,
                    model__layers=1,
                    model__dropout=0.0,
                    model__order="rows",
                    model__bidirectional=False,
                    model__pooling="last",
                    optimizer__learning_rate=2e-3,
                )
                scores.append(run.report["test"]["accuracy"])
                seconds.append(time.perf_counter() - start)
            before, after, steps = _gradients(run)
            curves[f"{cell}, {noise} rows of noise"] = after
            if noise == max(options.noise_rows):
                curves[f"{cell}, untrained"] = before
            rows.append(
                {
                    "cell": cell,
                    "steps": steps,
                    "accuracy": float(np.mean(scores)),
                    "lowest": float(np.min(scores)),
                    "parameters": run.report["model"]["parameters"],
                    "flops_per_image": _flops(run, steps),
                    "seconds": float(np.mean(seconds)),
                    "reach": float(after[0] / after[-2]) if steps > 1 else None,
                }
            )
    _print_table(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "memory.json").write_text(json.dumps(rows, indent=2))
    _draw(curves).savefig(options.out / "memory.png", dpi=110)
    print(f"written: {options.out / 'memory.json'}, {options.out / 'memory.png'}")
    return rows


def _gradients(run) -> tuple[np.ndarray, np.ndarray, int]:
    """Gradient norms over time, untrained and trained, and T."""
    import jax
    import jax.numpy as jnp

    from experiments.experiment import Experiment
    from lstm_jax.inspect import carry_gradients, gradient_norms

    experiment = Experiment(run.config)
    test, module = experiment.dataset.splits["test"], experiment.network.module
    images = experiment.spec.normalize(jnp.asarray(test.inputs[:128]))
    xs = module.order.to_sequence(images).swapaxes(0, 1)  # [T, B, F]
    cell = module.cells[0]

    def norms(params):
        def loss(ys):
            logits = ys[-1] @ params["head"]["kernel"] + params["head"]["bias"]
            picked = jax.nn.log_softmax(logits)[jnp.arange(128), test.targets[:128]]
            return -picked.sum()

        grads = carry_gradients(cell, params["layer_0"], xs, loss)
        return np.asarray(gradient_norms(grads))

    key = jax.random.split(jax.random.key(run.config.seed))[0]
    return norms(experiment.init(key)), norms(run.params), len(xs)


def _flops(run, steps: int) -> int:
    """Of the matrix products for one image, forward: a multiply and an add each."""
    layer, head = run.params["layer_0"], run.params["head"]["kernel"]
    return int(2 * steps * (layer["w_x"].size + layer["w_h"].size) + 2 * head.size)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    titles = ("cell", "steps", "accuracy", "lowest", "parameters", "FLOPs/image", "s")
    for title in titles:
        table.add_column(title, justify="left" if title == "cell" else "right")
    for row in rows:
        table.add_row(
            row["cell"],
            str(row["steps"]),
            f"{row['accuracy']:.1%}",
            f"{row['lowest']:.1%}",
            f"{row['parameters']:,}",
            f"{row['flops_per_image']:,}",
            f"{row['seconds']:.0f}",
        )
    Console().print(table)


def _draw(curves: dict[str, np.ndarray]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    longest = max(map(len, curves.values()))
    for name, norms in curves.items():
        if len(norms) != longest:
            continue
        color = "#0072b2" if name.startswith("lstm") else "#d55e00"
        distance = np.arange(len(norms))[::-1]
        # At distance 0 nothing goes on through the carry.
        axes.semilogy(
            distance[:-1],
            np.maximum(norms[:-1], 1e-30),
            "--" if "untrained" in name else "-",
            color=color,
            label=name,
        )
    axes.set_xlabel("distance in time from the answer, steps")
    axes.set_ylabel("norm of ∂loss / ∂carry")
    axes.set_title("How far back a gradient reaches")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
