"""Clip files: frames of videos, GIFs and folders of images; steps of features."""

import contextlib
import itertools
import os
import re
import threading
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.decoding import to_array
from lstm_jax.data.files.images import SUFFIXES, probe, read_image, reason

VIDEOS = frozenset(".mp4 .avi .mov .mkv .webm".split())
FEATURES = ".npy"
SAMPLINGS = ("uniform", "start", "windows")
# NumPy parses an .npy's header with `ast`, which is not thread-safe in Python 3.11.
_HEADERS = threading.Lock()
_LAST_NUMBER = re.compile(r"(.*?)([0-9]+)[^0-9]*", re.DOTALL)
_EARLY = 0.9  # a video whose frames end before this share of its duration is cut off


class Clip(NamedTuple):
    """What is known of a clip before its frames are decoded.

    Attributes:
      steps: number of frames, or of feature steps; at least 1.
      sizes: the distinct (H, W) of the frames, pixels; for features {(F,)}.
      grey: whether all frames are grey; False if that is known only after decoding.
      flaws: problems of the file, one line each.
    """

    steps: int
    sizes: frozenset[tuple[int, ...]]
    grey: bool
    flaws: tuple[str, ...] = ()


def is_video(path: Path) -> bool:
    """Whether a file is read by PyAV: neither an image, GIF nor features."""
    return path.suffix.lower() not in {*SUFFIXES, FEATURES} and not path.is_dir()


def is_animated(path: Path) -> bool:
    """Whether an image file has several frames."""
    try:
        with Image.open(path) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # Pillow raises exceptions of many types
        return False


def import_av(name: str) -> Any:
    """Imports PyAV, which decodes videos; `name` is the source, for errors."""
    try:
        import av
    except ImportError as error:
        raise DataError(
            f"{name}: reading videos needs PyAV ({error}); pip install av"
        ) from error
    if not hasattr(av.VideoFrame, "rotation"):
        raise DataError(
            f"{name}: PyAV {av.__version__} is too old to read videos upright; "
            'pip install "av>=14.2"'
        )
    return av


def natural(name: str) -> list:
    """Sort key for natural order, in which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def frame_files(folder: Path) -> list[Path]:
    """Images directly in a folder, in natural order."""
    with os.scandir(folder) as inside:
        names = [entry.name for entry in inside if not entry.name.startswith(".")]
    kept = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    return [folder / name for name in sorted(kept, key=lambda n: (natural(n), n))]


def pick_steps(total: int, frames: int, sampling: str) -> list[np.ndarray]:
    """Steps of a clip that make up its examples.

    Args:
      total: steps of the clip, at least 1.
      frames: T, the maximum number of steps per example, at least 1.
      sampling: "uniform" from the first to the last, "start", or "windows".

    Returns:
      Ascending int64 [at most T] for each example: one, or one for each window.
    """
    if sampling == "windows":
        starts = range(0, total, frames)
        return [np.arange(start, min(start + frames, total)) for start in starts]
    count = min(frames, total)
    if sampling == "start" or count == 1:
        return [np.arange(count)]
    return [np.arange(count) * (total - 1) // (count - 1)]


def probe_clip(path: Path) -> Clip:
    """Metadata of a clip, or of an .npy file of features.

    Raises:
      DataError: the file is missing, empty or unreadable; one line.
    """
    try:
        if path.is_dir():
            return _probe_images(path, frame_files(path))
        if not path.stat().st_size:
            raise DataError(f"{path}: an empty file")
        if path.suffix.lower() == FEATURES:
            features = _features(path)
            return Clip(len(features), frozenset([features.shape[1:]]), False)
        if path.suffix.lower() == ".gif":
            return _probe_animation(path)
        if path.suffix.lower() in SUFFIXES:
            return _probe_images(path, [path])
        return _probe_video(path)
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from error


def _probe_images(path: Path, files: list[Path]) -> Clip:
    if not files:
        raise DataError(f"{path}: no images in this folder")
    heads = [head for head in map(probe, files) if head]
    if not heads:
        read_image(files[0], (1, 1, 1))  # raises, with the reason
        raise DataError(f"{path}: not readable as images")
    sizes = frozenset(head.size for head in heads)
    flaws = tuple(_gaps(path, files))
    return Clip(len(files), sizes, all(head.grey for head in heads), flaws)


def _gaps(path: Path, files: list[Path]) -> list[str]:
    """A line if the frames' numbers, the last in each name, have gaps."""
    found = [_LAST_NUMBER.fullmatch(file.stem) for file in files]
    if len(files) < 3 or not all(found) or len({match[1] for match in found}) > 1:
        return []
    numbers = [int(match[2]) for match in found]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    if len(set(steps)) == 1:
        return []
    usual = min(steps, key=lambda step: (-steps.count(step), step))
    gaps = [k for k, step in enumerate(steps) if step != usual]
    first = files[gaps[0]].name, files[gaps[0] + 1].name
    return [
        f"{path}: its frames are not numbered evenly, but read as consecutive: "
        f"{len(gaps)} gap{'s' * (len(gaps) > 1)}, the first between {first[0]} and "
        f"{first[1]}"
    ]


