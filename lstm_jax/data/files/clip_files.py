"""Clips from files: frames of videos, animations and folders; steps of features."""

import contextlib
import os
import re
import threading
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.images import SUFFIXES, fit, probe, read_image, reason

VIDEOS = frozenset(".mp4 .avi .mov .mkv .webm".split())
FEATURES = ".npy"
SAMPLINGS = ("uniform", "start", "windows")
# An .npy's header goes through `ast`, which threads of Python 3.11 must not do at once.
_HEADERS = threading.Lock()
_EARLY = 0.9  # share of the duration that a whole video reaches


class Clip(NamedTuple):
    """What is known of a clip before its frames are read.

    Attributes:
      steps: frames, or steps of features; at least 1.
      sizes: (H, W) of the frames, each once; of features {(F,)}.
      grey: whether all frames are; False where that takes decoding a video.
      flaws: what is wrong with it, one line each.
    """

    steps: int
    sizes: frozenset[tuple[int, ...]]
    grey: bool
    flaws: tuple[str, ...] = ()


def is_video(path: Path) -> bool:
    """Whether PyAV reads it: a file that is no picture, animation or features."""
    return path.suffix.lower() not in {*SUFFIXES, FEATURES} and not path.is_dir()


def is_animated(path: Path) -> bool:
    """Whether a picture file has several frames."""
    try:
        with Image.open(path) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # Pillow's readers raise whatever they meet
        return False


def import_av(name: str) -> Any:
    """PyAV, which reads the videos; `name` is who wants it."""
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
    """A key to sort names by, in which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def frame_files(folder: Path) -> list[Path]:
    """The pictures that lie directly in a folder, in natural order."""
    with os.scandir(folder) as inside:
        names = [entry.name for entry in inside if not entry.name.startswith(".")]
    kept = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    return [folder / name for name in sorted(kept, key=lambda n: (natural(n), n))]


def pick_steps(total: int, frames: int, sampling: str) -> list[np.ndarray]:
    """Which steps of a clip make up its examples.

    Args:
      total: steps of the clip, at least 1.
      frames: T, the most that an example takes, at least 1.
      sampling: "uniform" from the first to the last, "start", or "windows".

    Returns:
      int64 [at most T] for each example, ascending: one, or one for each window.
    """
    if sampling == "windows":
        starts = range(0, total, frames)
        return [np.arange(start, min(start + frames, total)) for start in starts]
    count = min(frames, total)
    if sampling == "start" or count == 1:
        return [np.arange(count)]
    return [np.arange(count) * (total - 1) // (count - 1)]


def probe_clip(path: Path) -> Clip:
    """What a clip's file tells; features if it is an .npy.

    Raises:
      DataError: missing, empty, or nothing that can be read (one line).
    """
    try:
        if path.is_dir():
            return _probe_pictures(path, frame_files(path))
        if not path.stat().st_size:
            raise DataError(f"{path}: an empty file")
        if path.suffix.lower() == FEATURES:
            features = _features(path)
            return Clip(len(features), frozenset([features.shape[1:]]), False)
        if path.suffix.lower() == ".gif":
            return _probe_animation(path)
        if path.suffix.lower() in SUFFIXES:
            return _probe_pictures(path, [path])
        return _probe_video(path)
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from error


def _probe_pictures(path: Path, files: list[Path]) -> Clip:
    if not files:
        raise DataError(f"{path}: no pictures in this folder")
    heads = [head for head in map(probe, files) if head]
    if not heads:
        read_image(files[0], (1, 1, 1))  # tells why
        raise DataError(f"{path}: not readable as pictures")
    sizes = frozenset(size for size, _ in heads)
    return Clip(len(files), sizes, all(grey for _, grey in heads))


def _probe_animation(path: Path) -> Clip:
    steps, grey, flaws, size = 0, True, (), (0, 0)
    try:
        with Image.open(path) as image:
            size = image.size[::-1]
            for frame in ImageSequence.Iterator(image):
                pixels = np.asarray(frame.convert("RGB"))
                grey = grey and bool((pixels == pixels[..., :1]).all())
                steps += 1
    except Exception as error:  # Pillow's readers raise whatever they meet
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
        except Exception as error:  # PyAV's errors share no base with Python's
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
    """Frames of one clip, one after the other; memory does not grow with the clip.

    Args:
      path: an animation, a video, a folder of pictures, or one picture.
      shape: (H, W, C) wanted, C = 1 (grey) or 3 (RGB); frames are stretched to it.
      wanted: frames to give, by number; None: all.

    Yields:
      (number, uint8 [H, W, C]); in its place the error of a frame that cannot be read,
      after which a folder goes on and a file ends.
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
    for number, file in enumerate(files):
        if wanted is None or number in wanted:
            try:
                yield number, read_image(file, shape)
            except DataError as error:
                yield number, error


