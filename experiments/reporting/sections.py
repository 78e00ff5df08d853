"""The sections of the report of one run, each a function of an `Evaluation`."""

import dataclasses
import math
from typing import Any

from experiments.choices import flat, to_dict
from experiments.config import preset, train_line
from experiments.evaluation.undefined import undefined_auc
from experiments.numbers import number, percent
from experiments.presets import PRESETS
from experiments.reporting.data_section import data_section
from experiments.reporting.diagnosis import diagnosis
from experiments.reporting.evaluation import Evaluation
from experiments.reporting.page import (
    Code,
    Fold,
    Picture,
    Section,
    Table,
    Tiles,
    Words,
    between,
    plural,
    size,
    value,
)
from experiments.run import record
from experiments.run.display import forgotten_lines, scored_baselines
from lstm_jax import figures
from lstm_jax.metrics import RESAMPLES, reliability

LONG = 12  # tables with more rows are collapsed


def single(evaluation: Evaluation):
    """`(title, lead, sections, numbers)` of one run; the numbers are plain values."""
    makers = (metrics, curves, errors, calibration, diagnosis)
    makers += (data_section, model, configuration, environment)
    sections = [part for make in makers if (part := make(evaluation)) is not None]
    found, kept = evaluation.model, ("layers", "flops")
    numbers = {
        "run": str(evaluation.run),
        "step": evaluation.step,
        "finished": evaluation.finished is not None,
        "test": evaluation.test,
        "duplicates": evaluation.experiment.duplicates.counts(),
        "intervals": {k: list(pair) for k, pair in evaluation.intervals.items()},
        "model": {k: v for k, v in found.items() if k not in kept}
        | {"flops": found["flops"].total},
    }
    title = f"Run {evaluation.run.resolve().name}"
    return title, head(evaluation), sections, numbers


def head(evaluation: Evaluation) -> tuple[Any, ...]:
    """The first blocks: description, warnings and headline numbers."""
    kind, spec, finished = evaluation.kind, evaluation.spec, evaluation.finished
    count = len(evaluation.dataset.splits["test"].inputs)
    words = (
        f"{kind.name.capitalize().replace('_', ' ')} on {spec.dataset}: "
        f"{plural(count, 'test image' if spec.is_image else 'test clip')} of "
        f"{'x'.join(map(str, spec.image_shape))}, checkpoint of step "
        f"{evaluation.step:,}."
    )
    blocks: list[Any] = [Words(words, "quiet")]
    if not finished:
        words = (
            f"This run is unfinished: it stopped at step {evaluation.last_step:,} of "
            f"{evaluation.experiment.steps:,}. Rerun its train command to resume it."
        )
        blocks.append(Words(words, "warning"))
    tiles, changed = [], []
    for name, label, _ in kind.metrics[:4]:
        now = value(evaluation.test, name)
        before = value(finished or {}, f"test.{name}")
        both = isinstance(now, float) and isinstance(before, float)
        if both and abs(now - before) > 1e-3 * max(1.0, abs(now)):
            changed.append(
                f"{label} was {number(before, name)}, is {number(now, name)}"
            )
    if changed:
        words = (
            "The test metrics differ from report.json: "
            f"{'; '.join(changed)}. The data, the code or the device has changed."
        )
        blocks.append(Words(words, "warning"))
    labels = {name: label for name, label, _ in kind.metrics}
    for name in kind.headlines:
        if (now := value(evaluation.test, name)) is not None:
            own = name in ("mae", "rmse")
            unit = getattr(evaluation.config.task, "unit", "") if own else ""
            ends = between(evaluation.intervals.get(name), name)
            tiles.append((labels[name], f"{number(now, name)} {unit}".strip(), ends))
    return (*blocks, Tiles(tuple(tiles))) if tiles else tuple(blocks)


