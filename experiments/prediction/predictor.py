"""A trained network that answers batches of any size."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.experiment import Experiment
from experiments.prediction.answers import BATCH
from lstm_jax import data


class Predictor:
    """A trained network, compiled.

    Args:
      experiment: of the run.
      params: of its network.
    """

    def __init__(self, experiment: Experiment, params: Any):
        self.experiment, self.params = experiment, params
        self.config, self.spec = experiment.config, experiment.spec
        self.kind = experiment.kind
        self._compiled = jax.jit(lambda batch: experiment.predictions(params, batch))

    def __call__(self, **batch: np.ndarray) -> np.ndarray:
        """Predictions of a batch of `inputs` and, of sequences, `lengths`."""
        count = len(batch["inputs"])
        whole = not self.spec.pictures or "lengths" in batch
        size = count if whole else BATCH

        def padded(x):
            return np.concatenate([x, np.zeros((size - count, *x.shape[1:]), x.dtype)])

        batch = {name: padded(x) for name, x in batch.items()}
        return np.asarray(self._compiled(batch))[:count]

    def read_clip(self, path: Path) -> tuple[np.ndarray, int]:
        """A clip, or a sequence of features, and its number of steps."""
        frames, *shape = self.spec.image_shape
        windows = self.config.data.sampling == "windows"
        sampling = "spread" if windows else self.config.data.sampling
        if self.spec.features:
            return data.read_features(path, frames, sampling)
        return data.read_clip(path, frames, tuple(shape), sampling)
