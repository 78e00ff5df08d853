"""Lines of text: what a run reads, what it leaves behind, and what predict answers."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from experiments import record
from experiments.config import UsageError
from experiments.options import Config
from lstm_jax import data, figures, metrics, tasks
from lstm_jax.models import crnn
from lstm_jax.models.vgsl import Spec, parse
from lstm_jax.models.vgsl_layers import Output

SHOWN = 24  # lines on a sheet
BATCH = 32
# Widths that predict pads lines to, in columns for each row of their height; and one
# more, for the widest that can be.
REACHES = (5, 8, 12, 18, 27, 40, 60)
ALTO = "http://www.loc.gov/standards/alto/ns-v4#"


def line_spec(config: Config, outputs: int) -> Spec:
    """What a network that reads lines does to sizes.

    Raises:
      ValueError: the spec is malformed, or gives no sequence for CTC.
    """
    if config.model.kind == "crnn":
        return crnn(outputs).spec
    spec = parse(config.model.spec)
    if spec.output is not None and spec.output[:2] != (1, "c"):
        raise UsageError(
            f"model.spec ends with {spec.output}, but text is read by CTC: end it with "
            "O1c and any number, or leave the output out"
        )
    name = spec.output.name if spec.output else ""
    return spec.with_output(Output(1, "c", outputs, name))


def steps_of(config: Config, widths: Any) -> Any:
    """Steps that come out of lines of so many columns: an int, or an array of them."""
    return line_spec(config, 2).steps(widths + 2 * config.model.margin)


def height(config: Config) -> int:
    """Pixels that lines are scaled to.

    Raises:
      UsageError: the network wants another height than data.size.
    """
    spec = line_spec(config, 2)
    wanted = spec.height if spec.height > 1 else spec.channels * (spec.height == 1)
    size = config.data.size
    if wanted and size not in (None, wanted):
        raise UsageError(
            f"data.size={size}, but the network reads lines {wanted} pixels high; "
            "leave data.size out, or write its height into model.spec"
        )
    return wanted or size or 32


def readable(
    config: Config, dataset: data.Dataset, known: Sequence[str]
) -> data.Dataset:
    """A data set with the labels of `known`, without lines that CTC cannot learn."""
    alphabet = list(dict.fromkeys([*known, *dataset.classes]))
    table = np.asarray([0, *(1 + alphabet.index(c) for c in dataset.classes)], np.int32)

    def relabelled(split: data.Split) -> data.Split:
        return split._replace(targets=table[split.targets])

    splits = {name: relabelled(split) for name, split in dataset.splits.items()}
    more = {name: relabelled(split) for name, split in (dataset.more or {}).items()}
    train, notes = splits["train"], list(dataset.notes)
    bad = metrics.infeasible(train.targets, steps_of(config, train.lengths))
    if bad.any():
        first = int(bad.argmax())
        text = tasks.text_of(train.targets[first], alphabet)
        notes.append(
            f"skipped {int(bad.sum()):,} training lines with more characters than "
            f"steps, such as {text!r} on {train.lengths[first]} columns; a network "
            "with smaller strides from left to right could read them"
        )
        kept = np.flatnonzero(~bad)
        if not len(kept):
            raise UsageError(f"{dataset.name}: {notes[-1]}; no line is left")
        splits["train"] = data.Split(
            *(None if part is None else part[kept] for part in train)
        )
        if dataset.names:
            names = tuple(dataset.names["train"][k] for k in kept)
            dataset = dataset._replace(names={**dataset.names, "train": names})
    return dataset._replace(
        splits=splits, more=more or None, classes=tuple(alphabet), notes=tuple(notes)
    )


def answer(
    alphabet: Sequence[str], rows: np.ndarray, steps: int, width: int, margin: float = 0
):
    """What a prediction [T, 4] says of a line so many columns wide.

    Args:
      alphabet: characters by label, the first of label 1.
      rows: of the task's predictions.
      steps: of the line and of its margins.
      width: columns of the picture.
      margin: columns of the same size that were put before and after it.

    Returns:
      `text`; `confidence`, the mean of its characters'; and `characters`, in the order
      in which they stand: dicts of `character`, `confidence` and `x`, from which column
      to which one.
    """
    scale, found = (width + 2 * margin) / max(steps, 1), []
    for label, confidence, first, last in rows.tolist():
        if label:
            character = alphabet[int(label) - 1]
            ends = [
                round(min(max(step * scale - margin, 0.0), width), 1)
                for step in (first, last)
            ]
            found.append(dict(character=character, confidence=confidence, x=ends))
    sure = [one["confidence"] for one in found]
    return {
        "text": data.logical("".join(one["character"] for one in found)),
        "confidence": float(np.mean(sure)) if sure else 0.0,
        "characters": found,
    }


def sheet(
    config: Config,
    dataset: data.Dataset,
    split: data.Split,
    predictions: np.ndarray,
    *,
    worst: bool,
):
    """Lines with what was read below them, errors coloured: a Figure."""
    distances = metrics.example_losses("recognition", predictions, split.targets)
    order = (
        np.argsort(-distances, kind="stable") if worst else np.arange(len(distances))
    )
    shown = order[:SHOWN]
    sides = ((0, 0), (config.model.margin,) * 2)
    lines = (split.inputs[k, :, : split.lengths[k], 0] for k in shown)
    return figures.lines_figure(
        [np.pad(line, sides, constant_values=255) for line in lines],
        [tasks.text_of(split.targets[k], dataset.classes) for k in shown],
        predictions[shown],
        steps_of(config, split.lengths[shown]),
        dataset.classes,
        title="The worst lines" if worst else "The first lines",
    )


def leave(
    config: Config, dataset: data.Dataset, predictions: np.ndarray, directory: Path
) -> None:
    """Pictures of the first and of the worst test lines, and all texts as a table."""
    test = dataset.splits["test"]
    for name, worst in (("lines", False), ("worst_lines", True)):
        figure = sheet(config, dataset, test, predictions, worst=worst)
        record.save_figure(directory / f"{name}.png", figure)
    rows = []
    for k, (true, read) in enumerate(zip(test.targets, predictions, strict=True)):
        true, read = (
            data.logical(tasks.text_of(labels, dataset.classes))
            for labels in (true, read[:, 0])
        )
        name = dataset.names["test"][k] if dataset.names else k
        rows.append({"line": name, "true": true, "read": read})
    record.write_table(directory / "test_lines.csv", rows)


def predict(config: Config, about: Any, read: Any, files: Sequence[Path]) -> Iterator:
    """Answers line after line: dicts of `path`, `size` (width and height of the file,
    in pixels) and what `answer` has, or `error`.

    Args:
      config, about: of the run.
      read: (inputs [B, H, W, 1], lengths [B]) -> predictions [B, T, 4].
      files: pictures of one line each.
    """
    high = about.image_shape[0]
    widths = sorted({*(reach * high for reach in REACHES), data.WIDEST})
    # The first one alone, so that an answer is there after one compilation.
    ends = [0, 1, *range(8 * BATCH, len(files) + 8 * BATCH, 8 * BATCH)]
    for start, end in itertools.pairwise(ends):
        rows, waiting = [], [[] for _ in widths]
        for path in files[start:end]:
            rows.append({"path": str(path)})
            try:
                image = data.read_line(path, high)
            except data.DataError as error:
                rows[-1]["error"] = str(error)
                continue
            bucket = int(data.bucket_of(image.shape[1], widths))
            waiting[bucket].append((rows[-1], image))
        for width, members in zip(widths, waiting, strict=True):
            for first in range(0, len(members), BATCH):
                part = members[first : first + BATCH]
                inputs = np.zeros((BATCH, high, width, 1), np.uint8)
                lengths = np.zeros(BATCH, np.int32)
                for k, (_, image) in enumerate(part):
                    inputs[k, :, : image.shape[1]] = image
                    lengths[k] = image.shape[1]
                outputs, steps = read(inputs, lengths), steps_of(config, lengths)
                for k, (row, _) in enumerate(part):
                    length = int(lengths[k])
                    size = data.picture_size(Path(row["path"])) or (high, length)
                    row["size"] = [int(size[1]), int(size[0])]
                    sides = config.model.margin * size[1] / length
                    about_line = outputs[k], int(steps[k]), size[1], sides
                    row |= answer(about.classes, *about_line)
        yield from rows


def as_text(answers: Sequence[dict[str, Any]]) -> str:
    """One line of text for each picture, in order; empty where it cannot be read."""
    return "".join(row.get("text", "") + "\n" for row in answers)


def _words(characters: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Characters between spaces."""
    words: list[list[dict[str, Any]]] = [[]]
    for one in characters:
        if one["character"] == " ":
            words.append([])
        else:
            words[-1].append(one)
    return [word for word in words if word]


