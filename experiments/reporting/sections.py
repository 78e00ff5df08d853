"""The sections of a run's report, each a pure function of what was judged."""

from typing import Any

from experiments.choices import flat, to_dict
from experiments.config import preset, train_line
from experiments.presets import PRESETS
from experiments.reporting.page import (
    Code,
    Fold,
    Picture,
    Section,
    Table,
    Tiles,
    Words,
    number,
    size,
)

LONG = 12  # rows, above which a table is folded


def value(report: dict[str, Any], name: str) -> Any:
    """`report["macro"]["f1"]` of "macro.f1"; None where it is missing."""
    for part in name.split("."):
        report = report.get(part) if isinstance(report, dict) else None
    return report


def between(interval: tuple[float, float] | None) -> str:
    """The two ends of an interval."""
    return f"{number(interval[0])} to {number(interval[1])}" if interval else ""


def plural(count: int, word: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def head(judged) -> tuple[Any, ...]:
    """What is seen first: the numbers, and whether they are final."""
    about, test = judged.spec, judged.dataset.splits["test"]
    pictures = len(about.image_shape) == 3
    words = (
        f"{judged.kind.name.capitalize()} of {about.dataset}: "
        f"{plural(len(test.inputs), 'test ' + ('picture' if pictures else 'clip'))} of "
        f"{'x'.join(map(str, about.image_shape))}, answered by the checkpoint of step "
        f"{judged.step:,}."
    )
    blocks: list[Any] = [Words(words, "quiet")]
    if not judged.finished:
        blocks.append(
            Words(
                f"This run has not finished: it was stopped at step "
                f"{judged.last_step:,} of {judged.steps:,}. Its train line goes on "
                "from there.",
                "warning",
            )
        )
    stored = judged.finished.get("test", {}) if judged.finished else {}
    changed = [
        f"{label} was {number(value(stored, name))}, is {number(now)}"
        for name, label, _ in judged.kind.metrics[:4]
        if isinstance(now := value(judged.test, name), float)
        and isinstance(value(stored, name), float)
        and abs(now - value(stored, name)) > 1e-3 * max(1.0, abs(now))
    ]
    if changed:
        blocks.append(
            Words(
                "Evaluated again, the test differs from what report.json holds: "
                f"{'; '.join(changed)}. The data, the code or the device have changed.",
                "warning",
            )
        )
    names = {name: label for name, label, _ in judged.kind.metrics}
    unit = getattr(judged.config.task, "unit", "")
    tiles = tuple(
        (
            names[name],
            f"{number(found)} {unit}".strip()
            if name in ("mae", "rmse")
            else number(found),
            between(judged.intervals.get(name)),
        )
        for name in judged.kind.headlines
        if (found := value(judged.test, name)) is not None
    )
    return (*blocks, Tiles(tiles)) if tiles else tuple(blocks)


def metrics(judged) -> Section:
    """All test metrics, with intervals, beside what needs no network."""
    if not judged.judgeable:
        words = "No test example has a known target: nothing can be judged."
        return Section("Test metrics", (Words(words),))
    others = dict(judged.test.get("references", {}))
    if judged.finished:
        others |= judged.finished.get("baselines", {})
    rows = tuple(
        (
            label,
            number(found),
            between(judged.intervals.get(name)),
            *(number(value(other, name)) for other in others.values()),
        )
        for name, label, _ in judged.kind.metrics
        if (found := value(judged.test, name)) is not None
    )
    header = ("", "test", "95 % interval", *(w.replace("_", " ") for w in others))
    words = (
        f"Intervals: 95 % percentile bootstrap over {judged.test['examples']:,} test "
        f"examples, {judged.resamples:,} draws, seed 0; they tell how much another "
        "test set would change a number, not another training run."
    )
    of = [v["test"] for v in (judged.dataset.groups, judged.dataset.names) if v]
    if any(len(set(labels)) < len(labels) for labels in of):
        words += (
            " Examples of one group or clip were drawn as if they were independent: "
            "the intervals are too narrow."
        )
    blocks: list[Any] = [Table(header, rows), Words(words, "quiet")]
    rows = _per_class(judged)
    if rows:
        blocks.append(rows)
    return Section("Test metrics", tuple(blocks))


def _per_class(judged) -> Any:
    if judged.kind.by_class is None:
        return None
    title, keys = judged.kind.by_class
    found = judged.kind.class_rows(judged.test)
    if len(found) < 2:
        return None
    words = {"f1": "F1", "roc_auc": "ROC AUC", "r2": "R²", "psnr": "PSNR, dB"}
    words |= {"mse": "MSE", "mae": "MAE", "rmse": "RMSE", "ssim": "SSIM"}
    header = (title, *(words.get(key, key.replace("_", " ")) for key in keys))
    if "f1" in keys:  # the hardest first
        found = sorted(found, key=lambda row: 2 if row["f1"] is None else row["f1"])
    rows = tuple((row["name"], *(number(row[key]) for key in keys)) for row in found)
    table = Table(header, rows)
    if len(rows) <= LONG:
        return table
    return Fold(
        f"All {plural(len(rows), title)}".replace("classs", "classes"), (table,)
    )


def curves(judged) -> Section:
    """Loss and metrics against steps."""
    from lstm_jax import figures

    picture = Picture(figures.curves(judged.rows), "Training and validation.")
    return Section("Curves", (picture,))


CAPTIONS = {
    "confusion_matrix": "Rows are the true classes; colour is the share of the row.",
    "roc": "True against false positives, each class against the rest.",
    "predictions": "Predicted against true; on the line an answer is perfect.",
    "residuals": "Errors: predicted minus true.",
    "strip": "Clips, the last frames of which were predicted.",
    "error_over_time": "Error of each predicted frame, beside that of simple guesses.",
}


def mistakes(judged) -> Section | None:
    """The task's own pictures, precision against recall, and the worst answers."""

    if not judged.judgeable:
        return None
    predictions, targets = judged.known
    found = judged.task.figures(predictions, targets)
    blocks = [
        Picture(figure, CAPTIONS.get(name, name.replace("_", " ")), name == "strip")
        for name, figure in found.items()
    ]
    blocks += judged.kind.figures(judged)
    return Section("Mistakes", (*blocks, *judged.kind.worst(judged)))


def calibration(judged) -> Section | None:
    """Whether a classifier is as often right as it says."""
    from lstm_jax import figures
    from lstm_jax.metrics import reliability

    if not judged.kind.answers_right_or_wrong or not len(judged.known[1]):
        return None
    found = reliability(*judged.known)
    confidence = float(judged.known[0].max(-1).mean())
    accuracy = judged.test["accuracy"]
    words = (
        f"Its mean confidence is {confidence:.1%}, its accuracy {accuracy:.1%}. "
        f"Expected calibration error {number(found.ece)}: the mean over examples of "
        f"|accuracy - confidence| in {len(found.count)} bins of equal width, "
        "((m - 1)/M, m/M], of the highest probability (Guo et al. 2017, On Calibration "
        f"of Modern Neural Networks). Brier score {number(judged.test['brier'])}: the "
        "mean over examples of sum_k (p_k - y_k)², 0 to 2 (Brier 1950)."
    )
    figure = figures.reliability_figure(found)
    caption = "Right answers in each bin of confidence; below, examples in it."
    return Section("Calibration", (Words(words), Picture(figure, caption)))


def model(judged) -> Section:
    """Layers, parameters, FLOPs and memory."""
    found = judged.model
    rows = tuple(
        (
            row.name,
            "x".join(map(str, row.output)) if row.output else "–",
            number(row.parameters),
            number(row.flops),
        )
        for row in found["layers"]
    )
    total = ("in all", "", number(found["parameters"]), number(found["flops"].total))
    words = (
        "FLOPs of one example's forward pass: of matrix products and convolutions, two "
        "for a multiplication and an addition, a loop's body as often as it runs."
    )
    if found["flops"].unknown:
        words += f" Not counted right: {', '.join(found['flops'].unknown)}."
    batch = judged.config.batch_size
    memory = (
        ("parameters", size(found["parameter_bytes"])),
        ("optimizer state", size(found["optimizer_bytes"])),
        (
            f"temporaries of an evaluated batch of {judged.eval_size}",
            size(found["eval_bytes"]),
        ),
        (f"temporaries of a gradient, batch of {batch}", size(found["train_bytes"])),
    )
    return Section(
        "Model",
        (
            Table(("layer", "output", "parameters", "FLOPs"), (*rows, total)),
            Words(words, "quiet"),
            Table(("memory", ""), memory),
        ),
    )


def configuration(judged) -> Section:
    """What differs from the preset, the line that trains it, and every option."""
    name = judged.preset if judged.preset in PRESETS else "digits"
    base, now = (flat(to_dict(c)) for c in (preset(name), judged.config))
    rows = tuple(
        (key, str(base.get(key, "")), str(now[key]))
        for key in now
        if now[key] != base.get(key, "")
    )
    blocks: list[Any] = []
    if name != judged.preset:
        words = f"There is no preset {judged.preset} any more; compared with {name}."
        blocks.append(Words(words, "warning"))
    if rows:
        header = ("option", f"preset {name}", "this run")
        blocks.append(
            Fold("What differs from the preset", (Table(header, rows, False),))
        )
    else:
        blocks.append(Words(f"All options are those of the preset {name}."))
    everything = Table(
        ("option", ""), tuple((k, str(v)) for k, v in now.items()), False
    )
    blocks.append(Fold("Every option", (everything,)))
    blocks.insert(0, Code(train_line(name, judged.config)))
    return Section("Configuration", tuple(blocks))


def environment(judged) -> Section:
    """Where it was trained, and where it was evaluated."""
    then = (judged.finished or {}).get("environment", {})
    keys = dict.fromkeys([*then, *judged.environment])
    rows = tuple(
        (
            key.replace("_", " "),
            *(str(e.get(key) if e.get(key) is not None else "–") for e in (then, now)),
        )
        for key in keys
        for now in (judged.environment,)
    )
    rate = value(judged.finished or {}, "train.images_per_second")
    blocks: list[Any] = [Table(("", "training", "this evaluation"), rows, False)]
    if rate:
        blocks.insert(0, Words(f"Trained at {rate:,.0f} examples a second."))
    return Section("Environment", tuple(blocks))
