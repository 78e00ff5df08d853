"""Comparisons of trained networks: LSTM and vanilla RNN; lstm_jax and PyTorch."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import peers, tables
from experiments.benchmarks.ablations import PLAIN
from experiments.benchmarks.options import Accuracy, Memory
from experiments.experiment import Experiment
from experiments.run import record
from experiments.train import train
from lstm_jax import data
from lstm_jax.figures.style import BLUE, ORANGE, figure, tidy
from lstm_jax.inspect import carry_gradients, gradient_norms


def accuracy(options: Accuracy) -> list[dict[str, Any]]:
    """Trains here and in PyTorch with equal batches, schedule and clipping.

    Each library uses its default initialisation: PyTorch uniform; lstm_jax Glorot,
    orthogonal and a forget bias of 1. Images per second cover training steps and
    batches, without compilation, and without the first ten steps of PyTorch.
    """
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
        each = " ".join(f"{100 * score:.2f} %" for score in scores)
        print(
            f"  {name:<22} mean {100 * np.mean(scores):.2f} %   seeds {each}   "
            f"{np.median(rates[name]):,.0f} images/s   {np.mean(seconds):.0f} s per run"
        )
    ratio = np.median(np.divide(rates["lstm_jax"], rates["torch"]))
    print(f"  images per second, lstm_jax / torch, median of seeds: {ratio:.2f}")
    record.write_json(options.out / "accuracy.json", rows)
    return rows


def _row(name: str, seed: int, score, rate, seconds) -> dict[str, Any]:
    print(f"{name}, seed {seed}: {100 * score:.2f} %, {rate:,.0f} images/s", flush=True)
    return {
        "name": name,
        "seed": seed,
        "accuracy": score,
        "images_per_second": rate,
        "seconds": seconds,
    }


def _train_torch(config) -> tuple[float, float]:
    """Test accuracy and images/s of `nn.LSTM` and `nn.Linear`, trained as a run."""
    import torch

    experiment = Experiment(config)
    spec, steps = experiment.spec, experiment.steps
    split, test = experiment.split, experiment.dataset.splits["test"]
    rates = [float(experiment.schedule(step)) for step in range(steps)]

    def rows(images):  # [B, H, W, 1] -> [B, T, F]
        images = spec.normalize(images)
        return torch.from_numpy(images.reshape(*images.shape[:2], -1))

    torch.manual_seed(config.seed)
    _, w, c = spec.image_shape
    model = peers.torch_classifier(w * c, config.model.features, spec.outputs)
    adam, warm = torch.optim.Adam(model.parameters()), min(10, steps - 1)
    for step in range(steps):
        if step == warm:
            start = time.perf_counter()
        batch = data.train_batch(split, config.batch_size, seed=config.seed, step=step)
        adam.param_groups[0]["lr"] = rates[step]
        targets = torch.from_numpy(batch["targets"]).long()
        peers.torch_step(
            model, adam, rows(batch["inputs"]), targets, config.optimizer.clip
        )
    rate = (steps - warm) * config.batch_size / (time.perf_counter() - start)
    with torch.no_grad():
        logits = model(rows(test.inputs))
    return float((logits.argmax(-1).numpy() == test.targets).mean()), rate


def memory(options: Memory) -> list[dict[str, Any]]:
    """Trains both cells on each task; prints a table, plots gradients over time."""
    rows, curves = [], {}
    for noise in options.noise_rows:
        for cell in ("lstm", "rnn"):
            scores, seconds = [], []
            for seed in range(options.seeds):
                start = time.perf_counter()
                run = train(
                    "digits",
                    **PLAIN,
                    run_dir=str(options.out / f"{cell}-{noise}-{seed}"),
                    seed=seed,
                    epochs=options.epochs,
                    log_every=1_000_000,
                    data__noise_rows=noise,
                    model__cell=cell,
                    model__features=options.features,
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
    tables.console().print(_table(rows))
    numbers, plot = options.out / "memory.json", options.out / "memory.png"
    record.write_json(numbers, rows)
    record.save_figure(plot, _draw(curves))
    print(f"written to {numbers}, {plot}")
    return rows


def _gradients(run) -> tuple[np.ndarray, np.ndarray, int]:
    """`(gradient norms [T] untrained, trained, T)`."""
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
    """FLOPs of the matrix products in the forward pass of one image."""
    layer, head = run.params["layer_0"], run.params["head"]["kernel"]
    return int(2 * steps * (layer["w_x"].size + layer["w_h"].size) + 2 * head.size)


def _table(rows: list[dict[str, Any]]):
    columns = {  # head: key of a row, format
        "cell": ("cell", "s"),
        "steps": ("steps", "d"),
        "accuracy": ("accuracy", ".1%"),
        "lowest": ("lowest", ".1%"),
        "parameters": ("parameters", ",d"),
        "FLOPs/image": ("flops_per_image", ",d"),
        "s": ("seconds", ".0f"),
    }
    cells = [[format(row[key], form) for key, form in columns.values()] for row in rows]
    return tables.table("LSTM and vanilla RNN", list(columns), cells)


def _draw(curves: dict[str, np.ndarray]):
    fig = figure(8, 4.5)
    axes = fig.subplots()
    tidy(axes)
    longest = max(map(len, curves.values()))
    for name, norms in curves.items():
        if len(norms) != longest:
            continue
        distance = np.arange(len(norms))[::-1]
        # At distance 0 the carry is not used.
        axes.semilogy(
            distance[:-1],
            np.maximum(norms[:-1], 1e-30),
            "--" if "untrained" in name else "-",
            color=BLUE if name.startswith("lstm") else ORANGE,
            label=name,
        )
    axes.set_xlabel("steps before the output")
    axes.set_ylabel("norm of ∂loss / ∂carry")
    axes.set_title("Gradient norm by distance in time")
    axes.legend()
    return fig
