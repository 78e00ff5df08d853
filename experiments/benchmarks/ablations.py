"""Networks made sick on purpose, and what cures them: `benchmark cures`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

_PLAIN = dict(
    baselines=False,
    overwrite=True,
    augment__translate=0,
    model__layers=1,
    model__dropout=0.0,
    model__order="rows",
    model__bidirectional=False,
    model__pooling="last",
    optimizer__schedule__warmup_steps=0,
    task__label_smoothing=0.0,
)
_TANH = dict(model__cell="rnn", model__recurrent_init="glorot")
_DEEP = dict(model__layers=3, model__features=96, model__pooling="mean")
_RELU = dict(model__cell="rnn", model__cell__activation="relu")


@dataclasses.dataclass(frozen=True)
class Case:
    """One sickness: options of all, and of each network; the sick one comes first."""

    preset: str
    words: str
    common: dict[str, Any]
    networks: dict[str, dict[str, Any]]
    steps: int


CASES = {
    "vanishing": Case(
        "digits",
        "Vanishing gradients: digits of 28x28, pixel by pixel, 784 steps",
        dict(
            data__size=28,
            batch_size=32,
            model__order="pixels",
            model__features=64,
            optimizer__learning_rate=1e-3,
            log_every=20,
        ),
        {
            "tanh RNN, Xavier": _TANH,
            "tanh RNN, orthogonal": dict(model__cell="rnn"),
            "ReLU RNN, He": _RELU | dict(model__init="he", model__recurrent_init="he"),
            "ReLU RNN, identity": _RELU | dict(model__recurrent_init="identity"),
            "LSTM, forget bias 0": dict(model__cell__forget_bias=0.0),
            "LSTM, forget bias 1": {},
            "LSTM, chrono": dict(model__cell__forget_bias="chrono"),
        },
        500,
    ),
    "exploding": Case(
        "digits",
        "Exploding gradients: a ReLU RNN over 64 pixels, weights by He",
        dict(
            model__order="pixels",
            model__features=64,
            model__init="he",
            model__recurrent_init="he",
            optimizer="sgd",
            optimizer__learning_rate=0.05,
            log_every=5,
            **_RELU,
        ),
        {
            "no clipping": dict(optimizer__clip=None),
            "global norm, 1": dict(optimizer__clip=1.0),
            "value, 0.01": dict(optimizer__clip=0.01, optimizer__clip_by="value"),
            "adaptive, 0.01": dict(optimizer__clip=0.01, optimizer__clip_by="adaptive"),
        },
        600,
    ),
    "overfitting": Case(
        "digits",
        "Overfitting: a wide LSTM on 300 digits",
        dict(
            data__limit=300,
            model__order="both",
            model__bidirectional=True,
            model__pooling="mean",
            model__features=128,
            optimizer__learning_rate=2e-3,
            test_checkpoint="last",
            log_every=20,
        ),
        {
            "nothing against it": {},
            "dropout 0.5": dict(model__dropout=0.5),
            "weight decay 1": dict(optimizer__weight_decay=1.0),
            "augmentation": dict(augment__translate=1, augment__rotate=10.0),
            "all three": dict(
                model__dropout=0.5,
                optimizer__weight_decay=0.3,
                augment__translate=1,
                augment__rotate=10.0,
            ),
        },
        800,
    ),
    "slow": Case(
        "digits",
        "Slow convergence: three layers over digits of 28x28, first trained on clothes",
        dict(
            data__size=28,
            optimizer__learning_rate=1e-3,
            optimizer__schedule="constant",
            eval_every=10,
            log_every=10,
            **_DEEP,
        ),
        {
            "from nothing": {},
            "from Fashion-MNIST": dict(init_from="{out}/fashion"),
            "the same, head 5 times as fast": dict(
                init_from="{out}/fashion", optimizer__lr_multipliers="head=5"
            ),
        },
        200,
    ),
}


@dataclasses.dataclass(frozen=True)
class Cures:
    """Vanishing and exploding gradients, overfitting, slow convergence; cured."""

    cases: tuple[str, ...] = tuple(CASES)
    manual_dir: str | None = None
    """Folder with Fashion-MNIST's files for `slow`, where there is no network."""
    seeds: int = 1
    scale: float = 1.0
    """Of the number of steps; less for a trial."""
    out: Path = Path("runs/cures")
    """Folder of the runs, the tables (.json) and the pictures (.png)."""


def cures(options: Cures) -> dict[str, list[dict[str, Any]]]:
    """Trains each case; prints a table, writes CASE.json and CASE.png."""
    from experiments.run import record

    found = {}
    for name in options.cases:
        case = CASES[name]
        if name == "slow":
            _pretrain(options)
        networks = [
            _train(case, label, changes, options.out / name, options)
            for label, changes in case.networks.items()
        ]
        rows = [_row(name, network) for network in networks]
        print(f"\n{case.words}\n{_table(rows)}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{name}.json").write_text(json.dumps(rows, indent=2))
        record.save_figure(options.out / f"{name}.png", _draw(name, case, networks))
        found[name] = rows
    return found


def _pretrain(options: Cures) -> None:
    from experiments.train import train

    train(
        "fashion-rows",
        **_PLAIN | _DEEP,
        steps=max(1, round(2000 * options.scale)),
        run_dir=str(options.out / "fashion"),
        data__manual_dir=options.manual_dir,
        optimizer__learning_rate=2e-3,
    )


