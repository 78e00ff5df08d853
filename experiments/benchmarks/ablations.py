"""Four typical problems of training, and their remedies: `benchmark ablations`."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks.options import Ablations
from experiments.config import from_dict, read_run
from experiments.experiment import Experiment
from experiments.run import record
from experiments.train import train
from lstm_jax import inspect, training
from lstm_jax.figures.style import COLORS, figure, tidy

# One plain layer over rows, to isolate the effect of each change.
PLAIN = dict(
    baselines=False,
    overwrite=True,
    augment__translate=0,
    model__layers=1,
    model__dropout=0.0,
    model__order="rows",
    model__bidirectional=False,
    model__pooling="last",
)
_PLAIN = PLAIN | dict(optimizer__schedule__warmup_steps=0, task__label_smoothing=0.0)
_TANH = dict(model__cell="rnn", model__recurrent_init="glorot")
_DEEP = dict(model__layers=3, model__features=96, model__pooling="mean")
_RELU = dict(model__cell="rnn", model__cell__activation="relu")
_HE = dict(model__init="he", model__recurrent_init="he")
_AUGMENT = dict(augment__translate=1, augment__rotate=10.0)
_WARM = dict(init_from="{out}/fashion")


class Trained(NamedTuple):
    """A network of a case, trained with each seed.

    Attributes:
      label: its name in tables and figures.
      scores: test accuracies; None for a run that diverged.
      histories: rows of metrics.jsonl.
      gradients: ‖∂loss/∂h_t‖ `[T - 1]` before training, if the case shows them.
    """

    label: str
    scores: list[float | None]
    histories: list[list[dict[str, Any]]]
    gradients: np.ndarray | None = None


def _mean(values: list[float | None]) -> float | None:
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def _points(history: list[dict], split: str, name: str) -> list[tuple[int, float]]:
    """`(step, value)` of a metric."""
    rows = [row for row in history if row["split"] == split]
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def _gradient_ratio(network: Trained) -> dict[str, Any]:
    norms = network.gradients
    return {"gradient, first / last step": float(norms[0] / norms[-1])}


def _largest_norm(network: Trained) -> dict[str, Any]:
    norms = [
        [row["gradient_norm"] or np.inf for row in history if "gradient_norm" in row]
        for history in network.histories
    ]
    largest = _mean([max(each) for each in norms if each])
    diverged = sum(score is None for score in network.scores)
    return {
        "largest gradient norm": "infinite" if largest == np.inf else largest,
        "diverged": f"{diverged} of {len(network.scores)}",
    }


def _last_losses(network: Trained) -> dict[str, Any]:
    found = {}
    for split in ("train", "validation"):
        curves = [_points(history, split, "loss") for history in network.histories]
        found[f"{split} loss"] = _mean([curve[-1][1] for curve in curves if curve])
    return found


def _steps_to_90(network: Trained) -> dict[str, Any]:
    curves = [_points(each, "validation", "accuracy") for each in network.histories]
    reached = [[step for step, value in curve if value >= 0.9] for curve in curves]
    return {"steps to 90 % validation": _mean([x[0] for x in reached if x])}


@dataclasses.dataclass(frozen=True)
class Case:
    """A typical problem of training; the first network has it, the others a remedy.

    Attributes:
      title: of the table and the figure.
      common: options of all networks.
      networks: further options by label.
      steps: number of training steps.
      measure: columns of the table besides the test accuracy.
      panel: title and x label of the left panel of the figure.
      curves: `(split, metric, line style)` for the left panel; if empty, it shows the
        gradients before training.
    """

    title: str
    common: dict[str, Any]
    networks: dict[str, dict[str, Any]]
    steps: int
    measure: Callable[[Trained], dict[str, Any]]
    panel: tuple[str, str] = ("loss: training dotted, validation solid", "step")
    curves: tuple[tuple[str, str, str], ...] = (
        ("train", "loss", ":"),
        ("validation", "loss", "-"),
    )


CASES = {
    "vanishing": Case(
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
            "ReLU RNN, He": _RELU | _HE,
            "ReLU RNN, identity": _RELU | dict(model__recurrent_init="identity"),
            "LSTM, forget bias 0": dict(model__cell__forget_bias=0.0),
            "LSTM, forget bias 1": {},
            "LSTM, chrono": dict(model__cell__forget_bias="chrono"),
        },
        500,
        _gradient_ratio,
        ("gradient with respect to $h_t$, untrained", "steps back"),
        (),
    ),
    "exploding": Case(
        "Exploding gradients: a ReLU RNN over 64 pixels, He initialisation",
        dict(
            model__order="pixels",
            model__features=64,
            optimizer="sgd",
            optimizer__learning_rate=0.05,
            log_every=5,
            **_RELU | _HE,
        ),
        {
            "no clipping": dict(optimizer__clip=None),
            "global norm, 1": dict(optimizer__clip=1.0),
            "value, 0.01": dict(optimizer__clip=0.01, optimizer__clip_by="value"),
            "adaptive, 0.01": dict(optimizer__clip=0.01, optimizer__clip_by="adaptive"),
        },
        600,
        _largest_norm,
        ("gradient norm before clipping", "step"),
        (("train", "gradient_norm", "-"),),
    ),
    "overfitting": Case(
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
            "no regularisation": {},
            "dropout 0.5": dict(model__dropout=0.5),
            "weight decay 1": dict(optimizer__weight_decay=1.0),
            "augmentation": _AUGMENT,
            "all three": dict(model__dropout=0.5, optimizer__weight_decay=0.3)
            | _AUGMENT,
        },
        800,
        _last_losses,
    ),
    "slow": Case(
        "Slow convergence: three layers over digits of 28x28, pretraining",
        dict(
            data__size=28,
            optimizer__learning_rate=1e-3,
            optimizer__schedule="constant",
            eval_every=10,
            log_every=10,
            **_DEEP,
        ),
        {
            "from scratch": {},
            "from Fashion-MNIST": _WARM,
            "from Fashion-MNIST, head=5": (
                _WARM | dict(optimizer__lr_multipliers="head=5")
            ),
        },
        200,
        _steps_to_90,
    ),
}


def ablations(options: Ablations) -> dict[str, list[dict[str, Any]]]:
    """Trains all cases; prints a table, writes CASE.json and CASE.png for each."""
    found = {}
    for name in options.cases:
        case = CASES[name]
        if name == "slow":
            _pretrain(options)
        networks = [
            _train(case, label, changes, options.out / name, options)
            for label, changes in case.networks.items()
        ]
        rows = [_row(case, network) for network in networks]
        print(f"\n{case.title}\n{_table(rows)}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{name}.json").write_text(json.dumps(rows, indent=2))
        record.save_figure(options.out / f"{name}.png", _draw(case, networks))
        found[name] = rows
    return found


def _pretrain(options: Ablations) -> None:
    train(
        "fashion-rows",
        **_PLAIN | _DEEP,
        steps=2000,
        run_dir=str(options.out / "fashion"),
        data__manual_dir=options.manual_dir,
        optimizer__learning_rate=2e-3,
    )


def _train(
    case: Case, label: str, changes: dict, folder: Path, options: Ablations
) -> Trained:
    """Trains one network with all seeds."""
    chosen = dict(steps=case.steps, eval_every=max(1, case.steps // 20))
    chosen |= _PLAIN | case.common | changes
    if "init_from" in chosen:
        chosen["init_from"] = chosen["init_from"].format(out=options.out)
    scores, histories = [], []
    for seed in range(options.seeds):
        run_dir = folder / f"{label.replace(' ', '-').replace(',', '')}-{seed}"
        try:
            run = train("digits", **chosen, seed=seed, run_dir=str(run_dir))
            scores.append(run.report["test"]["accuracy"])
        except training.Diverged:
            scores.append(None)
        histories.append(record.MetricsLog(run_dir).rows())
    gradients = None if case.curves else _gradients(run_dir)
    return Trained(label, scores, histories, gradients)


def _gradients(run_dir: Path) -> np.ndarray:
    """‖∂loss/∂h_t‖ `[T - 1]` of the untrained network, for 32 test images."""
    experiment = Experiment(from_dict(read_run(run_dir)["config"], run_dir))
    test = experiment.dataset.splits["test"]
    images = experiment.spec.normalize(test.inputs[:32])
    key = jax.random.split(jax.random.key(experiment.config.seed))[0]
    measured = inspect.measure(
        experiment.network.module, experiment.init(key), images, test.targets[:32]
    )
    return np.asarray(measured.layers[0].gradients["h"])[:-1]


def _row(case: Case, network: Trained) -> dict[str, Any]:
    """A row of the table: means over the seeds of one network."""
    accuracy = _mean(network.scores)
    return {"network": network.label, "test accuracy": accuracy} | case.measure(network)


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""

    def cell(name, value):
        if value is None:
            return "-"
        if "accuracy" in name:
            return f"{100 * value:.1f} %"
        if name.startswith("steps"):
            return f"{value:.0f}"
        return f"{value:.2g}" if isinstance(value, float) else str(value)

    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[cell(name, value) for name, value in row.items()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _draw(case: Case, networks: list[Trained]):
    """A Figure: the symptom of the problem, and validation accuracy, against steps."""
    fig = figure(11, 4.6)
    fig.suptitle(case.title)
    left, right = fig.subplots(1, 2)
    first = dict(color="black", linewidth=2.4)
    styles = [first, *(dict(color=color, linewidth=1.6) for color in COLORS)]

    def curve(ax, points, **style):
        ax.plot([step for step, _ in points], [value for _, value in points], **style)

    for network, style in zip(networks, styles, strict=False):
        history, label = network.histories[0], network.label
        accuracies = _points(history, "validation", "accuracy")
        label = label if accuracies else f"{label}: diverged"
        curve(right, accuracies, label=label, **style)
        for split, name, line in case.curves:
            curve(left, _points(history, split, name), linestyle=line, **style)
        if not case.curves:
            norms = network.gradients
            left.plot(np.arange(len(norms), 0, -1), norms, **style)
    left.set_title(case.panel[0], loc="left")
    left.set_xlabel(case.panel[1])
    left.set_yscale("log")
    if not case.curves:
        left.invert_xaxis()
        left.set_ylim(bottom=1e-20)
    right.set_title("validation accuracy", loc="left")
    right.set_xlabel("step")
    for ax in (left, right):
        tidy(ax)
    fig.legend(loc="outside lower center", frameon=False, ncols=min(4, len(networks)))
    return fig
