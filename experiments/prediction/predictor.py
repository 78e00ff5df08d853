"""What answers: a trained network, or the compiled function of an exported file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.spec import DataSpec
from experiments.tasks import TaskKind
from lstm_jax import data


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Answers batches of any size.

    Attributes:
      kind: of the task.
      spec: of the data.
      answer: `{"inputs": ..., "lengths": ...} -> predictions`.
      sampling: of the frames of a clip that is too long.
      experiment, params: of a run; an exported file has none.
    """

    kind: TaskKind
    spec: DataSpec
    answer: Callable[[dict[str, np.ndarray]], Any]
    sampling: str
    experiment: Any = None
    params: Any = None

    @property
    def config(self):
        """The configuration of the run."""
        return self.experiment.config

    def __call__(self, **batch: np.ndarray) -> np.ndarray:
        """Predictions of a batch of `inputs` and, of sequences, `lengths`."""
        return np.asarray(self.answer(batch))

    def read_clip(self, path: Path) -> tuple[np.ndarray, int]:
        """A clip, or a sequence of features, and its number of steps.

        Raises:
          DataError: it cannot be read.
        """
        frames, *shape = self.spec.image_shape
        if not self.spec.features:
            return data.read_clip(path, frames, tuple(shape), self.sampling)
        clip, length = data.read_features(path, frames, self.sampling)
        if clip.shape[1:] != tuple(shape):
            raise data.DataError(
                f"{path}: steps of {clip.shape[-1]} features, but {shape[0]} are wanted"
            )
        return clip, length


def sampling_of(config: Any) -> str:
    """How a clip that is too long is read: windows are for training alone."""
    sampling = config.data.sampling
    return "spread" if sampling == "windows" else sampling
