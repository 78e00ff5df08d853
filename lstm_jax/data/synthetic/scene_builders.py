"""tfds builders of images with masks and with boxes, generated offline."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lstm_jax.data.catalog import OWN
from lstm_jax.data.synthetic import occluded, scenes
from lstm_jax.data.synthetic.own import DIGITS, SCANS, OwnBuilder

NUMBERS = {"train": 12_000, "test": 500}
CLIPS = {"train": 3_000, "test": 200}
MASKED = dict(objects=(1, 3), sides=(15, 20), pieces=5)
BOXED = dict(objects=(0, 4), sides=(14, 20), pieces=4)


def _boxes(boxes: np.ndarray, labels: np.ndarray) -> list[dict]:
    corners = boxes / scenes.SIDE
    return [
        {"bbox": tfds.features.BBox(y0, x0, y1, x1), "label": int(label)}
        for (x0, y0, x1, y1), label in zip(corners.tolist(), labels, strict=True)
    ]


with tfds.core.registered.skip_registration():

    class DigitsMasks(OwnBuilder):
        """One to three scanned digits on a cluttered 48x48 background, with masks.

        12,000 training and 500 test images. A mask is 0 on the background and 1 + d on
        the ink of a digit d.
        """

        name = "digits_masks"
        VERSION = tfds.core.Version(OWN["digits_masks"])
        citation = SCANS

        def features(self) -> dict[str, Any]:
            shape = (scenes.SIDE, scenes.SIDE, 1)
            classes = tfds.features.ClassLabel(names=("background", *DIGITS))
            return dict(
                image=tfds.features.Image(shape=shape),
                segmentation_mask=tfds.features.LabeledImage(
                    labels=classes.names, shape=shape
                ),
            )

        def parts(self) -> dict[str, int]:
            return NUMBERS

        def _generate_examples(self, split: str, number: int) -> Iterator:
            pool = scenes.scans_of(split)
            for index in range(number):
                drawn = scenes.scene(split, index, pool, **MASKED)
                yield (
                    index,
                    {"image": drawn["image"], "segmentation_mask": drawn["mask"]},
                )

    class DigitsBoxes(OwnBuilder):
        """Zero to four scanned digits on a cluttered 48x48 background, with boxes.

        12,000 training and 500 test images. A box encloses the digit's ink.
        """

        name = "digits_boxes"
        VERSION = tfds.core.Version(OWN["digits_boxes"])
        citation = SCANS

        def features(self) -> dict[str, Any]:
            box = {
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=DIGITS),
            }
            return dict(
                image=tfds.features.Image(shape=(scenes.SIDE, scenes.SIDE, 1)),
                objects=tfds.features.Sequence(box),
            )

        def parts(self) -> dict[str, int]:
            return NUMBERS

        def _generate_examples(self, split: str, number: int) -> Iterator:
            pool = scenes.scans_of(split)
            for index in range(number):
                drawn = scenes.scene(split, index, pool, **BOXED)
                yield (
                    index,
                    {
                        "image": drawn["image"],
                        "objects": _boxes(drawn["boxes"], drawn["labels"]),
                    },
                )

    class MovingDigitsBoxes(OwnBuilder):
        """Two scanned digits that move behind bars, with boxes: frames of 48x48.

        3,000 training and 200 test clips of 12 frames. The bars occlude the digits;
        boxes enclose the whole digit, visible or not, and `hidden` is the occluded
        fraction of its ink. `segmentation_mask` is 1 + d on the visible ink of a
        digit d.
        """

        name = "moving_digits_boxes"
        VERSION = tfds.core.Version(OWN["moving_digits_boxes"])
        citation = SCANS

        def features(self) -> dict[str, Any]:
            t, side, m = occluded.FRAMES, scenes.SIDE, occluded.OBJECTS
            tensor = tfds.features.Tensor
            return dict(
                frames=tensor(
                    shape=(t, side, side, 1), dtype=np.uint8, encoding="bytes"
                ),
                segmentation_masks=tensor(
                    shape=(t, side, side), dtype=np.uint8, encoding="bytes"
                ),
                boxes=tensor(shape=(t, m, 4), dtype=np.float32),
                hidden=tensor(shape=(t, m), dtype=np.float32),
                labels=tfds.features.Sequence(
                    tfds.features.ClassLabel(names=DIGITS), length=m
                ),
            )

        def parts(self) -> dict[str, int]:
            return CLIPS

        def _generate_examples(self, split: str, number: int) -> Iterator:
            pool = scenes.scans_of(split)
            for index in range(number):
                yield index, occluded.clip(split, index, pool)
