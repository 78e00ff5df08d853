"""Text recognition in images of single lines, and in pages with ALTO or PAGE XML."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.models import model_kind
from experiments.prediction.inputs import listed
from lstm_jax import data
from lstm_jax.data.files.images import find_images
from lstm_jax.data.files.line_reading import read_page_lines
from lstm_jax.data.files.pages import is_page, page_files, page_image, read_pages

BATCH = 32
# Bucket widths, in multiples of the line height; one more bucket has the largest
# supported width.
ASPECTS = (5, 8, 12, 18, 27, 40, 60)
# An image higher than TALLEST pixels and less than LONG times as wide is a page.
TALLEST, LONG = 256, 10
XML = ".xml"


def text_files(
    paths: Sequence[Path], form: data.TableFormat = data.TableFormat()
) -> list[Path]:
    """Images of lines, and ALTO or PAGE XML files instead of their page images.

    Args:
      paths: files, folders and tables.
      form: the user's options for tables.

    Raises:
      DataError: a path does not exist or holds neither, or a page has two XML files.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            pages = [f for f in find_images(path, (XML,)) if is_page(f)]
            owned = {page_image(file) for file in pages}
            images = [f for f in find_images(path) if f not in owned]
            found += sorted([*pages, *images]) or data.image_paths([path])
        elif path.suffix.lower() == XML:
            found.append(path)
        elif path.suffix.lower() in data.TABLES:
            found += data.image_paths([path], form)
        else:
            beside = page_files(path)
            if len(beside) > 1:
                names = " and ".join(map(str, beside))
                raise data.DataError(
                    f"{path}: described by {names}; give one of them instead"
                )
            found += beside or [path]
    return found


def predict_lines(
    predictor: Any, paths: Sequence[str | Path]
) -> Iterator[dict[str, Any]]:
    """Recognises lines of text.

    Args:
      predictor: the run's predictor.
      paths: images of one line each, folders, CSV tables; or pages, each given as
        ALTO or PAGE XML beside the page image, or as that image.

    Yields:
      A dict for each line: `path`, `size` (width and height in pixels) and the
      entries of `decoded`; for a line of a page also `page` (the XML file), `line`
      (its id) and `box` (x0, y0, x1, y1 on the page image). On failure: `path` and
      `error`.
    """
    config, spec = predictor.config, predictor.spec
    high = spec.image_shape[0]
    widths = sorted({*(aspect * high for aspect in ASPECTS), data.WIDEST})
    expand = partial(text_files, form=predictor.tables)
    found = _images(listed(paths, expand, spec), high)
    # The first part is a single line: its prediction waits for one compilation only.
    for size in itertools.chain([1], itertools.repeat(8 * BATCH)):
        if not (part := list(itertools.islice(found, size))):
            return
        waiting: list[list[tuple[dict, np.ndarray]]] = [[] for _ in widths]
        for row, image in part:
            if image is not None:
                bucket = int(data.bucket_of(image.shape[1], widths))
                waiting[bucket].append((row, image))
        for width, members in zip(widths, waiting, strict=True):
            for first in range(0, len(members), BATCH):
                batch = members[first : first + BATCH]
                inputs = np.zeros((BATCH, high, width, 1), np.uint8)
                lengths = np.zeros(BATCH, np.int32)
                for k, (_, image) in enumerate(batch):
                    inputs[k, :, : image.shape[1]] = image
                    lengths[k] = image.shape[1]
                outputs = predictor(inputs=inputs, lengths=lengths)
                steps = model_kind(config).steps(config, lengths)
                for k, (row, _) in enumerate(batch):
                    wide = row["size"][0]
                    sides = config.model.pad * wide / int(lengths[k])
                    about = outputs[k], int(steps[k]), wide, sides
                    row |= decoded(spec.classes, *about)
        yield from (row for row, _ in part)


def _images(
    rows: Iterable[dict[str, Any]], high: int
) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """`(row, image uint8 [high, W, 1])` of each line; the image is None on error."""
    for row in rows:
        path = Path(row["path"])
        if "error" in row:
            yield row, None
        elif path.suffix.lower() == XML:
            yield from _of_page(path, high)
        else:
            try:
                image = _line(path, row, high)
            except data.DataError as error:
                row["error"], image = str(error), None
            yield row, image


def _line(path: Path, row: dict[str, Any], high: int) -> np.ndarray:
    """Reads the image of one line, and adds its size to the row."""
    h, w = data.image_size(path) or (0, 0)
    if h > TALLEST and w < LONG * h:
        raise data.DataError(
            f"{path}: {w}x{h} pixels is a page, not a line of text; give its ALTO or "
            "PAGE XML with the lines, from kraken, eScriptorium or Transkribus, or cut "
            "it into images of one line each (if it is a single line, scale it to a "
            f"height of {TALLEST} pixels or less)"
        )
    image = data.read_line(path, high)
    row["size"] = [w, h]
    return image


def _of_page(
    file: Path, high: int
) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """The lines of a page, as `_images` yields them."""
    lines, faults, _ = read_pages([file], file.parent)
    for fault in faults:
        error = fault.removeprefix("skipped ").removeprefix("left out ")
        yield {"path": str(file), "error": error}, None
    if not lines:
        return
    for line, found in zip(lines, read_page_lines(lines, high), strict=True):
        row: dict[str, Any] = {"path": str(line.image), "page": str(file)}
        row["line"] = line.name.removeprefix(f"{file.name}#")
        if isinstance(found, data.DataError):
            yield row | {"error": str(found)}, None
            continue
        image, (x0, y0, x1, y1) = found
        row |= {"box": [x0, y0, x1, y1], "size": [x1 - x0, y1 - y0]}
        yield row, image


def decoded(alphabet: Sequence[str], rows, steps: int, width: int, pad: float = 0):
    """The recognised text of a line, with confidences and positions.

    Args:
      alphabet: characters; the first one has label 1.
      rows: the task's prediction, `[T, 4]`.
      steps: number of time steps of the line, including padding.
      width: width of the image, in pixels.
      pad: columns added on each side, in pixels of the image.

    Returns:
      A dict: `text`; `confidence`, the mean over characters; and `characters` from
      left to right: dicts of `character`, `confidence` and `x`, its first and last
      column in pixels.
    """
    scale, found = (width + 2 * pad) / max(steps, 1), []
    for label, confidence, first, last in rows.tolist():
        if label:
            character = alphabet[int(label) - 1]
            ends = [
                round(min(max(step * scale - pad, 0.0), width), 1)
                for step in (first, last)
            ]
            found.append(dict(character=character, confidence=confidence, x=ends))
    confidences = [one["confidence"] for one in found]
    return {
        "text": data.logical("".join(one["character"] for one in found)),
        "confidence": float(np.mean(confidences)) if confidences else 0.0,
        "characters": found,
    }
