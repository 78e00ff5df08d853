"""Lists the files to predict, one path at a time."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.spec import DataSpec
from lstm_jax import data
from lstm_jax.data.files.clip_files import is_animated
from lstm_jax.data.files.images import SUFFIXES

_PDF = b"%PDF-"
_ARRAYS = (".npy", ".npz")


def listed(
    paths: Iterable[str | os.PathLike],
    expand: Callable[[list[Path]], Iterable[Path]],
    spec: DataSpec,
) -> Iterator[dict[str, Any]]:
    """Lists the files in paths; an error in one path does not stop the others.

    Args:
      paths: as given on the command line.
      expand: returns the files of one path, such as `data.image_paths`; may raise
        DataError.
      spec: the run's `DataSpec`.

    Yields:
      A dict for each file, with `path`; also with `error`, one line, if the path is
      missing, has nothing to predict or does not fit the run's data; or with `note`,
      one line, if only the first page or frame of an image is used.
    """
    for path in paths:
        path = Path(path).expanduser()
        try:
            if not path.exists():
                raise data.DataError(f"{path}: no such file or folder")
            files = list(expand([path]))
        except data.DataError as error:
            pdf = next(path.glob("*.pdf"), None) if path.is_dir() else None
            error = _refused_pdf(pdf) if pdf else str(error)
            yield {"path": str(path), "error": error}
            continue
        for file in files:
            row = {"path": str(file)}
            if error := _mismatch(file, spec):
                row["error"] = error
            elif spec.is_image and _has_pages(file):
                row["note"] = f"{file}: only the first of its pages or frames is used"
            yield row


def _mismatch(path: Path, spec: DataSpec) -> str | None:
    """Why a file does not fit the run's training data; None if it seems to fit."""
    suffix = path.suffix.lower()
    if suffix == ".pdf" or _starts_with(path, _PDF):
        return _refused_pdf(path)
    if path.is_dir():
        return None
    if not spec.features and suffix in _ARRAYS:
        kind = "images" if spec.is_image else "clips"
        return f"{path}: an array file, but the run was trained on {kind}"
    still = suffix in SUFFIXES and suffix != ".gif" and not _has_pages(path)
    if len(spec.image_shape) == 4 and still and data.image_size(path):
        return (
            f"{path}: a single image, but the run was trained on clips; give a GIF, a "
            "video or a folder of frames"
        )
    if spec.features and suffix != ".npy":
        width = spec.image_shape[-1]
        return (
            f"{path}: not a .npy file; the run was trained on sequences of {width} "
            f"features: give .npy files of shape [steps, {width}]"
        )
    return None


def _refused_pdf(path: Path) -> str:
    return (
        f"{path}: a PDF, which holds pages, not images; convert it first: "
        f"pdftoppm -png -r 300 {path.name} page"
    )


def _has_pages(path: Path) -> bool:
    """Whether an image has several pages or frames; not for JPEG with previews."""
    return path.suffix.lower() not in (".jpg", ".jpeg") and is_animated(path)


def _starts_with(path: Path, start: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False