def _animation_frames(path, shape, wanted):
    number = 0
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                if wanted is None or number in wanted:
                    yield number, fit(frame, shape)
                number += 1
    except Exception as error:  # Pillow's readers raise whatever they meet
        yield number, DataError(_early(path, number, error))


def video_frames(container, path, shape, wanted=None):
    """As `frames_of`, of a container that PyAV has open."""
    for number, frame in enumerate(_decoded(container, path)):
        if not isinstance(frame, DataError):
            if wanted is not None and number not in wanted:
                continue
            try:
                frame = fit(_upright(frame), shape)
            except Exception as error:  # PyAV's errors share no base with Python's
                frame = DataError(_early(path, number, error))
        yield number, frame
        if isinstance(frame, DataError):
            return


def _upright(frame: Any) -> Image.Image:
    transparent = any(part.is_alpha for part in frame.format.components)
    pixels = frame.to_ndarray(format="rgba" if transparent else "rgb24")
    # How a phone was held, in degrees counter-clockwise.
    turns = round(frame.rotation / 90)
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns)))


def _decoded(container: Any, path: Path | str) -> Iterator[Any]:
    """Frames of a container, PyAV's own; the last may be a DataError instead."""
    number = 0
    decoding = container.decode(video=0)
    while True:
        try:
            frame = next(decoding)
        except (StopIteration, EOFError):
            return
        except Exception as error:  # PyAV's errors share no base with Python's
            yield DataError(_early(path, number, error))
            return
        yield frame
        number += 1


@contextlib.contextmanager
def open_video(path: Path | str, **options: Any) -> Iterator[Any]:
    """PyAV's container of a file or device that holds a video.

    Raises:
      DataError: there is no PyAV, or it finds no video (one line).
    """
    av = import_av(str(path))
    try:
        container = av.open(str(path), **options)
    except Exception as error:  # PyAV's errors share no base with Python's
        raise DataError(f"{path}: not a readable video ({reason(error)})") from error
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: not a readable video (no pictures in it)")
        yield container


def fill_clip(
    path: Path, picked: Sequence[np.ndarray], out: np.ndarray
) -> tuple[list[list[int]], list[str]]:
    """Read the picked steps of a clip into its examples, front to back.

    Args:
      path: as in `frames_of`, or an .npy of features.
      picked: int [at most T] steps of each example, as `pick_steps` gives them.
      out: zeros [examples, T, H, W, C] uint8, or [examples, T, F] float32; written to.

    Returns:
      (the steps that each example holds, flaws of one line each).

    Raises:
      DataError: not one of them can be read.
    """
    held: list[list[int]] = [[] for _ in picked]
    if path.suffix.lower() == FEATURES:
        features = np.asarray(_features(path), np.float32)
        if not np.isfinite(features).all():
            raise DataError(f"{path}: holds NaN or infinite numbers")
        for number, steps in enumerate(picked):
            out[number, : len(steps)] = features[steps]
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
        raise DataError(flaws[0] if flaws else f"{path}: no frame of it can be read")
    if example and not flaws:
        flaws.append(
            f"{path}: ends early, at frame {max(map(max, filter(None, held)))}"
        )
    return held, flaws


def _features(path: Path) -> np.ndarray:
    """Mapped numbers [steps, F] of an .npy file."""
    try:
        with _HEADERS:
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, kind = features.shape, features.dtype.kind
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise DataError(f"{path}: not a readable .npy ({reason(error)})") from error
    if len(shape) != 2 or kind not in "fiu" or 0 in shape:
        raise DataError(
            f"{path}: {features.dtype} of shape {shape}; wanted are numbers "
            "[steps, F], none of them 0"
        )
    return features


def _early(path: Path | str, frames: int, error: Exception) -> str:
    return f"{path}: ends early, after {frames} frames ({reason(error)})"
