"""Text recognition: the characters of a line, with CTC."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.choices import Size
from experiments.errors import UsageError
from experiments.options import LineAugment, Lines, TaskOptions
from experiments.tasks.kind import TaskKind

SHOWN = 24  # lines in a figure


def _as_text(predictions: list[dict]) -> str:
    from experiments.prediction import alto

    return alto.as_text(predictions)


def _as_xml(predictions: list[dict]) -> str:
    """A copy of the page's XML, or ALTO of images of lines."""
    from experiments.prediction import alto, page_xml

    pages = page_xml.by_page(predictions)
    if pages:
        ((file, rows),) = pages.items()
        return page_xml.transcribed(file, rows)
    return alto.as_alto(predictions)


@dataclass(frozen=True)
class Options(TaskOptions):
    """Text recognition: the characters of a line, with CTC."""

    name = "text_recognition"
    beam_width: Size = 0
    """Width of the beam search; 0: greedy (best-path) decoding."""


class TextRecognition(TaskKind):
    options = Options
    models = ("vgsl", "crnn")
    data = Lines
    augment = LineAugment
    target_type = "text"
    cross_validates = "--folds does not support text_recognition"
    bucketed = True
    extends_labels = True
    prints_at_once = True
    writes_files = True
    saves_when_asked = True
    metrics = (
        ("cer", "character error rate", "min"),
        ("wer", "word error rate", "min"),
        ("exact", "lines without an error", "max"),
        ("substitutions", "substituted characters", "min"),
        ("deletions", "deleted characters", "min"),
        ("insertions", "inserted characters", "min"),
    )
    headlines = ("cer", "wer", "exact")
    formats = MappingProxyType({".txt": _as_text, ".xml": _as_xml})

    def load_size(self, config) -> int:
        from experiments.models import model_kind

        return model_kind(config).height(config)

    def prepare(self, config, dataset, known):
        return (
            learnable(config, dataset, known)
            if dataset.target_type == "text"
            else dataset
        )

    def measure_inputs(self, config, train) -> dict[str, Any]:
        from lstm_jax import data

        if config.data.normalize == "line":
            return dict(pixel_offset=[0.0], pixel_scale=[1.0], per_line=True)
        columns = train.inputs.swapaxes(1, 2)
        how = config.data.normalize, train.lengths
        offset, scale = data.normalization(columns, *how)
        return dict(pixel_offset=offset.tolist(), pixel_scale=scale.tolist())

    def measure_targets(self, dataset) -> dict[str, Any]:
        return dict(outputs=len(dataset.classes) + 1)  # and the blank

    def objective(self, config, spec):
        from lstm_jax import tasks

        beam_width = config.task.beam_width or None
        return tasks.text_recognition(spec.classes, beam_width=beam_width)

    def widths(self, config, dataset, training: bool) -> tuple[int, ...]:
        """Quantiles of the widths of training lines, and one more if others are wider.

        Evaluation uses half as many, because compiling a program takes as long as
        recognising some thousand lines.
        """
        import numpy as np

        from lstm_jax import data

        count = config.data.buckets if training else (config.data.buckets + 1) // 2
        found = data.bucket_widths(dataset.splits["train"].lengths, count)
        splits = (*dataset.splits.values(), *(dataset.more or {}).values())
        widest = data.bucket_widths(np.asarray([s.lengths.max() for s in splits]), 1)
        return found if widest[0] <= found[-1] else found + widest

    def eval_size(self, config, dataset) -> int:
        return 64

    def save_outputs(self, experiment, predictions, directory: Path) -> None:
        """Writes figures of the first and the worst test lines, and all texts."""
        from experiments.run import record
        from lstm_jax import data, tasks

        dataset, test = experiment.dataset, experiment.dataset.splits["test"]
        losses = experiment.task.example_losses(predictions, test.targets)
        parts = experiment.config, dataset, predictions, losses
        for name, worst in (("lines", False), ("worst_lines", True)):
            figure = sheet(*parts, worst=worst)
            record.save_figure(directory / f"{name}.png", figure)
        rows = []
        for k, (target, found) in enumerate(
            zip(test.targets, predictions, strict=True)
        ):
            true, predicted = (
                data.logical(tasks.text_of(labels, dataset.classes))
                for labels in (target, found[:, 0])
            )
            name = dataset.names["test"][k] if dataset.names else k
            rows.append({"line": name, "true": true, "predicted": predicted})
        record.write_table(directory / "test_lines.csv", rows)

    def predict(self, predictor, paths) -> Iterator[dict[str, Any]]:
        from experiments.prediction import lines

        return lines.predict_lines(predictor, paths)

    def check_out(self, out, paths) -> None:
        from experiments.prediction import page_xml

        page_xml.check_out(out, paths)

    def save(self, spec, predictions, folder: Path) -> None:
        """Writes a copy of each page's XML with the recognised text."""
        from experiments.prediction import page_xml

        page_xml.save(predictions, folder)

    def row(self, prediction):
        line = f"#{prediction['line']}" if "line" in prediction else ""
        return prediction["path"] + line, prediction["text"]

    def worst(self, evaluation):
        from experiments.reporting.page import Picture

        shown = evaluation.known[0], evaluation.losses
        parts = evaluation.config, evaluation.dataset, *shown
        return [
            Picture(sheet(*parts, worst=worst), words, photo=True)
            for worst, words in (
                (True, "The worst lines, with the recognised text; errors in colour."),
                (False, "The first lines."),
            )
        ]


