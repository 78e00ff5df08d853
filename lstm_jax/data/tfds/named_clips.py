"""Clips of tfds data sets: finds the feature with frames and decodes those needed."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from lstm_jax.data.cache import new_array
from lstm_jax.data.dataset import DataError, check_size, common_size
from lstm_jax.data.files.clip_files import pick_steps
from lstm_jax.data.files.depth import FULL
from lstm_jax.data.files.images import decode
from lstm_jax.data.tfds.splits import numbers_of, read_blocks

_FRAMES = 16
_FALLBACK_SIZE = 64
_AT_ONCE = 16  # clips in memory
REFUSED = {  # refused before anything is downloaded
    "moving_mnist": "holds test clips only; use moving_digits/mnist, which is made of "
    "the same digits and has a train split as well",
    "starcraft_video": "needs TensorFlow to parse, which this library does not "
    "use; save its clips as videos or folders of frames and give their folder",
}


class Frames(NamedTuple):
    """The feature that holds a clip's frames.

    Attributes:
      path: the keys that lead to it.
      shape: (T, H, W, C), None where it differs between clips.
      label: the key of the class; None if there is none.
      others: other sequences of images, which are not read.
    """

    path: tuple[str, ...]
    shape: tuple[int | None, ...]
    label: str | None
    others: tuple[str, ...]


def find_frames(features: Any) -> Frames | None:
    """Finds the frames among tfds features: a Video, or a Sequence of images.

    If there are several, the first that is not a segmentation map. None if there are
    none, or if the example also has a single image and its class.
    """
    inside = {}
    if isinstance(features, tfds.features.FeaturesDict):
        inside = dict(features.items())
    classes = [k for k, f in inside.items() if isinstance(f, tfds.features.ClassLabel)]
    if isinstance(inside.get("image"), tfds.features.Image) and "label" in classes:
        return None
    found = sorted(_walk(features, (), False), key=lambda one: one[1].use_colormap)
    if not found:
        return None
    (path, _), *others = found
    shape = features.get_tensor_info()
    for key in path:
        shape = shape[key]
    label = "label" if "label" in classes else None
    if len(classes) == 1:
        (label,) = classes
    return Frames(path, shape.shape, label, tuple("/".join(p) for p, _ in others))


def _walk(feature: Any, path: tuple[str, ...], inside: bool) -> Iterator:
    """(path, Image) of every 8-bit image that is in exactly one sequence."""
    if isinstance(feature, tfds.features.Image):
        if inside and path and feature.np_dtype == np.uint8:
            yield path, feature
    elif isinstance(feature, tfds.features.Dataset):
        return
    elif isinstance(feature, tfds.features.Sequence):
        if not inside:
            yield from _walk(feature.feature, path, True)
    elif isinstance(feature, tfds.features.FeaturesDict):
        for key, one in feature.items():
            yield from _walk(one, (*path, key), inside)


class _Encoded(tfds.decode.SkipDecoding):
    """Returns encoded image files undecoded, single ones and sequences."""

    def decode_example_np(self, example: Any) -> Any:
        return example

    decode_batch_example_np = decode_ragged_example_np = decode_example_np


def _undecoded(feature: Any) -> Any:
    """Decoders that leave all images of a set encoded."""
    if isinstance(feature, tfds.features.Image):
        return _Encoded()
    if isinstance(feature, tfds.features.Dataset):
        return None
    if isinstance(feature, tfds.features.Sequence):
        return _undecoded(feature.feature)
    if isinstance(feature, tfds.features.FeaturesDict):
        inside = {key: _undecoded(one) for key, one in feature.items()}
        return {key: one for key, one in inside.items() if one} or None
    return None


def decode_clips(
    builder: Any,
    label: str,
    frames: int | None,
    sampling: str,
    size: int | None,
    folder: Path,
    largest: int,
) -> dict:
    """Decode the needed frames of a prepared set to SPLIT_inputs.npy and others.

    Arrays per split: `inputs` uint8 [rows, T, H, W, C]; `targets` int32 [rows], -1
    without classes; `lengths` int32 [rows], if any clip is shorter than T; `owners`
    int32 [rows], the index of the clip that a row comes from.

    Args:
      builder: prepared; its features include frames.
      label: the set's name, for errors.
      frames, sampling, size: as in `load_named`; size None: the common size, or 64.
      folder: where the arrays are written.
      largest: limit on the size of the decoded clips, bytes.

    Returns:
      dict: "classes" and "notes".

    Raises:
      DataError: too large, no train split, or a clip without frames.
    """
    features, notes = builder.info.features, []
    found = find_frames(features)
    steps, height, width, channels = found.shape
    steps = frames or steps or _FRAMES
    known, what = (height, width), "frames of several sizes"
    height, width = common_size(known, size, _FALLBACK_SIZE, what, notes)
    shape = (height, width, 1 if channels == 1 else 3)
    if found.others:
        notes.append(
            f"clips are its {'/'.join(found.path)}; not used: {', '.join(found.others)}"
        )
    rows = numbers_of(builder, label, notes)
    stored = {
        split: builder.as_data_source(split, decoders=_undecoded(features))
        for split in rows
    }
    if sampling == "windows":
        for split, source in stored.items():
            totals = (len(files) for _, files, _ in _read(label, found, split, source))
            rows[split] = sum(-(-total // steps) for total in totals)
    needed = sum(rows.values()) * steps * int(np.prod(shape))
    remedy = "give a smaller --data.size or --data.frames"
    check_size(label, needed, f"{steps} frames of {height}x{width}", largest, remedy)
    shorter = False
    for split, source in stored.items():
        arrays = {
            name: np.empty(rows[split], np.int32)
            for name in ("targets", "lengths", "owners")
        }
        path = folder / f"{split}_inputs.npy"
        out = new_array(path, np.uint8, (rows[split], steps, *shape))
        row = 0
        for number, files, target in _read(label, found, split, source):
            for picked in pick_steps(len(files), steps, sampling):
                for place, step in zip(out[row], picked, strict=False):
                    name = f"{label} {split} {number}, frame {step}"
                    place[:] = decode(io.BytesIO(files[step]), shape, name, FULL)
                values = target, len(picked), number
                for array, value in zip(arrays.values(), values, strict=True):
                    array[row] = value
                row += 1
        out.flush()
        del out
        if found.label and (arrays["targets"] < 0).any():  # split of a competition
            path.unlink()
            continue
        shorter |= bool((arrays["lengths"] < steps).any())
        for name, array in arrays.items():
            np.save(folder / f"{split}_{name}.npy", array)
    for path in () if shorter else [*folder.glob("*_lengths.npy")]:
        path.unlink()
    classes = features[found.label].names if found.label else []
    return {"classes": list(classes), "notes": notes}


def _read(label: str, found: Frames, split: str, source: Any) -> Iterator:
    """(index, encoded frames, class or -1) of every clip of a split."""
    for number, example in read_blocks(source, _AT_ONCE):
        files = example
        for key in found.path:
            files = files[key]
        if not len(files):
            raise DataError(f"{label}: clip {number} of {split} has no frames")
        yield number, files, example[found.label] if found.label else -1
