"""One door to every data set: `load`."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lstm_jax.data.cache import cache_root, default_root
from lstm_jax.data.catalog import OWN, STOCK
from lstm_jax.data.dataset import DataError, Dataset, Split
from lstm_jax.data.files.clip_files import SAMPLINGS
from lstm_jax.data.files.clip_lists import is_clip_dataset
from lstm_jax.data.files.clips import load_clips
from lstm_jax.data.files.coco import find_coco, load_coco
from lstm_jax.data.files.folders import load_pictures
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
) -> Dataset:
    """Load a data set by name, or a person's own folder or CSV of pictures or clips.

    A clip is a video, an animated GIF or a folder of frames in natural order; in a CSV
    also an .npy of features [steps, F]. In place of `label` a CSV of clips may have
    columns of 0 and 1 (empty: not known), one for each label; with a column `step` a
    row is one step of a clip, 0 the first.

    Pictures to find things in are a folder of images/ and masks/, as `load_masks` has
    it, or a COCO file beside its pictures, as `load_coco` has it. Lines of text are
    NAME.png beside NAME.gt.txt, a CSV path,text, or pages with ALTO or PAGE XML, as
    `load_lines` has it.

    Args:
      source: a tfds name such as "digits", "fashion_mnist" or "emnist/balanced"; or a
        folder CLASS/picture or CLASS/clip, or of splits train/CLASS/picture; or a CSV
        with the columns `path,label[,group][,split]`; or, for masks or boxes, a folder
        or a COCO .json. A name wins over a folder called the same: say "./mnist" for
        the folder.
      data_dir: where decoded arrays are kept; else $LSTM_JAX_DATA, else
        ~/.cache/lstm_jax.
      manual_dir: folder of a data set's files that were fetched by hand.
      size: square side to resize to, pixels; of lines of text, their height. None
        keeps a common size.
      frames: of a person's own clips and stock ones: T, at least 1; a shorter clip is
        padded with zeros. None: 16, of features as many as the longest file has.
      sampling: of the same clips: "uniform" takes T frames evenly from the whole
        clip, "start" the first T, "windows" cuts it into examples of T frames, which
        stay in one split.
      validation: share carved out of train, in (0, 1), where nothing else is given.
      seed: of that draw, at least 0.
      target_type: which targets are to be given, "labels", "masks", "boxes" or "text";
        our own sets give what they have.
      alphabet: of a person's own lines of text: characters by index, where a network
        has them already; lines with others are skipped. None: all that occur.

    Returns:
      The Dataset: uint8 images or clips, or float32 features; splits "train",
      "validation" and "test".

    Raises:
      DataError: whatever keeps it from loading, and what to do.
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
    path = _own_pictures(source, text)
    with cache_root(data_dir) as (root, notes):
        options = dict(size=size, validation=validation, seed=seed)
        if path is not None:
            _check_target_type(path, target_type)
        if path is not None and target_type == "text":
            dataset = load_lines(path, root, alphabet=alphabet, **options)
        elif path is not None and target_type != "labels":
            loader = {"masks": load_masks, "boxes": load_coco}[target_type]
            dataset = loader(path, root, **options)
        elif path is not None and is_clip_dataset(path):
            options |= dict(frames=frames, sampling=sampling)
            dataset = load_clips(path, root, **options)
        elif path is not None:
            dataset = load_pictures(path, root, **options)
        else:
            options |= dict(frames=frames, sampling=sampling, manual_dir=manual_dir)
            options |= dict(target_type=target_type)
            dataset = load_named(text, root, **options)
        if notes:  # the temporary folder goes away: keep nothing mapped from it
            dataset = dataset._replace(
                splits=_in_memory(dataset.splits),
                notes=(*notes, *dataset.notes),
                more=dataset.more and _in_memory(dataset.more),
            )
        return dataset


def is_available(
    source: str | os.PathLike, data_dir: str | os.PathLike | None = None
) -> bool:
    """Whether a data set can be loaded without a download or a long preparation.

    Args:
      source, data_dir: as in `load`.
    """
    try:
        if _own_pictures(source, os.fspath(source).strip()) is not None:
            return True
    except DataError:
        return False
    name = os.fspath(source).strip().partition("/")[0].lower().replace("-", "_")
    root = Path(data_dir or default_root()).expanduser().absolute()
    return any((root / "arrays").glob(f"{name}*=*"))


def _in_memory(splits: Mapping[str, Split]) -> dict[str, Split]:
    return {
        name: split._make(a if a is None else np.array(a) for a in split)
        for name, split in splits.items()
    }


def _own_pictures(source: str | os.PathLike, text: str) -> Path | None:
    """The path that a source means, None where it is a name."""
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
    """Refuses masks, boxes or texts where something else is asked for."""
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
            f"{path}: holds {what}; train it by the preset {preset}: experiments.train "
            f"{preset} --data={path}"
        )