def _train(case: Case, label: str, changes: dict, folder: Path, options: Cures) -> dict:
    """Runs of all seeds: histories, test accuracy, gradients before training."""
    from experiments.run import record
    from experiments.train import train
    from lstm_jax import training

    changes = {
        key: value.format(out=options.out) if isinstance(value, str) else value
        for key, value in changes.items()
    }
    steps = max(2, round(case.steps * options.scale))
    scores, histories = [], []
    for seed in range(options.seeds):
        run_dir = folder / f"{label.replace(' ', '-').replace(',', '')}-{seed}"
        chosen = _PLAIN | case.common | changes
        chosen |= dict(steps=steps, seed=seed, run_dir=str(run_dir))
        chosen.setdefault("eval_every", max(1, steps // 20))
        try:
            run = train(case.preset, **chosen)
            scores.append(run.report["test"]["accuracy"])
        except training.Diverged:
            scores.append(None)
        histories.append(record.MetricsLog(run_dir).rows())
    return {
        "label": label,
        "scores": scores,
        "histories": histories,
        "gradients": _gradients(run_dir) if case is CASES["vanishing"] else None,
    }


def _gradients(run_dir: Path) -> np.ndarray:
    """‖∂loss/∂h_t‖ `[T - 1]` of the untrained network, for 32 test pictures."""
    import jax

    from experiments.config import from_dict, read_run
    from experiments.experiment import Experiment
    from lstm_jax import inspect

    experiment = Experiment(from_dict(read_run(run_dir)["config"]))
    test = experiment.dataset.splits["test"]
    images = experiment.spec.normalize(test.inputs[:32])
    params = experiment.init(
        jax.random.split(jax.random.key(experiment.config.seed))[0]
    )
    module = experiment.network.module
    measured = inspect.measure(module, params, images, test.targets[:32])
    return np.asarray(measured.layers[0].gradients["h"])[:-1]


def _last(history: list[dict], split: str, name: str) -> float | None:
    values = [
        r[name] for r in history if r["split"] == split and r.get(name) is not None
    ]
    return values[-1] if values else None


def _mean(values: list) -> float | None:
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def _row(case: str, network: dict) -> dict[str, Any]:
    """What the table says of one network, means over the seeds."""
    histories, scores = network["histories"], network["scores"]
    row = {"network": network["label"], "test accuracy": _mean(scores)}
    lost = sum(score is None for score in scores)
    if case == "vanishing":
        norms = network["gradients"]
        row["gradient, first / last step"] = float(norms[0] / norms[-1])
    if case == "exploding":
        norms = [
            max(r["gradient_norm"] or np.inf for r in h if "gradient_norm" in r)
            for h in histories
            if any("gradient_norm" in r for r in h)
        ]
        largest = _mean(norms)
        row["largest gradient norm"] = "infinite" if largest == np.inf else largest
        row["diverged"] = f"{lost} of {len(scores)}"
    if case == "overfitting":
        for split in ("train", "validation"):
            losses = [_last(history, split, "loss") for history in histories]
            row[f"{split} loss"] = _mean(losses)
    if case == "slow":
        row["steps to 90 % validation"] = _mean(
            [
                next(
                    (
                        r["step"]
                        for r in history
                        if r["split"] == "validation" and r["accuracy"] >= 0.9
                    ),
                    None,
                )
                for history in histories
            ]
        )
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""

    def cell(name, value):
        if value is None:
            return "-"
        if "accuracy" in name:
            return f"{value:.1%}".replace("%", " %")
        if name.startswith("steps"):
            return f"{value:.0f}"
        return f"{value:.2g}" if isinstance(value, float) else str(value)

    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[cell(name, value) for name, value in row.items()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _draw(name: str, case: Case, networks: list[dict]):
    """What tells the sickness, and validation accuracy, against steps."""
    from lstm_jax.figures.style import COLORS, figure, tidy

    fig = figure(11, 4.6)
    fig.suptitle(case.words)
    left, right = fig.subplots(1, 2)
    for order, network in enumerate(networks):
        style = dict(
            color="black" if order == 0 else COLORS[(order - 1) % len(COLORS)],
            linewidth=2.4 if order == 0 else 1.6,
        )
        history = network["histories"][0]
        _curve(right, history, "validation", "accuracy", style, network["label"])
        if name == "vanishing":
            norms = network["gradients"]
            left.plot(np.arange(len(norms), 0, -1), norms, **style)
        elif name == "exploding":
            _curve(left, history, "train", "gradient_norm", style)
        else:
            _curve(left, history, "train", "loss", style | dict(linestyle=":"))
            _curve(left, history, "validation", "loss", style)
    titles = {
        "vanishing": ("gradient with respect to $h_t$, untrained", "steps back"),
        "exploding": ("gradient norm before clipping", "step"),
    }
    title, axis = titles.get(name, ("loss: training dotted, validation solid", "step"))
    left.set_title(title, loc="left")
    left.set_xlabel(axis)
    left.set_yscale("log")
    if name == "vanishing":
        left.invert_xaxis()
        left.set_ylim(bottom=1e-20)
    right.set_title("validation accuracy", loc="left")
    right.set_xlabel("step")
    for ax in (left, right):
        tidy(ax)
    fig.legend(loc="outside lower center", frameon=False, ncols=min(4, len(networks)))
    return fig


def _curve(ax, history, split, name, style, label=None):
    points = [
        (r["step"], r[name])
        for r in history
        if r["split"] == split and r.get(name) is not None
    ]
    if points:
        ax.plot(*zip(*points, strict=True), label=label, **style)
    elif label:
        ax.plot([], [], label=f"{label}: diverged", **style)
