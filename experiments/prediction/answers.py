"""Answers to a person's files, by anything that predicts; Flax is not needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax import data

BATCH = 256


def predict_pictures(
    kind: Any, predictor: Any, paths: Sequence[str | Path]
) -> Iterator[dict[str, Any]]:
    """Answers to pictures, a batch at a time."""
    shape = tuple(predictor.spec.image_shape)
    files = data.image_paths(paths)
    for start in range(0, len(files), BATCH):
        rows, images = [], []
        for path in files[start : start + BATCH]:
            rows.append({"path": str(path)})
            try:
                images.append(data.read_image(path, shape))
            except data.DataError as error:
                rows[-1]["error"] = str(error)
        good = [row for row in rows if "error" not in row]
        if good:
            outputs = predictor(inputs=np.stack(images))
            for row, image, output in zip(good, images, outputs, strict=True):
                row |= kind.describe(predictor.spec, image, output, Path(row["path"]))
        yield from rows


def predict_clips(
    kind: Any, predictor: Any, paths: Sequence[str | Path]
) -> Iterator[dict[str, Any]]:
    """Answers to clips, one after another."""
    for path in data.clip_paths(paths):
        row: dict[str, Any] = {"path": str(path)}
        try:
            row |= kind.predict_clip(predictor, path)
        except data.DataError as error:
            row["error"] = str(error)
        yield row
