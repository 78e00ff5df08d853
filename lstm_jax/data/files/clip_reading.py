"""Reads one clip at a time, whole or as a stream of frames."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.clip_files import (
    FEATURES,
    SAMPLINGS,
    VIDEOS,
    fill_clip,
    frame_files,
    frames_of,
    import_av,
    is_video,
    natural,
    open_video,
    pick_steps,
    probe_clip,
    video_frames,
)


def clip_paths(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Clips given by files, folders of frames, or folders of clips.

    A folder that directly holds videos, GIFs or .npy features is replaced by these, in
    natural order; any other folder is one clip.
    """
    found = []
    for path in map(Path, paths):
        path, inside = path.expanduser(), []
        if path.is_dir():
            kinds = {*VIDEOS, FEATURES, ".gif"}
            inside = [p for p in path.iterdir() if p.suffix.lower() in kinds]
        found += sorted(inside, key=lambda p: natural(p.name)) or [path]
    return found


def read_clip(
    path: str | os.PathLike,
    frames: int,
    shape: tuple[int, int, int],
    sampling: str = "uniform",
) -> tuple[np.ndarray, int]:
    """Read one clip, preprocessed as in the data set; unreadable frames are skipped.

    Args:
      path: a GIF, a video, or a folder of images in natural order.
      frames: T, at least 1.
      shape: (H, W, C) of the frames, C = 1 (grey) or 3 (RGB); they are resized
        without keeping the aspect ratio.
      sampling: "uniform" over the clip, or "start", its first T frames.

    Returns:
      (uint8 [T, H, W, C], length in 1..T); frames after the length are zero.

    Raises:
      DataError: the file is missing, or no frame can be read; one line.
    """
    path = _frames_wanted(path)
    return _read_one(path, frames, sampling, _checked(shape), np.uint8)


def read_features(
    path: str | os.PathLike, frames: int, sampling: str = "uniform"
) -> tuple[np.ndarray, int]:
    """Read the steps of one file of features that make up an example, and no others.

    Args:
      path: an .npy of numbers [steps, F].
      frames, sampling: as in `read_clip`.

    Returns:
      (float32 [T, F], length in 1..T); steps after the length are zero.

    Raises:
      DataError: the file is missing, not of rank 2, or a step that is read contains
        NaN; one line.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != FEATURES or path.is_dir():
        raise DataError(f"{path}: not an .npy of features; read_clip reads clips")
    return _read_one(path, frames, sampling, None, np.float32)


def _read_one(path, frames, sampling, shape, dtype):
    if sampling not in SAMPLINGS[:2] or frames < 1:
        raise DataError(
            f"{path}: sampling is uniform or start, frames at least 1; got "
            f"{sampling!r}, {frames}"
        )
    clip = probe_clip(path)
    picked = pick_steps(clip.steps, frames, sampling)
    out = np.zeros((1, frames, *(shape or next(iter(clip.sizes)))), dtype)
    held, _ = fill_clip(path, picked, out)
    return out[0], len(held[0])


def stream_frames(
    source: str | os.PathLike, shape: tuple[int, int, int]
) -> Iterator[np.ndarray]:
    """Iterate over frames as they arrive, in constant memory.

    Args:
      source: a GIF, a video, or a folder of images; a camera number such as "0" (Linux
        only, needs PyAV); or "-" for standard input: raw uint8 frames of exactly
        H*W*C bytes each, row by row, without a header.
      shape: (H, W, C) of the frames, C = 1 (grey) or 3 (RGB); all but raw frames are
        resized without keeping the aspect ratio.

    Yields:
      uint8 [H, W, C].

    Raises:
      DataError: at the call if the source does not exist or cannot be opened; during
        iteration, after the last good frame, if reading fails; one line.
    """
    shape = _checked(shape)
    text = os.fspath(source)
    if text == "-":
        return _raw_frames(sys.stdin.buffer, shape)
    if text.isdecimal():
        return _camera_frames(int(text), shape)
    path = _frames_wanted(text)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir() and not frame_files(path):
        raise DataError(f"{path}: no images in this folder")
    if is_video(path):
        import_av(text)
    return _strictly(frames_of(path, shape))


def _strictly(frames: Iterator[tuple[int, np.ndarray | DataError]]):
    for _, frame in frames:
        if isinstance(frame, DataError):
            raise frame
        yield frame


def _raw_frames(file: BinaryIO, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    size = shape[0] * shape[1] * shape[2]
    while data := file.read(size):
        if len(data) < size:
            raise DataError(
                f"standard input ends inside a frame, after {len(data)} of its {size} "
                f"bytes; expected raw frames of {shape[0]}x{shape[1]}x{shape[2]}"
            )
        yield np.frombuffer(data, np.uint8).reshape(shape)


def _camera_frames(number: int, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    name = f"camera {number}"
    if not sys.platform.startswith("linux"):
        raise DataError(
            f"{name}: cameras work on Linux only; elsewhere pipe raw frames into "
            'the source "-"'
        )
    import_av(name)
    device = f"/dev/video{number}"
    if not os.path.exists(device):
        raise DataError(f"{name}: there is no {device}; is it plugged in?")
    opened = contextlib.ExitStack()
    try:
        container = opened.enter_context(open_video(device, format="v4l2"))
    except DataError as error:
        raise DataError(
            f"{name} cannot be opened, or another program holds it: {error}"
        ) from error

    def frames() -> Iterator[np.ndarray]:
        with opened:
            yield from _strictly(video_frames(container, name, shape))

    return frames()


def _checked(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise DataError(
            f"frames have shape (H, W, C) with 1 or 3 channels; got {tuple(shape)}"
        )
    return tuple(shape)


def _frames_wanted(path: str | os.PathLike) -> Path:
    path = Path(path).expanduser()
    if path.suffix.lower() == FEATURES:
        raise DataError(f"{path}: features, not frames; read_features reads them")
    return path
