"""tfds builders of digits, generated offline from scikit-learn's real scans."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lstm_jax.data.catalog import OWN
from lstm_jax.data.holdout import stratified_holdout
from lstm_jax.data.synthetic.own import SCANS, OwnBuilder

_TEST = 360


def scans() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 scans: uint8 [N, 8, 8], 0..16 scaled to 0..255; labels int64 [N]."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return np.round(raw.images * (255 / 16)).astype(np.uint8), raw.target


def turned(scan: np.ndarray, degrees: float) -> np.ndarray:
    """A scan enlarged to uint8 [16, 16], rotated counter-clockwise."""
    large = Image.fromarray(scan).resize((16, 16), Image.Resampling.BICUBIC)
    return np.asarray(large.rotate(degrees, Image.Resampling.BICUBIC))


def angles() -> np.ndarray:
    """The angle of each image in `digits_angle`: float32 [N], degrees in [-45, 45]."""
    drawn = np.random.default_rng(1).uniform(-45, 45, size=len(scans()[1]))
    return drawn.astype(np.float32)


def split_rows() -> dict[str, np.ndarray]:
    """The fixed split, stratified by digit: 1,437 train, 360 test."""
    train, test = stratified_holdout(scans()[1], _TEST, np.random.default_rng(0))
    return {"train": train, "test": test}


with tfds.core.registered.skip_registration():

    class Digits(OwnBuilder):
        """8x8 scans of handwritten digits, for classification."""

        name = "digits"
        VERSION = tfds.core.Version(OWN["digits"])
        citation = SCANS
        shuffled = True

        def features(self) -> dict[str, Any]:
            return {
                "image": tfds.features.Image(shape=(8, 8, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }

        def parts(self) -> dict[str, np.ndarray]:
            return split_rows()

        def _generate_examples(self, split: str, indices: np.ndarray) -> Iterator:
            images, labels = scans()
            for i in indices.tolist():
                yield i, {"image": images[i, ..., None], "label": int(labels[i])}

    class DigitsAngle(Digits):
        """Rotated 16x16 scans of handwritten digits; the angle is the target."""

        name = "digits_angle"
        VERSION = tfds.core.Version(OWN["digits_angle"])

        def features(self) -> dict[str, Any]:
            return {
                "image": tfds.features.Image(shape=(16, 16, 1)),
                "target": tfds.features.Tensor(shape=(1,), dtype=np.float32),
            }

        def _generate_examples(self, split: str, indices: np.ndarray) -> Iterator:
            images, degrees = scans()[0], angles()
            for i in indices.tolist():
                image = turned(images[i], float(degrees[i]))
                yield i, {"image": image[..., None], "target": degrees[i : i + 1]}
