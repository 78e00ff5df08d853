"""Clips of a stock tfds set: where its frames are, and decoding those wanted."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from lstm_jax.data.cache import new_array
from lstm_jax.data.dataset import DataError, check_size, sides
from lstm_jax.data.files.clip_files import pick_steps
from lstm_jax.data.files.images import decode
from lstm_jax.data.tfds.splits import numbers_of, read_blocks

_FRAMES = 16
_FALLBACK_SIZE = 64
_AT_ONCE = 16  # clips in memory
REFUSED = {  # before anything is downloaded for nothing
    "moving_mnist": "holds test clips only; use moving_digits/mnist, which is made of "
    "the same digits and has a train split as well",
    "starcraft_video": "is read by TensorFlow's own graph, which this library does not "
    "use; save its clips as videos or folders of frames and give their folder",
}


class Frames(NamedTuple):
    """Where in an example its frames are.

    Attributes:
      path: keys that lead there.
      shape: (T, H, W, C), None where it differs from clip to clip.
      label: key of the class, None where there is none.
      others: other sequences of images, that are not read.
    """

    path: tuple[str, ...]
    shape: tuple[int | None, ...]
    label: str | None
    others: tuple[str, ...]


def find_frames(features: Any) -> Frames | None:
    """The frames among tfds features: a Video, or a Sequence that holds an Image.

    Of several the first that is no map of segments. None where there are none, or
    beside an image and its class.
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
    """(path, Image) of every 8-bit image that lies in exactly one sequence."""
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
    """Gives the files of images as they are stored, alone and in sequences."""

    def decode_example_np(self, example: Any) -> Any:
        return example

    decode_batch_example_np = decode_ragged_example_np = decode_example_np


def _undecoded(feature: Any) -> Any:
    """Decoders that leave every image of a set as it is stored."""
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
    """Decode the wanted frames of a prepared set into SPLIT_inputs.npy and others.

    Beside `inputs` uint8 [rows, T, H, W, C]: `targets` int32 [rows], -1 without
    classes; `lengths` int32 [rows], where a clip is shorter than T; `owners` int32
    [rows], which clip of the split a row is of.

    Args:
      builder: prepared; its features have frames.
      label: what an error names.
      frames, sampling, size: as in `load_named`; where sizes differ, None is 64.
      folder: to write into.
      largest: bytes that the decoded clips may take.

    Returns:
      Facts: "classes" and "notes".

    Raises:
      DataError: too many bytes, no train split, or a clip without frames.
    """
    features, notes = builder.info.features, []
    found = find_frames(features)
    steps, height, width, channels = found.shape
    steps = frames or steps or _FRAMES
    known, told = (height, width), "frames of several sizes"
    height, width = sides(known, size, _FALLBACK_SIZE, told, notes)
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
                    place[:] = decode(io.BytesIO(files[step]), shape, name)
                values = target, len(picked), number
                for array, value in zip(arrays.values(), values, strict=True):
                    array[row] = value
                row += 1
        out.flush()
        del out
        if found.label and (arrays["targets"] < 0).any():  # a contest's split
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
    """(number, its frames' files, class or -1) of every clip of a split."""
    for number, example in read_blocks(source, _AT_ONCE):
        files = example
        for key in found.path:
            files = files[key]
        if not len(files):
            raise DataError(f"{label}: clip {number} of {split} has no frames")
        yield number, files, example[found.label] if found.label else -1