def as_alto(answers: Sequence[dict[str, Any]]) -> str:
    """ALTO 4 XML: each picture a page with one line.

    Args:
      answers: as `predict` gives them.
    """
    ElementTree.register_namespace("", ALTO)
    root = ElementTree.Element(f"{{{ALTO}}}alto")

    def add(parent, name: str, text: str | None = None, **attributes: Any):
        made = ElementTree.SubElement(parent, f"{{{ALTO}}}{name}")
        made.text = text
        for key, value in attributes.items():
            made.set(key, f"{value:.3f}" if isinstance(value, float) else str(value))
        return made

    described = add(root, "Description")
    add(described, "MeasurementUnit", "pixel")
    source = add(described, "sourceImageInformation")
    layout = add(root, "Layout")
    for number, row in enumerate(answers):
        add(source, "fileIdentifier", row["path"])
        page = add(layout, "Page", ID=f"page_{number}", PHYSICAL_IMG_NR=number + 1)
        if "error" in row:
            continue
        width, high = row["size"]
        place = dict(HPOS=0, VPOS=0, WIDTH=width, HEIGHT=high)
        page.set("WIDTH", str(width))
        page.set("HEIGHT", str(high))
        block = add(add(page, "PrintSpace"), "TextBlock", ID=f"block_{number}")
        line = add(block, "TextLine", ID=f"line_{number}", **place)
        words = _words(row["characters"])
        read = [data.logical("".join(one["character"] for one in w)) for w in words]
        if sorted(row["text"].split()) == sorted(read) and row["text"].split() != read:
            words, read = words[::-1], read[::-1]  # from right to left
        for number_of_word, (word, text) in enumerate(zip(words, read, strict=True)):
            if number_of_word:
                add(line, "SP")
            left, right = word[0]["x"][0], word[-1]["x"][1]
            place = dict(HPOS=left, VPOS=0, WIDTH=right - left, HEIGHT=high)
            sure = float(np.mean([one["confidence"] for one in word]))
            add(line, "String", CONTENT=text, WC=sure, **place)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"
