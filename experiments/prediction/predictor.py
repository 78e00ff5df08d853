"""`Predictor`: a trained network, or the function of an exported file."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.prediction.inputs import listed
from experiments.spec import DataSpec
from lstm_jax import data

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Makes predictions for batches of any size.

    Attributes:
      kind: of the task.
      spec: of the data.
      apply: `{"inputs": ..., "lengths": ...} -> predictions`.
      sampling: how frames of a clip that is too long are selected.
      experiment: of the run; None for an exported file.
      params: of the run; None for an exported file.
      tuned: what was chosen on the validation split, such as thresholds.
      tables: the user's options for tables of files.
    """

    kind: Any
    spec: DataSpec
    apply: Callable[[dict[str, np.ndarray]], Any]
    sampling: str
    experiment: Any = None
    params: Any = None
    tuned: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tables: data.TableFormat = data.TableFormat()

    @property
    def config(self):
        """The configuration of the run."""
        return self.experiment.config

    def __call__(self, **batch: np.ndarray) -> np.ndarray:
        """Predictions for a batch: `inputs [B, ...]` and, for sequences, `lengths`."""
        return np.asarray(self.apply(batch))

    def read_clip(self, path: Path) -> tuple[np.ndarray, int]:
        """Reads a clip or a feature sequence.

        Returns:
          `(frames [T, ...], number of valid frames)`.

        Raises:
          DataError: it cannot be read.
        """
        frames, *shape = self.spec.image_shape
        if not self.spec.features:
            return data.read_clip(path, frames, tuple(shape), self.sampling)
        clip, length = data.read_features(path, frames, self.sampling)
        if clip.shape[1:] != tuple(shape):
            raise data.DataError(
                f"{path}: {clip.shape[-1]} features per step, but the run was trained "
                f"on {shape[0]}"
            )
        return clip, length


def predict_images(
    predictor: Predictor, paths: Sequence[str | Path]
) -> Iterator[dict[str, Any]]:
    """Predictions for image files, batch by batch."""
    spec, shape = predictor.spec, tuple(predictor.spec.image_shape)
    expand = partial(data.image_paths, form=predictor.tables)
    files = listed(paths, expand, spec)
    while rows := list(itertools.islice(files, BATCH)):
        images = []
        for row in rows:
            if "error" in row:
                continue
            try:
                image = data.read_image(row["path"], shape, spec.depth, spec.fit)
                images.append(image)
            except data.DataError as error:
                row["error"] = str(error)
        good = [row for row in rows if "error" not in row]
        if good:
            outputs = predictor(inputs=np.stack(images))
            for row, image, output in zip(good, images, outputs, strict=True):
                path = Path(row["path"])
                row |= predictor.kind.describe(predictor.spec, image, output, path)
                row |= predictor.kind.decide(row, predictor.tuned)
        yield from rows


def predict_clips(
    predictor: Predictor, paths: Sequence[str | Path]
) -> Iterator[dict[str, Any]]:
    """Predictions for clips, one by one."""
    expand = partial(_clip_files, form=predictor.tables)
    for row in listed(paths, expand, predictor.spec):
        if "error" not in row:
            try:
                row |= predictor.kind.predict_clip(predictor, Path(row["path"]))
            except data.DataError as error:
                row["error"] = str(error)
        yield row


def _clip_files(paths: list[Path], form: data.TableFormat) -> list[Path]:
    """As `data.clip_paths`; a table lists a clip once for each of its steps."""
    found: dict[Path, None] = {}
    for path in paths:
        table = path.suffix.lower() in data.TABLES
        clips = data.image_paths([path], form) if table else data.clip_paths([path])
        found |= dict.fromkeys(clips)
    return list(found)


def sampling_of(config: Any) -> str:
    """How frames of a long clip are selected; windows are used in training only."""
    sampling = config.data.sampling
    return "uniform" if sampling == "windows" else sampling
