"""The sections of a run's report, each a pure function of what was judged."""

import dataclasses
from typing import Any

from experiments.config import flat, preset, train_line
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

WORST = 12  # answers on the picture sheet
WORST_CLIPS = 3
LONG = 12  # rows, above which a table is folded

# metric, its place in the task's report, what it is called
METRICS = {
    "classification": (
        ("accuracy", "accuracy"),
        ("top5_accuracy", "top-5 accuracy"),
        ("macro.f1", "F1, macro"),
        ("macro.roc_auc", "ROC AUC, macro"),
        ("macro.average_precision", "average precision, macro"),
        ("loss", "cross-entropy"),
        ("brier", "Brier score"),
        ("ece", "expected calibration error"),
    ),
    "regression": (
        ("mae", "mean absolute error"),
        ("rmse", "root mean squared error"),
        ("r2", "R²"),
        ("bias", "bias"),
        ("loss", "loss"),
    ),
    "forecasting": (
        ("mse", "MSE per frame"),
        ("mae", "MAE per frame"),
        ("psnr", "PSNR, dB"),
        ("ssim", "SSIM"),
        ("csi", "CSI"),
        ("pod", "POD"),
        ("far", "FAR"),
        ("loss", "loss"),
    ),
    "segmentation": (
        ("mean_iou", "mean IoU"),
        ("dice", "Dice, mean over classes"),
        ("pixel_accuracy", "pixel accuracy"),
        ("foreground_iou", "IoU of all but background"),
    ),
    "detection": (
        ("ap50", "AP50"),
        ("ap", "AP (COCO)"),
        ("ap75", "AP75"),
        ("f1", "F1 of boxes"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("hidden.ap50", "AP50 of things mostly hidden"),
        ("hidden.ar50", "recall of things mostly hidden"),
    ),
    "recognition": (
        ("cer", "character error rate"),
        ("wer", "word error rate"),
        ("exact", "lines without a mistake"),
        ("substitutions", "characters read as others"),
        ("deletions", "characters not read"),
        ("insertions", "characters too many"),
    ),
    "multilabel": (
        ("accuracy", "accuracy"),
        ("macro.roc_auc", "ROC AUC, macro"),
        ("macro.average_precision", "average precision, macro"),
        ("macro.f1", "F1, macro"),
        ("loss", "cross-entropy"),
    ),
}
HEADLINES = {
    "classification": ("accuracy", "macro.f1", "macro.roc_auc", "ece"),
    "regression": ("mae", "rmse", "r2"),
    "forecasting": ("mse", "ssim", "psnr"),
    "segmentation": ("mean_iou", "dice", "pixel_accuracy"),
    "detection": ("ap50", "ap", "f1"),
    "recognition": ("cer", "wer", "exact"),
    "multilabel": ("macro.roc_auc", "macro.average_precision", "accuracy"),
}


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
    about, test = judged.about, judged.dataset.splits["test"]
    pictures = len(about.image_shape) == 3
    words = (
        f"{judged.config.task.name.capitalize()} of {about.dataset}: "
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
        for name, label in METRICS[judged.task.name][:4]
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
    names = dict(METRICS[judged.task.name])
    unit = judged.config.task.unit
    tiles = tuple(
        (
            names[name],
            f"{number(found)} {unit}".strip()
            if name in ("mae", "rmse")
            else number(found),
            between(judged.intervals.get(name)),
        )
        for name in HEADLINES[judged.task.name]
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
        for name, label in METRICS[judged.task.name]
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
    test = judged.test
    if judged.task.name == "classification":
        keys = ("precision", "recall", "f1", "roc_auc", "average_precision", "support")
        title, found = "class", test["per_class"]
    elif judged.task.name == "multilabel":
        keys = ("roc_auc", "average_precision", "f1", "precision", "recall", "support")
        title, found = "label", test["per_label"]
    elif judged.task.name == "segmentation":
        keys = ("iou", "dice", "precision", "recall", "pixels")
        title, found = "class", test["per_class"]
    elif judged.task.name == "detection":
        keys = ("ap50", "ap", "ar50", "things")
        title, found = "class", test["per_class"]
    elif judged.task.name == "recognition":
        return None
    elif judged.task.name == "forecasting":
        keys = ("mse", "mae", "psnr", "ssim")
        rows = [{"name": f"+{k}"} | row for k, row in enumerate(test["per_frame"], 1)]
        title, found = "frame", rows
    else:
        keys, title = ("mae", "rmse", "r2", "bias"), "output"
        rows = [{"name": str(k)} | row for k, row in enumerate(test["per_output"])]
        found = rows
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
    from lstm_jax import figures, metrics

    if not judged.judgeable:
        return None
    predictions, targets = judged.known
    found = judged.task.figures(predictions, targets)
    blocks = [
        Picture(figure, CAPTIONS.get(name, name.replace("_", " ")), name == "strip")
        for name, figure in found.items()
    ]
    if judged.task.name in ("classification", "multilabel"):
        pairs = metrics.one_against_rest(judged.task, predictions, targets)
        figure = figures.precision_recall_figure(pairs, judged.about.classes)
        words = "Precision against recall; average precision is the area below."
        blocks.append(Picture(figure, words))
    return Section("Mistakes", (*blocks, *_worst(judged)))


def _worst(judged) -> list[Any]:
    import numpy as np

    from lstm_jax import figures, metrics

    predictions, targets = judged.known
    losses = judged.losses
    order = np.argsort(-np.nan_to_num(losses, nan=-np.inf), kind="stable")
    order = order[: min(WORST, int(np.isfinite(losses).sum()))]
    shown = judged.shown[order]
    test, names = judged.dataset.splits["test"], judged.dataset.names
    if judged.task.name in ("segmentation", "detection"):
        from experiments import locating

        parts = judged.config, judged.dataset, predictions, targets, losses
        figure = locating.examples(*parts)
        return [Picture(figure, "The best and the worst answers.", photo=True)]
    if judged.task.name == "recognition":
        from experiments import reading

        parts = judged.config, judged.dataset, test, predictions
        return [
            Picture(reading.sheet(*parts, worst=worst), words, photo=True)
            for worst, words in (
                (True, "The worst lines: below, what was read, errors in colour."),
                (False, "The first lines."),
            )
        ]
    if judged.task.name == "forecasting":
        clips = [
            (
                f"error {losses[k]:.4g} per frame",
                test.inputs[k].astype(np.float32) / 255,
                predictions[k],
            )
            for k in order[:WORST_CLIPS]
        ]
        figure = figures.frame_strip(clips, total=len(losses))
        return [Picture(figure, "The clips with the largest errors.", photo=True)]
    captions = [_caption(judged, k) for k in order]
    blocks: list[Any] = []
    if test.inputs.ndim > 3:
        lengths = None if test.lengths is None else test.lengths[shown]
        pictures = metrics.middle_frames(test.inputs[shown], lengths)
        clips = ", by their middle frames" if test.inputs.ndim == 5 else ""
        figure = figures.image_grid(
            pictures, captions, title=f"The worst answers{clips}"
        )
        words = "Test examples with the highest loss, the worst first."
        blocks.append(Picture(figure, words, photo=True))
    rows = tuple(
        (
            names["test"][place] if names else f"test example {place:,}",
            caption.replace("\n", ", "),
            number(float(losses[k])),
        )
        for k, place, caption in zip(order, shown, captions, strict=True)
    )
    table = Table(("worst answers", "", "loss"), rows, numbers=False)
    blocks.append(
        table if test.inputs.ndim == 3 else Fold("The same in words", (table,))
    )
    return blocks


def _caption(judged, k: int) -> str:
    import numpy as np

    predictions, targets = judged.known
    classes, p = judged.about.classes, np.asarray(predictions[k])
    if judged.task.name == "classification":
        best = int(p.argmax())
        return (
            f"says: {classes[best]} ({p[best]:.1%})\n"
            f"true: {classes[targets[k]]} ({p[targets[k]]:.1%})"
        )
    if judged.task.name == "regression":
        true, said = (
            ", ".join(f"{x:.4g}" for x in np.ravel(a)) for a in (targets[k], p)
        )
        return f"true: {true}\nsays: {said}"
    truth = targets[k]
    wrong = np.where(np.isnan(truth), -1, np.abs(truth - p))
    place = np.unravel_index(wrong.argmax(), wrong.shape)
    step = f", step {place[0]}" if wrong.ndim == 2 else ""
    word = "yes" if truth[place] else "no"
    return f"{classes[place[-1]]}{step}\ntrue: {word}\nsays: {p[place]:.1%} yes"


def calibration(judged) -> Section | None:
    """Whether a classifier is as often right as it says."""
    from lstm_jax import figures

    if judged.calibration is None:
        return None
    found = judged.calibration
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
    base, now = (flat(dataclasses.asdict(c)) for c in (preset(name), judged.config))
    rows = tuple(
        (key, str(base[key]), str(now[key])) for key in now if now[key] != base[key]
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
