"""Decodes the prepared splits of a tfds set: images, clips, masks and boxes."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lstm_jax.data.boxes import table
from lstm_jax.data.cache import new_array
from lstm_jax.data.catalog import OWN
from lstm_jax.data.dataset import (
    LARGEST,
    SCENE_SIZE,
    DataError,
    check_size,
    common_size,
)
from lstm_jax.data.files.depth import FULL
from lstm_jax.data.files.images import decode, decode_mask
from lstm_jax.data.tfds.splits import numbers_of, read_blocks
from lstm_jax.targets import VOID

FALLBACK_SIZE = 32
# Masks without class names: the pixel value of each class, the background first.
TRIMAPS = {"oxford_iiit_pet": {"background": 2, "pet": 1, "border": 3}}


def decode_all(
    builder: Any,
    label: str,
    size: int | None,
    frames: int | None,
    sampling: str,
    folder: Path,
) -> dict:
    """Decodes the prepared splits to NAME_inputs.npy and NAME_targets.npy."""
    features, notes, name = builder.info.features, [], builder.name
    if name not in OWN:
        from lstm_jax.data.tfds.named_clips import decode_clips, find_frames

        if find_frames(features):
            return decode_clips(builder, label, frames, sampling, size, folder, LARGEST)
    if name == "emnist":
        notes.append("emnist stores its images transposed: they are transposed back")
    key = next(k for k in ("label", "target", "velocities") if k in features)
    dtype = np.int32 if key == "label" else np.float32
    for split, _, examples in _decoded(
        builder, label, size, FALLBACK_SIZE, notes, folder, {}
    ):
        targets = np.asarray([example[key] for _, example in examples], dtype)
        if key != "label":
            targets = targets.reshape(len(targets), -1)
        elif (targets < 0).any():  # the unlabelled split of a competition
            (folder / f"{split}_inputs.npy").unlink()
            continue
        np.save(folder / f"{split}_targets.npy", targets)
    classes = features["label"].names if "label" in features else []
    return {"classes": list(classes), "notes": notes, "depth": _depth(features)}


def decode_scenes(
    builder: Any, label: str, target_type: str, size: int | None, folder: Path
) -> dict:
    """As `decode_all`, for images or clips with masks or boxes, as in `Split`."""
    features, notes, name = builder.info.features, [], builder.name
    classes = _scene_classes(name, features, target_type, label)
    clips = "frames" in features
    masks = target_type == "masks" and not clips
    skip = {"segmentation_mask": _skip()} if masks else {}
    for split, shape, examples in _decoded(
        builder, label, size, SCENE_SIZE, notes, folder, skip
    ):
        rows = []
        for where, example in examples:
            if target_type == "boxes":
                rows.append(_boxes(example, shape, features))
            elif clips:
                rows.append(_resized_masks(example["segmentation_masks"], *shape[:2]))
            else:
                file = io.BytesIO(example["segmentation_mask"])
                mask = decode_mask(file, shape[:2], where)
                if name in TRIMAPS:
                    mask = _classes_of(mask, TRIMAPS[name].values())
                rows.append(mask)
        if target_type == "boxes" and not clips:
            most = max(1, *(len(r["labels"]) for r in rows))
            rows = [table(r["boxes"], r["labels"], most, **r["more"]) for r in rows]
        np.save(folder / f"{split}_targets.npy", np.stack(rows))
    return {"classes": list(classes), "notes": notes, "depth": _depth(features)}


def _depth(features: Any) -> int | None:
    """As `Dataset.depth`: tfds scales images of 16 bits by all of their bits."""
    deep = "image" in features and features["image"].np_dtype == np.uint16
    return FULL if deep else None


def _scene_classes(name: str, features: Any, target_type: str, label: str) -> tuple:
    """Class names of masks or boxes, and the feature that holds them."""
    inside = dict(features.items()) if hasattr(features, "items") else {}
    if name == "moving_digits_boxes":
        digits = tuple(features["labels"].feature.names)
        return digits if target_type == "boxes" else ("background", *digits)
    if target_type == "masks":
        mask = inside.get("segmentation_mask")
        if mask is not None and name in TRIMAPS:
            return tuple(TRIMAPS[name])
        if mask is not None and getattr(mask, "names", None):
            return tuple(mask.names)
        wanted = "image and segmentation_mask, a LabeledImage"
    else:
        each = getattr(inside.get("objects"), "feature", None)
        if hasattr(each, "items") and {"bbox", "label"} <= dict(each.items()).keys():
            return tuple(each["label"].names)
        wanted = "image and objects, each of a bbox and a label"
    raise DataError(
        f"{label}: has no {target_type} that this library supports; its features are "
        f"{', '.join(inside) or features}, expected {wanted}"
    )


def _classes_of(mask: np.ndarray, values: Iterable[int]) -> np.ndarray:
    """Index k where a pixel equals the k-th value; 255 elsewhere."""
    table = np.full(256, VOID, np.uint8)
    for k, value in enumerate(values):
        table[value] = k
    return table[mask]


def _boxes(example: dict, shape: tuple[int, ...], features: Any) -> Any:
    """Boxes of an image, in pixels; of a clip, tables [T, M, 7]."""
    height, width = shape[:2]
    if "objects" not in example:
        full_height, full_width = features["frames"].shape[1:3]
        scale = np.tile([width / full_width, height / full_height], 2)
        return np.stack(
            [
                table(boxes * scale, example["labels"], len(boxes), hidden=hidden)
                for boxes, hidden in zip(
                    example["boxes"], example["hidden"], strict=True
                )
            ]
        )
    found = example["objects"]
    corners = np.asarray(found["bbox"], np.float64).reshape(-1, 4)  # y0, x0, y1, x1
    boxes = corners[:, [1, 0, 3, 2]] * [width, height, width, height]
    labels = np.asarray(found["label"], np.int64).reshape(-1)
    crowd = found.get("is_crowd", found.get("iscrowd", np.zeros(len(labels))))
    return {
        "boxes": boxes,
        "labels": labels,
        "more": {"crowd": np.asarray(crowd, np.float32)},
    }


def _decoded(
    builder: Any,
    label: str,
    size: int | None,
    fallback: int,
    notes: list[str],
    folder: Path,
    skip: dict,
) -> Iterator[tuple[str, tuple[int, ...], Iterator]]:
    """Yields each split with its (H, W, C) and an iterator of examples.

    Consuming the examples, (name for errors, example), writes SPLIT_inputs.npy.
    """
    features = builder.info.features
    clips = builder.name in OWN and "frames" in features
    *steps, height, width, channels = features["frames" if clips else "image"].shape
    known, what = (height, width), "images of several sizes"
    height, width = common_size(known, size, fallback, what, notes)
    shape = height, width, 1 if channels == 1 else 3
    numbers = numbers_of(builder, label, notes)
    total = sum(numbers.values()) * int(np.prod((*steps, *shape)))
    what = f"images at {height}x{width}"
    check_size(label, total, what, LARGEST, "give a smaller --data.size")
    skip = skip if clips else {"image": _skip()} | skip

    def examples(split: str, n: int) -> Iterator[tuple[str, dict]]:
        path, whole = folder / f"{split}_inputs.npy", (n, *steps, *shape)
        inputs = new_array(path, np.uint8, whole)
        for i, example in read_blocks(builder.as_data_source(split, decoders=skip)):
            where = f"{label} {split} {i}"
            if clips:
                inputs[i] = _resized(example["frames"], height, width)
            else:
                image = decode(io.BytesIO(example["image"]), shape, where, FULL)
                inputs[i] = image.swapaxes(0, 1) if builder.name == "emnist" else image
            yield where, example
        inputs.flush()

    for split, n in numbers.items():
        yield split, shape, examples(split, n)


def _skip() -> Any:
    import tensorflow_datasets as tfds

    return tfds.decode.SkipDecoding()


def _resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes grey frames [T, h, w, 1] to [T, H, W, 1], like images."""
    if frames.shape[1:3] == (height, width):
        return frames
    pictures = [Image.fromarray(frame[..., 0]) for frame in frames]
    size, how = (width, height), Image.Resampling.BILINEAR
    return np.stack([p.resize(size, how) for p in pictures])[..., None]


def _resized_masks(masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes masks [T, h, w] to [T, H, W] by nearest neighbour."""
    size, how = (width, height), Image.Resampling.NEAREST
    return np.stack([np.asarray(Image.fromarray(m).resize(size, how)) for m in masks])
