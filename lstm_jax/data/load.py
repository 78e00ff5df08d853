"""`load`: any data set, by name or from files."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lstm_jax.data.cache import cache_root
from lstm_jax.data.catalog import OWN, STOCK
from lstm_jax.data.dataset import DataError, Dataset, Split
from lstm_jax.data.files.clip_files import SAMPLINGS
from lstm_jax.data.files.clip_lists import is_clip_dataset
from lstm_jax.data.files.clips import load_clips
from lstm_jax.data.files.coco import find_coco, load_coco
from lstm_jax.data.files.folders import load_images
from lstm_jax.data.files.limits import check_folder, check_names
from lstm_jax.data.files.lines import is_line_dataset, load_lines
from lstm_jax.data.files.masks import is_mask_dataset, load_masks
from lstm_jax.data.tfds.builders import load_named

TARGET_TYPES = ("labels", "masks", "boxes", "text")


def load(
    source: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    size: int | None = None,
    frames: int | None = None,
    sampling: str = "uniform",
    validation: float = 0.1,
    seed: int = 0,
    target_type: str = "labels",
    alphabet: Sequence[str] | None = None,
    follow_outside: bool = False,
) -> Dataset:
    """Load a data set by name, or from your own folder, table or annotations.

    A clip is a video, an animated GIF or a folder of frames in natural order; in a CSV
    it may also be an .npy file of features [steps, F]. Instead of `label`, a CSV of
    clips may have one column of 0 and 1 per label (empty: unknown); with a column
    `step`, each row labels one step of a clip, counted from 0.

    Data for segmentation is a folder with images/ and masks/ (see `load_masks`); for
    detection, a COCO file and its images (see `load_coco`); for text recognition,
    NAME.png and NAME.gt.txt, a CSV path,text, or page images with ALTO or PAGE XML
    (see `load_lines`).

    Args:
      source: a name such as "digits", "fashion_mnist" or "emnist/balanced"; a folder
        CLASS/image or CLASS/clip, or train/CLASS/image and so on; a CSV with the
        columns `path,label[,group][,split]`; or, for masks, boxes or text, what is
        listed above. A known name wins over a folder of the same name: write
        "./mnist" for the folder.
      data_dir: cache folder for decoded arrays; None: $LSTM_JAX_DATA, or
        ~/.cache/lstm_jax.
      manual_dir: folder with manually downloaded files of a named data set.
      size: side of the square to resize images to, pixels; height of text lines.
        None keeps the size if all images have the same.
      frames: T, steps per clip, at least 1; shorter clips are padded with zeros.
        None: 16, or for features the length of the longest file.
      sampling: "uniform" takes T frames evenly spaced over the clip, "start" the
        first T, "windows" cuts the clip into examples of T frames, all in the same
        split.
      validation: fraction of the training examples used for validation, in (0, 1),
        if the data set defines no validation split.
      seed: random seed of that split, at least 0.
      target_type: "labels", "masks", "boxes" or "text"; for our own data sets the
        name decides.
      alphabet: characters in index order, for your own text lines, if a trained
        network defines them; lines with other characters are skipped. None: all
        characters that occur.
      follow_outside: load images that a COCO file names outside of its folder.

    Returns:
      The Dataset: uint8 images or clips, or float32 features; splits "train",
      "validation" and "test".

    Raises:
      DataError: the data set cannot be loaded; the message names a remedy.
    """
    if not 0 < validation < 1:
        raise DataError(f"validation is a share between 0 and 1; got {validation}")
    if size is not None and (size != int(size) or size < 1):
        raise DataError(f"size is a whole number of pixels, at least 1; got {size}")
    if frames is not None and (frames != int(frames) or frames < 1):
        raise DataError(f"frames is a whole number, at least 1; got {frames}")
    if sampling not in SAMPLINGS:
        near = difflib.get_close_matches(str(sampling), SAMPLINGS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"sampling is {', '.join(SAMPLINGS)}; got {sampling!r}{hint}")
    if seed < 0:
        raise DataError(f"seed is at least 0; got {seed}")
    text = os.fspath(source).strip()
    if not text:
        raise DataError("no data set named: give a name, a folder or a CSV")
    if manual_dir is not None:
        manual_dir = Path(manual_dir).expanduser().absolute()
        if not manual_dir.is_dir():
            raise DataError(f"--data.manual-dir={manual_dir}: no such folder")
    if target_type not in TARGET_TYPES:
        known = ", ".join(TARGET_TYPES)
        raise DataError(f"target_type is {known}; got {target_type!r}")
    path = _local_path(source, text)
    with cache_root(data_dir) as (root, notes):
        options = dict(size=size, validation=validation, seed=seed)
        if path is not None:
            check_folder(path)
            _check_target_type(path, target_type)
            if target_type == "boxes":
                options |= dict(follow_outside=follow_outside)
        if path is not None and target_type == "text":
            dataset = load_lines(path, root, alphabet=alphabet, **options)
        elif path is not None and target_type != "labels":
            loader = {"masks": load_masks, "boxes": load_coco}[target_type]
            dataset = loader(path, root, **options)
        elif path is not None and is_clip_dataset(path):
            options |= dict(frames=frames, sampling=sampling)
            dataset = load_clips(path, root, **options)
        elif path is not None:
            dataset = load_images(path, root, **options)
        else:
            options |= dict(frames=frames, sampling=sampling, manual_dir=manual_dir)
            options |= dict(target_type=target_type)
            dataset = load_named(text, root, **options)
        if path is not None:
            check_names(path, dataset.classes)
        if notes:  # the cache is a temporary folder: copy what is mapped from it
            dataset = dataset._replace(
                splits=_in_memory(dataset.splits),
                notes=(*notes, *dataset.notes),
                more=dataset.more and _in_memory(dataset.more),
            )
        return dataset


def _in_memory(splits: Mapping[str, Split]) -> dict[str, Split]:
    return {
        name: split._make(a if a is None else np.array(a) for a in split)
        for name, split in splits.items()
    }


def _local_path(source: str | os.PathLike, text: str) -> Path | None:
    """The path if `source` is one; None if it is the name of a data set."""
    path = Path(text).expanduser()
    named = text.partition("/")[0].lower().replace("-", "_") in (*OWN, *STOCK)
    plainly = (
        not isinstance(source, str)
        or text.startswith((".", "~", os.sep))
        or text.endswith(os.sep)
        or path.suffix.lower() in (".csv", ".tsv", ".txt", ".xml", ".zip", ".json")
    )
    if plainly or (not named and path.exists()):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        return path.absolute()
    return None


def _check_target_type(path: Path, target_type: str) -> None:
    """Raises DataError if `path` holds targets of another type."""
    found = {}
    if is_line_dataset(path):
        what = "lines of text (NAME.gt.txt, a column text, or ALTO or PAGE XML)"
        found["text"] = what, "text-lines"
    if is_mask_dataset(path):
        found["masks"] = "images/ and masks/", "segment-digits"
    if files := find_coco(path):
        found["boxes"] = f"boxes ({next(iter(files.values())).name})", "detect-digits"
    if found and target_type not in found:
        what, preset = next(iter(found.values()))
        raise DataError(
            f"{path}: holds {what}; use the preset {preset}: experiments.train "
            f"{preset} --data={path}"
        )