def metrics(evaluation: Evaluation) -> Section:
    """All test metrics, with intervals and baselines."""
    test, dataset = evaluation.test, evaluation.dataset
    if not evaluation.has_targets:
        words = "No test example has a known target, so there are no test metrics."
        return Section("Test metrics", (Words(words),))
    baselines = (evaluation.finished or {}).get("baselines", {})
    others = scored_baselines(test | {"baselines": baselines})
    rows = tuple(
        (
            label,
            number(found, name),
            between(evaluation.intervals.get(name), name),
            *(number(value(other, name), name) for other in others.values()),
        )
        for name, label, _ in evaluation.kind.metrics
        if (found := value(test, name)) is not None
    )
    header = ("", "test", "95 % interval", *(w.replace("_", " ") for w in others))
    words = (
        f"Intervals: 95 % percentile bootstrap over {test['examples']:,} test "
        f"examples, {RESAMPLES:,} resamples, seed 0; they cover the variation of the "
        "test set, not that of training."
    )
    of = [names["test"] for names in (dataset.groups, dataset.names) if names]
    if any(len(set(labels)) < len(labels) for labels in of):
        words += (
            " Examples of one group or clip were resampled as if independent, so the "
            "intervals are too narrow."
        )
    blocks = [Table(header, rows), Words(words, "quiet")]
    if missing := undefined_auc(test):
        blocks.insert(1, Words(missing, "warning"))
    forgotten = forgotten_lines(evaluation.finished or {})
    blocks += [Words(line) for line in forgotten]
    blocks += [*_differences(evaluation.kind, baselines), *_per_class(evaluation)]
    return Section("Test metrics", tuple(blocks))


def _differences(kind, baselines: dict[str, Any]) -> list[Any]:
    """How much better the run is than each baseline, with an interval."""
    rows = tuple(
        (
            name.replace("_", " "),
            number(found["difference"]["mean"]),
            between(found["difference"]["interval"]),
            number(found["learnt"]) if found["learnt"] else "",
            number(found["examples"]),
        )
        for name, found in baselines.items()
        if "difference" in found
    )
    if not rows:
        return []
    label = next(label for name, label, _ in kind.metrics if name == kind.score)
    header = ("this run minus", label, "95 % interval")
    table = Table((*header, "learned from", "tested on"), rows)
    words = (
        "Differences are of the same test examples, drawn together: where 0 is inside "
        "the interval, the test set cannot tell the two apart."
    )
    return [table, Words(words, "quiet")]


def _per_class(evaluation: Evaluation) -> list[Any]:
    if evaluation.kind.by_class is None:
        return []
    title, keys = evaluation.kind.by_class
    found = evaluation.kind.class_rows(evaluation.test)
    if len(found) < 2:
        return []
    words = {"f1": "F1", "roc_auc": "ROC AUC", "r2": "R²", "psnr": "PSNR, dB"}
    words |= {"mse": "MSE", "mae": "MAE", "rmse": "RMSE", "ssim": "SSIM"}
    header = (title, *(words.get(key, key.replace("_", " ")) for key in keys))
    if "f1" in keys:  # lowest first
        found = sorted(found, key=lambda row: 2 if row["f1"] is None else row["f1"])
    rows = tuple(
        (row["name"], *(number(row[key], key) for key in keys)) for row in found
    )
    table = Table(header, rows)
    if len(rows) <= LONG:
        return [table]
    name = f"All {plural(len(rows), title)}".replace("classs", "classes")
    return [Fold(name, (table,))]


def curves(evaluation: Evaluation) -> Section:
    """Loss and metrics against steps."""
    picture = Picture(figures.curves(evaluation.rows), "Training and validation.")
    note = regularised(evaluation.rows, evaluation.config)
    return Section("Curves", (picture, Words(note, "quiet")) if note else (picture,))


def regularised(rows: list[dict[str, Any]], config) -> str:
    """Why the training loss is above the validation loss, in one sentence.

    Args:
      rows: of metrics.jsonl.
      config: of the run.

    Returns:
      "" if it is not above, or if nothing in the configuration explains it.
    """
    last = {row["split"]: row["loss"] for row in rows if row.get("loss") is not None}
    if not last.get("train", 0.0) > last.get("validation", math.inf):
        return ""
    augment, causes = config.augment, []
    model = flat(to_dict(config.model))
    if model.get("dropout") or " Do" in str(model.get("spec")):  # a VGSL dropout layer
        causes.append("dropout")
    if any(getattr(augment, f.name) != f.default for f in dataclasses.fields(augment)):
        causes.append("augmentation")
    if not causes:
        return ""
    return (
        f"The training loss is above the validation loss because {' and '.join(causes)}"
        f" {'are' if causes[1:] else 'is'} applied in training only."
    )


CAPTIONS = {
    "confusion_matrix": "Rows are the true classes; colour is the share of the row.",
    "roc": "True-positive against false-positive rate, one class against the rest.",
    "predictions": "Predicted against true values; the line marks equality.",
    "residuals": "Errors: predicted minus true.",
    "strip": "Input frames, true frames and predicted frames.",
    "error_over_time": "Error by predicted frame, with simple baselines.",
}


