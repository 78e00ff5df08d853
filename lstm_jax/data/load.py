"""`load`: any data set, by name or from files."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data.cache import cache_root, default_root
from lstm_jax.data.catalog import OWN, STOCK
from lstm_jax.data.dataset import DataError, Dataset, Split
from lstm_jax.data.files.array_files import ARRAYS
from lstm_jax.data.files.arrays import load_arrays
from lstm_jax.data.files.box_files import load_boxes
from lstm_jax.data.files.clip_files import SAMPLINGS
from lstm_jax.data.files.clips import load_clips
from lstm_jax.data.files.csv_files import TABLES, table_format
from lstm_jax.data.files.folders import load_images
from lstm_jax.data.files.layouts import Layout, detect
from lstm_jax.data.files.limits import check_alike, check_folder, check_names
from lstm_jax.data.files.lines import load_lines
from lstm_jax.data.files.masks import load_masks
from lstm_jax.data.files.placement import FITS
from lstm_jax.data.files.read_options import Progress, ReadOptions
from lstm_jax.data.tfds.builders import load_named

TARGET_TYPES = ("labels", "masks", "boxes", "text")
_LOADERS = {  # by layout, with the options that are refused by the other layouts
    "images": (load_images, ("group", "min_per_class", "fit")),
    "arrays": (load_arrays, ("min_per_class", "arrays")),
    "clips": (load_clips, ("group", "min_per_class")),
    "masks": (load_masks, ("group", "fit")),
    "boxes": (load_boxes, ("group", "follow_outside", "fit")),
    "text": (load_lines, ("group",)),
}


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
    group: str | None = None,
    min_per_class: int | None = None,
    columns: str | None = None,
    encoding: str | None = None,
    arrays: str | None = None,
    follow_outside: bool = False,
    fit: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set by name, or from your own folder, table or annotations.

    A clip is a video, an animated GIF or a folder of frames in natural order; in a CSV
    it may also be an .npy file of features [steps, F]. Instead of `label`, a CSV of
    clips may have one column of 0 and 1 per label (empty: unknown); with a column
    `step`, each row labels one step of a clip, counted from 0.

    Data for segmentation is a folder with images/ and masks/ (see `load_masks`); for
    detection, a COCO file and its images, or labels of YOLO or Pascal VOC (see
    `load_boxes`); for text recognition,
    NAME.png and NAME.gt.txt, a CSV path,text, or page images with ALTO or PAGE XML
    (see `load_lines`).

    Args:
      source: a name such as "digits", "fashion_mnist" or "emnist/balanced"; a folder
        CLASS/image or CLASS/clip, or train/CLASS/image and so on, with any common
        names of the splits, such as Training/ or seg_test/; a CSV with the
        columns `path,label[,group][,split]`; an .npz, HDF5 or Zarr file of arrays, or
        a folder of .npy files; or, for masks, boxes or text, what is
        listed above. A known name wins over a folder of the same name: write
        "./mnist" for the folder.
      data_dir: cache folder for decoded arrays; None: $LSTM_JAX_DATA, or
        ~/.cache/lstm_jax.
      manual_dir: folder with manually downloaded files of a named data set.
      size: side of the square to resize images to, pixels; height of text lines.
        None keeps the size if all images have the same; those of class folders and
        tables that are larger than 128 pixels are scaled to 96.
      frames: T, steps per clip, at least 1; shorter clips are padded with zeros.
        None: 16, or for features the length of the longest file. Folders of images in
        class folders are clips only if this is given.
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
      group: what stays in one split, such as the images of one patient: a column of
        the table, or a regular expression, searched for in the path of each file,
        whose first group is the name. None: the column "group", clips, and pages.
      min_per_class: leave out classes with fewer training examples, at least 1; for
        your own labelled files. None: a class that is too small is an error.
      columns: which column of a table has which role, such as
        "path:filename,label:class", by name or by number from 1; None: by the usual
        names.
      encoding: of a table; None: UTF-8, or UTF-16 with its byte-order mark.
      arrays: names of arrays by role, such as "inputs:images,targets:labels" or
        "test_inputs:x2"; None: by the usual names, such as x_train and y_train.
      follow_outside: load files that a table, or a file with boxes, names outside of
        its folder.
      fit: how your own images are given one shape, as in `read_image`; None:
        "letterbox" if their aspect ratios differ, else "squash".
      progress: called with (files read, all files) while your own files are read.

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
    if fit not in (None, *FITS):
        raise DataError(f"fit is {', '.join(FITS)}; got {fit!r}")
    if min_per_class is not None and min_per_class < 1:
        raise DataError(f"min_per_class is at least 1; got {min_per_class}")
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
        given = dict(
            group=group,
            min_per_class=min_per_class,
            arrays=arrays,
            follow_outside=follow_outside,
            fit=fit,
        )
        if path is not None:
            check_folder(path)
            form = table_format(columns, encoding, follow_outside)
            layout = detect(path, target_type, frames, form)
            loader, accepted = _LOADERS[layout.kind]
            tables = dict(columns=columns, encoding=encoding)
            if path.suffix.lower() in TABLES:
                accepted = (*accepted, "follow_outside", *tables)
            _check_options(given | tables, accepted, f"{path}: {layout.name}")
            options = ReadOptions(
                size,
                validation,
                seed,
                form=form,
                frames=frames,
                sampling=sampling,
                alphabet=alphabet,
                progress=progress,
                **given,
            )
            dataset = loader(path, root, options)
            dataset = dataset._replace(notes=(*layout.notes, *dataset.notes))
        else:
            tables = dict(columns=columns, encoding=encoding)
            _check_options(given | tables, (), f"{text}: a data set by name")
            dataset = load_named(
                text,
                root,
                manual_dir=manual_dir,
                size=size,
                validation=validation,
                seed=seed,
                frames=frames,
                sampling=sampling,
                target_type=target_type,
            )
        if path is not None:
            check_names(path, dataset.classes)
            if dataset.target_type != "text":  # whose classes are characters
                check_alike(path, dataset.classes)
        if notes:  # the cache is a temporary folder: copy what is mapped from it
            dataset = dataset._replace(
                splits=_in_memory(dataset.splits),
                notes=(*notes, *dataset.notes),
                more=dataset.more and _in_memory(dataset.more),
            )
        return dataset


def _check_options(
    options: Mapping[str, Any], accepted: Sequence[str], what: str
) -> None:
    """Raises DataError if an option is given that has no effect on the data."""
    for name, value in options.items():
        if value not in (None, False) and name not in accepted:
            flag = name.replace("_", "-")
            raise DataError(f"{what}: --data.{flag} has no effect on it; leave it out")


def is_available(
    source: str | os.PathLike, data_dir: str | os.PathLike | None = None
) -> bool:
    """Whether a data set can be loaded without a download or a long preparation.

    Args:
      source, data_dir: as in `load`.
    """
    try:
        if _local_path(source, os.fspath(source).strip()) is not None:
            return True
    except DataError:
        return False
    name = os.fspath(source).strip().partition("/")[0].lower().replace("-", "_")
    root = Path(data_dir or default_root()).expanduser().absolute()
    return any((root / "arrays").glob(f"{name}*=*"))


def layout_of(
    source: str | os.PathLike,
    *,
    target_type: str = "labels",
    frames: int | None = None,
    columns: str | None = None,
    encoding: str | None = None,
) -> Layout | None:
    """The layout of your own files, without decoding them; arguments as of `load`.

    Returns:
      None if `source` is the name of a data set.

    Raises:
      DataError: there are no such files, or they have no layout that can be read.
    """
    path = _local_path(source, os.fspath(source).strip())
    form = table_format(columns, encoding)
    if path is None:
        return None
    check_folder(path)
    return detect(path, target_type, frames, form)


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
        or path.suffix.lower() in (*TABLES, *ARRAYS, ".xml", ".zip", ".json")
    )
    if plainly or (not named and path.exists()):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        return path.absolute()
    return None
