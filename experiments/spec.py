"""`DataSpec`: what a trained model needs to know about its data, in plain values."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Classes, shapes and normalisation of a data set, measured on its training split.

    Attributes:
      dataset: name of the data set.
      classes: names of the labels, in order.
      image_shape: of one example: (H, W, C) of an image, (T, H, W, C) of a clip,
        (T, F) of a feature sequence.
      outputs: K, the width of the network's last layer.
      pixel_offset: per channel; the network's inputs are `(x - offset) * scale`.
      pixel_scale: per channel.
      per_line: standardise each line of text by its own statistics instead.
      per_step: every step of a sequence has its own target.
      target_offset: of regression targets, `(y - offset) / scale`.
      target_scale: of regression targets.
    """

    dataset: str
    classes: list[str]
    image_shape: list[int]
    outputs: int
    pixel_offset: list[float]
    pixel_scale: list[float]
    per_line: bool = False
    per_step: bool = False
    target_offset: float = 0.0
    target_scale: float = 1.0

    def normalize(self, inputs: Any, lengths: Any = None) -> Any:
        """Normalises inputs, in training, evaluation, prediction and export alike.

        Args:
          inputs: `[..., C]`, uint8 pixels or float features, a NumPy or JAX array.
          lengths: `[B]`, valid columns of lines of text.

        Returns:
          The float32 inputs of the network, `[..., C]`.
        """
        import numpy as np

        inputs = inputs.astype(np.float32)
        if self.per_line:
            from lstm_jax.models.vgsl_net import standardized

            return standardized(inputs, lengths)
        offset = np.asarray(self.pixel_offset, np.float32)
        return (inputs - offset) * np.asarray(self.pixel_scale, np.float32)

    @property
    def is_image(self) -> bool:
        """Whether examples are single images, not sequences."""
        return len(self.image_shape) == 3

    @property
    def features(self) -> bool:
        """Whether examples are sequences of feature vectors, not of images."""
        return len(self.image_shape) == 2
