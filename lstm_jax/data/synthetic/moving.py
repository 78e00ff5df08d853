"""tfds builders of videos of moving, bouncing objects, generated offline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from lstm_jax.data.catalog import OWN
from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.images import probe, read_image
from lstm_jax.data.holdout import stratified_holdout
from lstm_jax.data.synthetic.digits import scans, split_rows
from lstm_jax.data.synthetic.own import DIGITS, OwnBuilder
from lstm_jax.data.synthetic.scenes import enlarged

FRAMES, SIDE, BOX = 20, 64, 28  # frames per video; sides of a frame, an object, pixels
FREE = SIDE - BOX  # range of an object's corner, pixels
STEP = 0.1  # speed, fraction of the free range per frame
SEED = 0
SCANS_FILE = "digits.png"
DIRECTIONS = (
    *("east", "north-east", "north", "north-west"),
    *("west", "south-west", "south", "south-east"),
)
NUMBERS = {  # videos per split, by config
    "digits": {"train": 4_000, "test": 500},
    "mnist": {"train": 10_000, "test": 2_000},
    "fashion_mnist": {"train": 10_000, "test": 2_000},
    "scans": {"train": 4_000, "test": 500},
    "content": {"train": 2_000, "test": 500},
    "motion": {"train": 2_000, "test": 500},
}
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_CITATION = """\
N. Srivastava, E. Mansimov, R. Salakhutdinov: Unsupervised Learning of Video
Representations using LSTMs, ICML 2015."""


class Stills(NamedTuple):
    """Images of objects to move; train and test share none.

    Attributes:
      images: uint8 [N, 28, 28] by split, "train" and "test".
      labels: int [N] by split, a class index.
    """

    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def digit_stills() -> Stills:
    """scikit-learn's 8x8 scans scaled to 20x20 in a 28x28 box, split as `digits`."""
    small, labels = scans()
    boxes = np.pad([enlarged(scan, 20) for scan in small], ((0, 0), (4, 4), (4, 4)))
    return _split(boxes, labels, split_rows())


def scan_stills(path: Path) -> Stills:
    """The 5,000 20x20 digits of OpenCV's digits.png, 1,000 of them for test.

    Raises:
      DataError: the image is not 2000x1000 pixels (100 digits per row).
    """
    found = probe(path)
    if found and found.size != (1000, 2000):
        height, width = found.size
        raise DataError(f"{path}: {width}x{height} pixels; expected 2000x1000")
    sheet = read_image(path, (1000, 2000, 1)).reshape(50, 20, 100, 20)
    boxes = np.zeros((5000, BOX, BOX), np.uint8)
    boxes[:, 4:-4, 4:-4] = sheet.swapaxes(1, 2).reshape(5000, 20, 20)
    labels = np.arange(5000) // 500
    train, test = stratified_holdout(labels, 1000, np.random.default_rng(0))
    return _split(boxes, labels, {"train": train, "test": test})


def image_stills(arrays: dict[str, np.ndarray]) -> Stills:
    """Stills from a cached data set of 28x28 grey images: SPLIT_inputs, _targets."""
    splits = ("train", "test")
    return Stills(
        {split: arrays[f"{split}_inputs"][..., 0] for split in splits},
        {split: arrays[f"{split}_targets"] for split in splits},
    )


def _split(images: np.ndarray, labels: np.ndarray, indices: dict) -> Stills:
    return Stills(
        {split: images[rows] for split, rows in indices.items()},
        {split: labels[rows] for split, rows in indices.items()},
    )


