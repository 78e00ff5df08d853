"""What a trained model must remember of its data, in plain values."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Classes, shapes and normalisation of a data set, measured on its training split.

    Attributes:
      dataset: name of the data set.
      classes: names of the labels, in their order.
      image_shape: of one example: (H, W, C) of a picture, (T, H, W, C) of a clip,
        (T, F) of a sequence of features.
      outputs: K, the width of the network's last layer.
      pixel_offset, pixel_scale: `(x - offset) * scale` is what the network reads.
      per_line: each line of text is normalised by its own columns instead.
      per_step: every step of a sequence has targets of its own.
      target_offset, target_scale: of a regression's targets, likewise.
      class_weights: of the loss, one a class; of labels of yes or no one of each: [no,
        yes]. [] weighs all alike.
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
    class_weights: list[Any] = dataclasses.field(default_factory=list)

    def normalize(self, inputs: Any, lengths: Any = None) -> Any:
        """What a network reads, float32, of inputs as they come, `[..., C]`.

        The only place that does it: in training, evaluation, prediction, streaming,
        inspection and export.

        Args:
          inputs: uint8 pixels or float features, a NumPy or JAX array.
          lengths: valid columns of lines of text, `[B]`.
        """
        import numpy as np

        inputs = inputs.astype(np.float32)
        if self.per_line:
            from lstm_jax.models.vgsl_net import standardized

            return standardized(inputs, lengths)
        offset = np.asarray(self.pixel_offset, np.float32)
        return (inputs - offset) * np.asarray(self.pixel_scale, np.float32)

    @property
    def pictures(self) -> bool:
        """Whether examples are single pictures, not sequences of steps."""
        return len(self.image_shape) == 3

    @property
    def features(self) -> bool:
        """Whether examples are sequences of vectors, not of pictures."""
        return len(self.image_shape) == 2
