"""Your own images: a folder with one folder per class, or a CSV table."""

import concurrent.futures
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.cache import cached, new_array
from lstm_jax.data.counts import check_counts, large_classes
from lstm_jax.data.dataset import (
    LARGE,
    REDUCED,
    DataError,
    Dataset,
    Split,
    check_size,
    common_size,
)
from lstm_jax.data.files.class_folders import EMPTY, find_class_folders, visible
from lstm_jax.data.files.csv_files import TABLES, TableFormat
from lstm_jax.data.files.depth import common_depth
from lstm_jax.data.files.file_tree import walk
from lstm_jax.data.files.images import (
    SUFFIXES,
    find_images,
    pages_note,
    probe,
    read_image,
)
from lstm_jax.data.files.mask_pairs import base_of
from lstm_jax.data.files.placement import chosen_fit
from lstm_jax.data.files.read_options import ReadOptions, counted
from lstm_jax.data.files.tables import (
    fingerprint,
    first_few,
    table_rows,
    targets_of,
    with_groups,
)
from lstm_jax.data.splits import assign_splits, by_split

_FORMAT = 4  # version of the cached arrays; increase it when decoding changes
FALLBACK_SIZE = 32
_GROUPS = 3  # nested folders of a class with which they are kept whole


class _Image(NamedTuple):
    path: Path
    label: str
    name: str
    group: str | None = None
    split: str | None = None  # None: assigned at random


def load_images(path: Path, root: Path, options: ReadOptions) -> Dataset:
    """Load a folder or CSV; unreadable files are skipped and reported in `notes`.

    Args:
      path: the folder or CSV, which exists.
      root: the cache folder.
      options: without a size, the common one, or 32 if sizes differ; 96 for images
        that are larger than 128, as in `common_size`.

    Raises:
      DataError: no images, only one class, too few images of a class, or a malformed
        table.
    """
    folder, size, minimum = path.is_dir(), options.size, options.min_per_class
    if folder:
        entries, seen = _from_folder(path)
        entries = with_groups(path, entries, options.group)
    else:
        entries, seen = _from_table(path, options.form, options.group), []
    entries, small = _with_counts(path, entries, minimum)
    arrays, facts = cached(
        root,
        f"{path.name}-{size}" if size else path.name,
        [
            _FORMAT,
            size,
            options.fit,
            [[str(p.path), *fingerprint(p.path)] for p in entries],
        ],
        lambda folder: decode_each(path, [p.path for p in entries], options, folder),
    )
    listed = {entry.label: entry.path for entry in entries}
    entries = [entries[i] for i in facts["kept"]]
    kept, more = large_classes(path, entries, "image", minimum)
    images = arrays["images"][: len(entries)]
    if len(kept) < len(entries):
        entries, images = [entries[i] for i in kept], images[kept]
    labels = [entry.label for entry in entries]
    targets, classes = targets_of(path, labels, numbers=not folder)
    if classes and minimum is None and (gone := listed.keys() - set(classes)):
        name = min(gone)
        raise DataError(
            f"{path}: no image of class {name!r} can be read, such as {listed[name]}; "
            "repair them, or leave the class out with --data.min-per-class=1"
        )
    draw = dict(validation=options.validation, seed=options.seed, inputs=images)
    chosen, assigned = assign_splits(path, entries, "image", targets, classes, **draw)
    splits = {name: Split(images[i], targets[i]) for name, i in chosen.items()}
    names = by_split([entry.name for entry in entries], chosen)
    groups = [entry.group for entry in entries]
    groups = by_split(None if None in groups else groups, chosen)
    notes = (*seen, *small, *facts["notes"], *more, *assigned)
    found = dict(depth=facts["depth"], fit=facts["fit"])
    return Dataset(path.name, splits, classes, notes, names, groups, **found)


def _with_counts(
    path: Path, entries: list[_Image], minimum: int | None
) -> tuple[list[_Image], list[str]]:
    """Entries of classes that are large enough, before anything is decoded."""
    kept, notes = large_classes(path, entries, "image", minimum)
    entries = [entries[i] for i in kept]
    labels = [entry.label for entry in entries]
    targets, classes = targets_of(path, labels, numbers=not path.is_dir())
    check_counts(path, entries, "image", targets, classes)
    return entries, notes


def _from_folder(path: Path) -> tuple[list[_Image], list[str]]:
    """Lists CLASS/image or SPLIT/CLASS/image, and notes on what is left out."""
    found = find_class_folders(path)
    folders = [folder.path for folder in found.folders]
    files, links = walk(folders, SUFFIXES, path)
    entries = [
        _Image(image, folder.name, image.relative_to(path).as_posix(), split=split)
        for (split, folder), images in zip(found.folders, files, strict=True)
        for image in images
    ]
    entries, masks = _without_masks(entries)
    if not entries:
        if find_images(path):
            raise DataError(
                f"{path}: the images are not in class folders; put each into a folder "
                f"named after its class ({path.name}/CLASS/image.png), or give a "
                "CSV with the columns path,label"
            )
        others = _other_data(path)
        raise DataError(
            f"{path}: no images{others}; expected {path.name}/CLASS/image.png, at "
            "least two classes"
        )
    empty = [line for line in found.ignored if line.endswith(EMPTY)]
    notes = [*found.lost, *empty, *masks, *first_few(links, "left out {} more links")]
    return _grouped(entries, folders, notes)