def errors(evaluation: Evaluation) -> Section | None:
    """The figures of the task, and the worst predictions."""
    if not evaluation.has_targets:
        return None
    predictions, targets = evaluation.known
    found = evaluation.task.figures(predictions, targets)
    blocks = [
        Picture(figure, CAPTIONS.get(name, name.replace("_", " ")), name == "strip")
        for name, figure in found.items()
    ]
    blocks += evaluation.kind.figures(evaluation)
    return Section("Errors", (*blocks, *evaluation.kind.worst(evaluation)))


def calibration(evaluation: Evaluation) -> Section | None:
    """Calibration of a classifier: reliability diagram, ECE and Brier score."""
    if not evaluation.kind.answers_right_or_wrong or not len(evaluation.known[1]):
        return None
    found, test = reliability(*evaluation.known), evaluation.test
    confidence = float(evaluation.known[0].max(-1).mean())
    words = (
        f"Mean confidence {percent(confidence)}, accuracy "
        f"{percent(test['accuracy'])}. Expected calibration error "
        f"{number(found.ece)}: the mean over examples of |accuracy - confidence| in "
        f"{len(found.count)} bins of equal width, "
        "((m - 1)/M, m/M], of the highest probability (Guo et al. 2017, On Calibration "
        f"of Modern Neural Networks). Brier score {number(test['brier'])}: the mean "
        "over examples of sum_k (p_k - y_k)², 0 to 2 (Brier 1950)."
    )
    figure = figures.reliability_figure(found)
    caption = "Accuracy by confidence; below, the number of examples in each bin."
    return Section("Calibration", (Words(words), Picture(figure, caption)))


def model(evaluation: Evaluation) -> Section:
    """Layers, parameters, FLOPs and memory of the network."""
    found = evaluation.model
    rows = tuple(
        (
            row.name,
            "x".join(map(str, row.output)) if row.output else "–",
            number(row.parameters),
            number(row.flops),
        )
        for row in found["layers"]
    )
    total = ("total", "", number(found["parameters"]), number(found["flops"].total))
    words = (
        "FLOPs of the forward pass of one example: matrix products and convolutions, "
        "two per multiply-add, loops counted with their iterations."
    )
    if found["flops"].unknown:
        words += f" Not counted correctly: {', '.join(found['flops'].unknown)}."
    evaluated, trained = evaluation.experiment.eval_size(), evaluation.config.batch_size
    memory = {
        "parameters": "parameter_bytes",
        "optimizer state": "optimizer_bytes",
        f"temporaries in evaluation, batch size {evaluated}": "eval_bytes",
        f"temporaries of the gradient, batch size {trained}": "train_bytes",
    }
    sizes = tuple((label, size(found[key])) for label, key in memory.items())
    return Section(
        "Model",
        (
            Table(("layer", "output", "parameters", "FLOPs"), (*rows, total)),
            Words(words, "quiet"),
            Table(("memory", ""), sizes),
        ),
    )


def configuration(evaluation: Evaluation) -> Section:
    """The train command, the options that differ from the preset, and all options."""
    trained_by, config = evaluation.preset, evaluation.config
    name = trained_by if trained_by in PRESETS else "digits"
    base, now = (flat(to_dict(c)) for c in (preset(name), config))
    blocks: list[Any] = [Code(train_line(name, config))]
    if name != trained_by:
        words = f"The preset {trained_by} no longer exists; compared with {name}."
        blocks.append(Words(words, "warning"))
    rows = tuple(
        (key, str(base.get(key, "")), str(now[key]))
        for key in now
        if now[key] != base.get(key)
    )
    if rows:
        changed = Table(("option", f"preset {name}", "this run"), rows, False)
        blocks.append(Fold("Differences from the preset", (changed,)))
    else:
        blocks.append(Words(f"All options equal those of the preset {name}."))
    rows = tuple((key, str(option)) for key, option in now.items())
    blocks.append(Fold("All options", (Table(("option", ""), rows, False),)))
    return Section("Configuration", tuple(blocks))


def environment(evaluation: Evaluation) -> Section:
    """Versions and devices of training and of this evaluation."""
    finished, now = evaluation.finished or {}, record.environment()
    then = finished.get("environment", {})

    def text(found, key):
        return "–" if found.get(key) is None else str(found[key])

    rows = tuple(
        (key.replace("_", " "), text(then, key), text(now, key))
        for key in dict.fromkeys([*then, *now])
    )
    blocks: list[Any] = [Table(("", "training", "this evaluation"), rows, False)]
    if rate := value(finished, "train.images_per_second"):
        blocks.insert(0, Words(f"Training speed: {rate:,.0f} examples per second."))
    return Section("Environment", tuple(blocks))