def learnable(config, dataset, known: Sequence[str]):
    """The data set without lines that are too short for CTC.

    Args:
      config: of the run.
      dataset: of lines of text.
      known: characters whose labels are fixed; new characters are appended.

    Raises:
      UsageError: no training line is left.
    """
    import numpy as np

    from experiments.models import model_kind
    from lstm_jax import data, metrics, tasks

    alphabet = list(dict.fromkeys([*known, *dataset.classes]))
    table = np.asarray([0, *(1 + alphabet.index(c) for c in dataset.classes)], np.int32)

    def relabelled(split):
        return split._replace(targets=table[split.targets])

    splits = {name: relabelled(split) for name, split in dataset.splits.items()}
    more = {name: relabelled(split) for name, split in (dataset.more or {}).items()}
    train, notes = splits["train"], list(dataset.notes)
    bad = metrics.infeasible(
        train.targets, model_kind(config).steps(config, train.lengths)
    )
    if bad.any():
        first = int(bad.argmax())
        text = repr(tasks.text_of(train.targets[first], alphabet))
        if dataset.names:
            text = f"{dataset.names['train'][first]}: {text}"
        notes.append(
            f"skipped {int(bad.sum()):,} training lines with more characters than "
            f"time steps, such as {text} in {train.lengths[first]} columns; smaller "
            "horizontal strides in --model.spec would allow them"
        )
        kept = np.flatnonzero(~bad)
        if not len(kept):
            raise UsageError(f"{dataset.name}: {notes[-1]}; no line is left")
        splits["train"] = data.Split(
            *(None if part is None else part[kept] for part in train)
        )
        for field in ("names", "groups"):
            if values := getattr(dataset, field):
                train = tuple(values["train"][k] for k in kept)
                dataset = dataset._replace(**{field: {**values, "train": train}})
    return dataset._replace(
        splits=splits, more=more or None, classes=tuple(alphabet), notes=tuple(notes)
    )


def sheet(config, dataset, predictions, losses, *, worst: bool):
    """A Figure of lines with the recognised text below, errors in colour."""
    import numpy as np

    from experiments.models import model_kind
    from lstm_jax import figures, tasks

    split = dataset.splits["test"]
    order = np.argsort(-losses, kind="stable") if worst else np.arange(len(losses))
    shown = order[:SHOWN]
    sides = ((0, 0), (config.model.pad,) * 2)
    lines = (split.inputs[k, :, : split.lengths[k], 0] for k in shown)
    return figures.lines_figure(
        [np.pad(line, sides, constant_values=255) for line in lines],
        [tasks.text_of(split.targets[k], dataset.classes) for k in shown],
        predictions[shown],
        model_kind(config).steps(config, split.lengths[shown]),
        dataset.classes,
        title="The worst lines" if worst else "The first lines",
    )


KIND = TextRecognition()
