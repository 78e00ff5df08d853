"""`DataSpec`: what a trained model needs to know about its data, in plain values."""

import dataclasses
from typing import Any

from experiments.errors import UsageError


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
      class_weights: of the loss, one per class, or [negative, positive] per label;
        [] for equal weights.
      depth: bits from which images of more than 8 bits are scaled; None: from those
        that each uses.
      fit: how images are given this shape, as in `lstm_jax.data.read_image`.
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
    depth: int | None = None
    fit: str = "squash"

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


_KINDS = {  # of the fields of `DataSpec`, as JSON has them
    "dataset": str,
    "classes": [str],
    "image_shape": [int],
    "outputs": int,
    "pixel_offset": [float],
    "pixel_scale": [float],
    "per_line": bool,
    "per_step": bool,
    "target_offset": float,
    "target_scale": float,
    "class_weights": ([float], [[float]]),
    "depth": (int, type(None)),
    "fit": str,
}
_OPTIONAL = {"class_weights", "depth", "fit"}  # weights of earlier versions have none


def read_spec(values: Any, where: str) -> DataSpec:
    """The `DataSpec` of what a file holds as "data".

    Raises:
      UsageError: a key is missing, unknown, or has a value of another kind.
    """
    if not isinstance(values, dict):
        raise UsageError(f'{where}: "data" is {values!r}, but it must be an object')
    wrong = [f"no data.{name}" for name in _KINDS.keys() - values.keys() - _OPTIONAL]
    wrong += [f"an unknown data.{name}" for name in values.keys() - _KINDS.keys()]
    wrong = wrong or [
        f"data.{name} of another kind"
        for name, kind in _KINDS.items()
        if name in values and not _is(values[name], kind)
    ]
    if wrong:
        raise UsageError(
            f"{where} has {', '.join(sorted(wrong))}: use the version of lstm_jax that "
            "wrote it, or train again"
        )
    return DataSpec(**values)


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, tuple):
        return any(_is(value, one) for one in kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is(item, kind[0]) for item in value)
    return type(value) is kind or (kind is float and type(value) is int)