def bounce(start: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a bouncing object in 20 frames of the unit square, as in OpenSTL.

    One step is made before every frame, including the first. A coordinate outside
    [0, 1] is clipped and its velocity component changes sign.

    Args:
      start: float64 [2], (x, y) in [0, 1], fractions of the free range.
      velocity: float64 [2], fractions of the free range per frame.

    Returns:
      (positions, velocities), float64 [T, 2] each: the position in each frame, and the
      velocity after that frame's bounce.
    """
    positions, velocities = np.empty((FRAMES, 2)), np.empty((FRAMES, 2))
    for axis in (0, 1):
        at, speed = float(start[axis]), float(velocity[axis])
        for t in range(FRAMES):
            at += speed
            if at <= 0.0 or at >= 1.0:
                at, speed = min(max(at, 0.0), 1.0), -speed
            positions[t, axis], velocities[t, axis] = at, speed
    return positions, velocities


def composed(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Composes objects on black; the brightest value wins at each pixel.

    Args:
      images: uint8 [M, 28, 28].
      positions: float64 [M, T, 2], (x, y) of the top left corner, in [0, 1].

    Returns:
      uint8 [T, 64, 64, 1].
    """
    frames = np.zeros((FRAMES, SIDE, SIDE), np.uint8)
    corners = (FREE * positions).astype(np.int32)
    for image, track in zip(images, corners, strict=True):
        for frame, (left, top) in zip(frames, track.tolist(), strict=True):
            spot = frame[top : top + BOX, left : left + BOX]
            np.maximum(spot, image, out=spot)
    return frames[..., None]


def example(
    stills: Stills,
    split: str,
    index: int,
    *,
    objects: int,
    clear: int = 0,
    seed: int = SEED,
) -> dict[str, np.ndarray]:
    """Video number `index` of a split, a function of (seed, split, index).

    Start position, direction and still are uniform. Objects are ordered from left to
    right in the first frame, because nothing else orders them.

    Args:
      stills: images of the objects.
      split: "train" or "test".
      index: at least 0.
      objects: M, number of objects.
      clear: steps before the first possible bounce, 0..10; with 0, as in OpenSTL,
        the start position covers the whole range.
      seed: random seed.

    Returns:
      dict:
        frames: uint8 [T, 64, 64, 1].
        contents: int [M], class of each object.
        velocities: float32 [M, 2], (dx, dy) after the first frame, pixels per frame;
          x to the right, y downwards.
    """
    rng = np.random.default_rng([seed, ("train", "test").index(split), index])
    draws = rng.random((objects, 4))
    which = (draws[:, 0] * len(stills.images[split])).astype(np.int64)
    angles = 2 * np.pi * draws[:, 1]
    drawn = STEP * np.stack([np.cos(angles), -np.sin(angles)], axis=-1)  # [M, 2]
    low, high = np.maximum(0, -clear * drawn), np.minimum(1, 1 - clear * drawn)
    starts = low + (high - low) * draws[:, 2:]
    tracks = [bounce(*pair) for pair in zip(starts, drawn, strict=True)]
    positions, velocities = map(np.stack, zip(*tracks, strict=True))  # [M, T, 2]
    left, top = (FREE * positions[:, 0]).astype(np.int32).T
    order = np.lexsort((top, left))
    return {
        "frames": composed(stills.images[split][which], positions),
        "contents": stills.labels[split][which[order]],
        "velocities": (FREE * velocities[order, 0]).astype(np.float32),
    }


def direction(velocity: np.ndarray) -> int:
    """Index into DIRECTIONS of the direction nearest to a velocity (dx, dy)."""
    angle = np.arctan2(-velocity[1], velocity[0])
    return int(np.round(angle / (np.pi / 4))) % len(DIRECTIONS)


with tfds.core.registered.skip_registration():

    class MovingDigits(OwnBuilder):
        """Two 28x28 digits (or clothes) that move and bounce in 20 frames of 64x64.

        From the smaller sets of stills, `digits` and `scans`: 4,000 training and 500
        test videos; from `mnist` and `fashion_mnist`: 10,000 and 2,000. Training and
        test videos share no stills. Set `stills` before preparing.
        """

        name = "moving_digits"
        VERSION = tfds.core.Version(OWN["moving_digits"])
        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name="digits", description="scikit-learn's scans"),
            tfds.core.BuilderConfig(name="mnist", description="digits of MNIST"),
            tfds.core.BuilderConfig(name="fashion_mnist", description="clothes"),
            tfds.core.BuilderConfig(name="scans", description="OpenCV's digits.png"),
        ]
        citation = _CITATION
        stills: Stills | None = None

        def features(self) -> dict[str, Any]:
            clothes = self.builder_config.name == "fashion_mnist"
            label = tfds.features.ClassLabel(names=_CLOTHES if clothes else DIGITS)
            return self._frames() | dict(
                contents=tfds.features.Sequence(label, length=2),
                velocities=tfds.features.Tensor(shape=(2, 2), dtype=np.float32),
            )

        def _frames(self) -> dict[str, Any]:
            shape = (FRAMES, SIDE, SIDE, 1)
            options = dict(dtype=np.uint8, encoding="bytes")
            return {"frames": tfds.features.Tensor(shape=shape, **options)}

        def parts(self) -> dict[str, int]:
            return NUMBERS[self.builder_config.name]

        def _generate_examples(self, split: str, number: int) -> Iterator:
            for index in range(number):
                yield index, example(self.stills, split, index, objects=2)

    class MovingDigit(MovingDigits):
        """One 28x28 handwritten digit that moves and bounces in 20 frames of 64x64.

        The target is the digit (`content`) or its initial direction (`motion`), the
        nearest of eight compass directions, north up. There is no bounce in the first
        5 frames. 2,000 training and 500 test videos, the same for both configs.
        """

        name = "moving_digit"
        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name="content", description="which digit"),
            tfds.core.BuilderConfig(name="motion", description="which direction"),
        ]

        def features(self) -> dict[str, Any]:
            motion = self.builder_config.name == "motion"
            names = DIRECTIONS if motion else DIGITS
            return self._frames() | dict(
                label=tfds.features.ClassLabel(names=names),
                velocity=tfds.features.Tensor(shape=(2,), dtype=np.float32),
            )

        def _generate_examples(self, split: str, number: int) -> Iterator:
            motion = self.builder_config.name == "motion"
            for index in range(number):
                video = example(self.stills, split, index, objects=1, clear=5)
                velocity, content = video["velocities"][0], video["contents"][0]
                label = direction(velocity) if motion else int(content)
                yield (
                    index,
                    {"frames": video["frames"], "label": label, "velocity": velocity},
                )