def _probe_animation(path: Path) -> Clip:
    steps, grey, flaws, size = 0, True, (), (0, 0)
    try:
        with Image.open(path) as image:
            size = image.size[::-1]
            for frame in ImageSequence.Iterator(image):
                pixels = np.asarray(frame.convert("RGB"))
                grey = grey and bool((pixels == pixels[..., :1]).all())
                steps += 1
    except Exception as error:  # Pillow raises exceptions of many types
        if not steps:
            raise DataError(
                f"{path}: not a readable animation ({reason(error)})"
            ) from error
        flaws = (_early(path, steps, error),)
    return Clip(steps, frozenset([size]), grey, flaws)


def _probe_video(path: Path) -> Clip:
    with open_video(path) as container:
        first = next(_decoded(container, path), None)
        if isinstance(first, DataError) or first is None:
            raise DataError(f"{path}: not a readable video (no frame of it decodes)")
        size = (first.height, first.width)
        if first.rotation % 180:
            size = size[::-1]
        grey = first.format.name.startswith(("gray", "mono"))
    steps, packets, last, flaws = 0, 0, 0, ()
    with open_video(path) as container:
        stream = container.streams.video[0]
        try:
            for packet in container.demux(stream):
                packets += packet.size > 0
                steps += packet.size > 0 and not packet.is_discard
                if packet.pts is not None:
                    last = max(last, packet.pts + (packet.duration or 0))
        except Exception as error:  # PyAV's errors have no common base class
            flaws = (_early(path, steps, error),)
        last = float((last - (stream.start_time or 0)) * stream.time_base)
        duration = (container.duration or 0) / 1e6
        if not flaws and packets < stream.frames:
            flaws = (f"{path}: ends early, with {packets} of {stream.frames} frames",)
        elif not flaws and 0 < last < _EARLY * duration:
            flaws = (f"{path}: ends early, after {last:.1f} of {duration:.1f} s",)
    return Clip(max(steps, 1), frozenset([size]), grey, flaws)


def frames_of(
    path: Path, shape: tuple[int, int, int], wanted: Container[int] | None = None
) -> Iterator[tuple[int, np.ndarray | DataError]]:
    """Iterates over the frames of one clip in constant memory.

    Args:
      path: a GIF, a video, a folder of images, or one image.
      shape: (H, W, C) of the frames, C = 1 (grey) or 3 (RGB); they are resized
        without keeping the aspect ratio.
      wanted: indices of the frames to yield; None: all.

    Yields:
      (index, uint8 [H, W, C]), or (index, DataError) for an unreadable frame; a folder
      then continues, a file ends.
    """
    if path.is_dir() or path.suffix.lower() in SUFFIXES - {".gif"}:
        yield from _folder_frames(path, shape, wanted)
    elif path.suffix.lower() == ".gif":
        yield from _animation_frames(path, shape, wanted)
    else:
        with open_video(path) as container:
            yield from video_frames(container, path, shape, wanted)


def _folder_frames(path, shape, wanted):
    files = frame_files(path) if path.is_dir() else [path]
    depth = _depth_of_frames(files)
    for number, file in enumerate(files):
        if wanted is None or number in wanted:
            try:
                yield number, read_image(file, shape, depth)
            except DataError as error:
                yield number, error


def _depth_of_frames(files: list[Path]) -> int | None:
    """One depth for all frames of a clip, which would flicker otherwise."""
    first = probe(files[0]) if files else None
    if not first or not first.depth:
        return None
    heads = [head for head in map(probe, files) if head]
    return max(head.depth or 0 for head in heads)


def _animation_frames(path, shape, wanted):
    number = 0
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                if wanted is None or number in wanted:
                    yield number, to_array(frame, shape)
                number += 1
    except Exception as error:  # Pillow raises exceptions of many types
        yield number, DataError(_early(path, number, error))