def _without_masks(entries: list[_Image]) -> tuple[list[_Image], list[str]]:
    """Entries without masks NAME_mask.png beside NAME.png, and a note on these."""
    stems = {entry.path.with_suffix("") for entry in entries}
    masks = [e for e in entries if _is_mask(e.path, stems)]
    if not masks:
        return entries, []
    note = f"left out {len(masks)} masks of images, such as {masks[0].name}"
    return [e for e in entries if not _is_mask(e.path, stems)], [note]


def _is_mask(path: Path, stems: set[Path]) -> bool:
    base = base_of(path.stem)
    return base is not None and path.with_name(base) in stems


def _grouped(
    entries: list[_Image], folders: list[Path], notes: list[str]
) -> tuple[list[_Image], list[str]]:
    """Keeps the images of one nested folder in one split, if there are enough."""
    nested: dict[Path, set[Path]] = {folder: set() for folder in folders}
    owner = [next(f for f in entry.path.parents if f in nested) for entry in entries]
    for entry, folder in zip(entries, owner, strict=True):
        nested[folder].add(entry.path.parent)
    if any(folder in inside for folder, inside in nested.items()):
        return entries, notes  # some images are directly in their class folder
    example = entries[0].path.parent
    note = (
        f"images are in folders in their class folders, such as {example.name}/: each "
        "is one example; --data.frames=16 reads each folder as one clip"
    )
    if all(len(inside) >= _GROUPS for inside in nested.values() if inside):
        entries = [entry._replace(group=str(entry.path.parent)) for entry in entries]
        note += "; the images of a folder stay in one split"
    return entries, [*notes, note]


def _other_data(path: Path) -> str:
    """What else is in a folder without images, for an error."""
    suffixes = Counter(f.suffix.lower() for f in visible(path) if f.suffix)
    if not suffixes:
        return ""
    shown = ", ".join(f"{n} {suffix}" for suffix, n in suffixes.most_common(3))
    return f" (it holds {shown})"


def _from_table(path: Path, form: TableFormat, by: str | None) -> list[_Image]:
    """Lists the rows of a table with the columns `path,label[,group][,split]`."""
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: not a CSV file; give a folder or a .csv table")
    entries = []
    rows = table_rows(path, ["path", "label"], form, by)
    for where, cells, file, split, group in rows:
        if not cells["label"]:
            raise DataError(f"{where} has an empty label")
        entries.append(_Image(file, cells["label"], cells["path"], group, split))
    return entries


def decode_each(
    source: Path,
    paths: list[Path],
    options: ReadOptions,
    folder: Path,
    beside: Callable[[tuple], Callable] | None = None,
    *,
    fallback: int = FALLBACK_SIZE,
    largest: int | None = None,
) -> dict:
    """Decode the readable images into images.npy [N, H, W, C], without gaps.

    Args:
      source: the data set's path, for errors.
      paths: the image files.
      options: `size`, `fit` and `progress` are used.
      folder: where images.npy is written.
      beside: a function of (H, W, C), the `Head` of each image (None if unreadable) and
        the fit that returns a reader of additional data per example: reader(index)
        returns a JSON value, or raises DataError to skip the example.
      fallback: side of the square if images differ in size, pixels.
      largest: limit on the total size of the decoded images, bytes.

    Returns:
      dict: "kept", indices of the examples that were read; "notes"; "found", their
      JSON values; "depth" and "fit", as in `Dataset`.

    Raises:
      DataError: no image can be read, or they exceed `largest`.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        probed = list(pool.map(probe, paths))
        heads = [head for head in probed if head]
        sizes = {head.size for head in heads}
        channels = 1 if heads and all(head.grey for head in heads) else 3
        notes: list[str] = []
        depth = common_depth([head.depth for head in heads], notes)
        known = next(iter(sizes)) if len(sizes) == 1 else None
        what = f"images of {len(sizes)} sizes"
        if beside is None and sizes and median(map(max, sizes)) > LARGE:
            fallback = REDUCED
        height, width = common_size(
            known, options.size, fallback, what, notes, reduce=beside is None
        )
        fit = chosen_fit(options.fit, sizes, notes)
        shape = (height, width, channels)
        if largest:
            what = f"images at {height}x{width}"
            total = len(paths) * height * width * channels
            check_size(source, total, what, largest, "give a smaller --data.size")
        images = new_array(folder / "images.npy", np.uint8, (len(paths), *shape))
        other = beside(shape, probed, fit) if beside else None
        kept, failed, found = [], [], []

        def read(number: int) -> tuple[np.ndarray, Any] | DataError:
            try:
                image = read_image(paths[number], shape, depth, fit)
                if not other:
                    return image, None
                if not probed[number]:
                    raise DataError(f"{paths[number]}: its size cannot be determined")
                return image, other(number)
            except DataError as error:
                return error

        results = pool.map(read, range(len(paths)))
        for number, result in enumerate(counted(results, len(paths), options)):
            if isinstance(result, DataError):
                failed.append(f"skipped {result}")
            else:
                images[len(kept)], value = result
                kept.append(number)
                found.append(value)
        images.flush()
    if not kept:
        raise DataError(
            f"{source}: none of its {len(paths)} images can be read; "
            f"the first: {failed[0].removeprefix('skipped ')}"
        )
    pages = {paths[k]: probed[k].pages for k in kept if probed[k]}
    notes += pages_note(pages)
    notes += first_few(failed, "skipped {} more files that cannot be read")
    found = found if beside else []
    return dict(kept=kept, notes=notes, found=found, depth=depth, fit=fit)