def video_frames(container, path, shape, wanted=None):
    """As `frames_of`, from an open PyAV container."""
    for number, frame in enumerate(_decoded(container, path)):
        if not isinstance(frame, DataError):
            if wanted is not None and number not in wanted:
                continue
            try:
                frame = to_array(_upright(frame), shape)
            except Exception as error:  # PyAV's errors have no common base class
                frame = DataError(_early(path, number, error))
        yield number, frame
        if isinstance(frame, DataError):
            return


def _upright(frame: Any) -> Image.Image:
    transparent = any(part.is_alpha for part in frame.format.components)
    pixels = frame.to_ndarray(format="rgba" if transparent else "rgb24")
    # The rotation of the camera, in degrees counter-clockwise.
    turns = round(frame.rotation / 90)
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns)))


def _decoded(container: Any, path: Path | str) -> Iterator[Any]:
    """PyAV frames of a container; the last item may be a DataError instead."""
    number = 0
    decoding = container.decode(video=0)
    while True:
        try:
            frame = next(decoding)
        except (StopIteration, EOFError):
            return
        except Exception as error:  # PyAV's errors have no common base class
            yield DataError(_early(path, number, error))
            return
        yield frame
        number += 1


@contextlib.contextmanager
def open_video(path: Path | str, **options: Any) -> Iterator[Any]:
    """Context manager: a PyAV container of a file or device that holds a video.

    Raises:
      DataError: PyAV is not installed, or there is no video; one line.
    """
    av = import_av(str(path))
    try:
        container = av.open(str(path), **options)
    except Exception as error:  # PyAV's errors have no common base class
        raise DataError(f"{path}: not a readable video ({reason(error)})") from error
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: not a readable video (no images in it)")
        yield container


def fill_clip(
    path: Path, picked: Sequence[np.ndarray], out: np.ndarray
) -> tuple[list[list[int]], list[str]]:
    """Read the picked steps of a clip into its examples, without gaps.

    Args:
      path: as in `frames_of`, or an .npy of features.
      picked: int [at most T], steps of each example, from `pick_steps`.
      out: zeros, uint8 [examples, T, H, W, C] or float32 [examples, T, F]; filled.

    Returns:
      (steps that each example holds, problems, one line each).

    Raises:
      DataError: none of the steps can be read.
    """
    held: list[list[int]] = [[] for _ in picked]
    if path.suffix.lower() == FEATURES:
        features = _features(path)
        for number, steps in enumerate(picked):
            with np.errstate(over="ignore"):  # beyond float32: infinite, refused below
                values = np.asarray(features[steps], np.float32)
            if not np.isfinite(values).all():
                raise DataError(f"{path}: holds NaN or infinite numbers")
            out[number, : len(steps)] = values
            held[number] = steps.tolist()
        return held, []
    example = {int(step): k for k, steps in enumerate(picked) for step in steps}
    flaws = []
    for step, frame in frames_of(path, out.shape[2:], example):
        if isinstance(frame, DataError):
            flaws.append(str(frame))
            continue
        number = example.pop(step)
        out[number, len(held[number])] = frame
        held[number].append(step)
        if not example:
            break
    if not any(held):
        raise DataError(flaws[0] if flaws else f"{path}: no frame can be read")
    if example and not flaws:
        flaws.append(
            f"{path}: ends early, at frame {max(map(max, filter(None, held)))}"
        )
    return held, flaws


def _features(path: Path) -> np.ndarray:
    """Memory-mapped numbers [steps, F] of an .npy file."""
    try:
        with _HEADERS:
            features = np.lib.format.open_memmap(path, "r")
        shape, kind = features.shape, features.dtype.kind
    except OSError:
        raise
    except Exception as error:  # the parser of the header raises many types
        why = _npy_fault(path, str(error))
        raise DataError(f"{path}: not a readable .npy ({why})") from error
    if len(shape) != 2 or kind not in "fiu" or 0 in shape:
        raise DataError(
            f"{path}: {features.dtype} of shape {shape}; expected numbers "
            "[steps, F], both at least 1"
        )
    return features


def _npy_fault(path: Path, error: str) -> str:
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PK"):
        return "it is a zip archive, such as .npz; save one array per file"
    if magic != b"\x93NUMPY":
        return "it does not begin like one"
    if "mmap length" in error:
        return "it is cut off: its header claims more than the file holds"
    if "Python objects" in error:
        return "it holds Python objects; save numbers"
    return "its header is damaged"


def _early(path: Path | str, frames: int, error: Exception) -> str:
    return f"{path}: ends early, after {frames} frames ({reason(error)})"
