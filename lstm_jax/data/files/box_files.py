"""Your own images with bounding boxes: COCO JSON files, YOLO, or Pascal VOC."""

from collections import Counter
from pathlib import Path

import numpy as np

from lstm_jax.data.boxes import table
from lstm_jax.data.cache import cached
from lstm_jax.data.dataset import LARGEST, SCENE_SIZE, SPLITS, DataError, Dataset, Split
from lstm_jax.data.files.box_lists import (
    ListedImage,
    Listing,
    classes_of,
    fault_lines,
    find_boxes,
    note_fault,
    read_list,
)
from lstm_jax.data.files.folders import decode_each
from lstm_jax.data.files.images import Head
from lstm_jax.data.files.orientation import (
    Geometry,
    is_stored_size,
    lie_on_stored,
    notes_on_turns,
)
from lstm_jax.data.files.placement import place_image
from lstm_jax.data.files.read_options import ReadOptions
from lstm_jax.data.files.tables import fingerprint, with_groups
from lstm_jax.data.splits import assign_splits, by_split
from lstm_jax.targets import CLASS, COLUMNS

_FORMAT = 3  # version of the cached arrays; increase it when decoding changes
_ROUNDING = 0.01  # pixels that a box may exceed the image without a note


def load_boxes(path: Path, root: Path, options: ReadOptions) -> Dataset:
    """Load images and their boxes from COCO JSON files, YOLO, or Pascal VOC.

    An image's `file_name` is searched beside the JSON file and in images/; for
    annotations/instances_train2017.json also in train2017/. Category ids may have
    gaps: classes are ordered by id. Images without boxes are kept.

    Skipped and reported in `notes`: images that cannot be read, or whose size differs
    from the JSON file's; boxes outside their image, without area, with NaN, or of an
    unknown category or image. Boxes partly outside are clipped. Boxes of an image with
    an EXIF orientation are turned with it if the JSON file states the size of the
    stored pixels.

    Args:
      path: a JSON file, or a folder in which one of `_FORMATS` is found.
      root: the cache folder.
      options: without a size, the common one, or 64 if sizes differ; boxes are scaled
        with the images. `follow_outside` loads images outside of the folder, which
        `file_name` can lead to by `..` or an absolute path.

    Returns:
      The Dataset; targets are float32 [N, M, 7], boxes as in `Split`; M is the largest
      number of boxes in one image.

    Raises:
      DataError: a file is not JSON, too large, or lacks a key; it names an image
        outside of its folder; no readable image, too few of them, or no box.
    """
    size, group = options.size, options.group
    form, files = find_boxes(path)
    if not files:
        raise DataError(
            f"{path}: no boxes; expected a COCO file, {path.name}/annotations.json, "
            "with images beside it or in images/"
        )
    read = Listing([], [], {}, Counter(), {}, [])
    for split in (None, *SPLITS):
        if split in files:
            read_list(form, files[split], split, path, read, options.follow_outside)
    names, notes = classes_of(path, read)
    entries = with_groups(path, read.images, group)
    if not entries:
        raise DataError(f"{path}: no images; the list 'images' is empty")
    if not read.boxes:
        why = fault_lines(read) or ["the list 'annotations' is empty"]
        raise DataError(f"{path}: no box to train on; {'; '.join(why)}")
    arrays, facts = cached(
        root,
        f"{path.name}-boxes-{size}" if size else f"{path.name}-boxes",
        [
            _FORMAT,
            size,
            options.fit,
            [[str(p.path), *fingerprint(p.path), p.size] for p in entries],
        ],
        lambda folder: decode_each(
            path,
            [entry.path for entry in entries],
            options,
            folder,
            lambda _, heads, fit: (
                lambda number: _placement(entries[number], heads[number])
            ),
            fallback=SCENE_SIZE,
            largest=LARGEST,
        ),
    )
    kept = facts["kept"]
    geometries, turns = _geometries(entries, facts)
    shape = arrays["images"].shape[1:3]
    targets = _tables(path, read, kept, geometries, shape, facts["fit"], list(names))
    entries = [entries[i] for i in kept]
    images = arrays["images"][: len(kept)]
    draw = dict(validation=options.validation, seed=options.seed, inputs=images)
    chosen, more = assign_splits(path, entries, "image", **draw)
    splits = {name: Split(images[i], targets[i]) for name, i in chosen.items()}
    if not (splits["train"].targets[..., CLASS] >= 0).any():
        raise DataError(f"{path}: no box in a training image")
    named = by_split([entry.name for entry in entries], chosen)
    groups = by_split([e.group for e in entries] if group else None, chosen)
    notes = (*read.notes, *notes, *facts["notes"], *turns, *fault_lines(read), *more)
    classes = tuple(names.values())
    return Dataset(
        path.name,
        splits,
        classes,
        notes,
        named,
        groups,
        target_type="boxes",
        depth=facts["depth"],
        fit=facts["fit"],
    )


def _placement(image: ListedImage, head: Head) -> list:
    """[[H, W] as stored, orientation, whether boxes lie on the stored pixels or None].

    Raises:
      DataError: the JSON file states another size.
    """
    geometry = head.geometry
    if image.size and image.size not in (geometry.stored, geometry.shown):
        h, w = image.size
        raise DataError(
            f"{image.path}: is {head.size[0]}x{head.size[1]}, but its entry has height "
            f"{h} and width {w}; its boxes would be misplaced"
        )
    return [*geometry, is_stored_size(geometry, image.size)]


def _geometries(
    entries: list[ListedImage], facts: dict
) -> tuple[list[tuple[Geometry, bool]], list[str]]:
    """Of each image that was read its geometry and whether its boxes lie on the stored
    pixels; and notes.
    """
    known = [(Geometry(tuple(s), o), fact) for s, o, fact in facts["found"]]
    turns = [fact for geometry, fact in known if geometry.orientation != 1]
    assumed = lie_on_stored(turns)
    names = [entries[k].name for k in facts["kept"]]
    found = [(g, assumed if fact is None else fact) for g, fact in known]
    turned = [n for n, (_, stored) in zip(names, found, strict=True) if stored]
    unsure = [n for n, (_, fact) in zip(names, known, strict=True) if fact is None]
    return found, notes_on_turns(turned, unsure, "boxes")


def _tables(
    path: Path,
    read: Listing,
    kept: list[int],
    geometries: list[tuple[Geometry, bool]],
    size: tuple[int, int],
    fit: str,
    ids: list,
) -> np.ndarray:
    """Boxes of the images that were read, in resized pixels, float32 [N, M, 7]."""
    row_of = {number: row for row, number in enumerate(kept)}
    numbers = {key: k for k, key in enumerate(ids)}
    rows: list[list[tuple]] = [[] for _ in row_of]
    for box in read.boxes:
        row = row_of.get(box.image)
        if row is None:
            continue
        geometry, stored = geometries[row]
        full = np.asarray(geometry.shown[::-1] * 2, np.float64)  # w, h, w, h
        corners = np.asarray(box.corners)
        if stored:
            corners = geometry.boxes(corners)
        inside = np.clip(corners, 0, full)
        placed = place_image(geometry.shown, size, fit).boxes(inside)
        edge = np.tile(size[::-1], 2)
        x0, y0, x1, y1 = np.float32(np.clip(placed, 0, edge))
        clipped = np.abs(inside - corners).max() > _ROUNDING
        empty = x1 <= x0 or y1 <= y0
        if clipped or empty:
            fault = "outside the image" if empty else ""
            x, y, right, low = (float(f"{c:g}") for c in corners)
            detail = f"bbox {[x, y, right - x, low - y]} in {full[1]:g}x{full[0]:g}"
            note_fault(read, fault, box.file, box.number, detail)
        if empty:
            continue
        rows[row].append((x0, y0, x1, y1, numbers[box.category], box.crowd))
    if not any(rows):
        raise DataError(f"{path}: no box to train on; {'; '.join(fault_lines(read))}")
    most = max(map(len, rows))
    total = len(rows) * most * COLUMNS * 4
    if total > LARGEST:
        raise DataError(
            f"{path}: one image has {most:,} boxes; an array of that many for each of "
            f"{len(rows):,} images takes {total / 2**30:.0f} GiB; leave the image out"
        )
    targets = np.zeros((len(rows), most, COLUMNS), np.float32)
    for number, found in enumerate(rows):
        values = np.asarray(found, np.float64).reshape(-1, 6)
        boxes, labels, crowd = values[:, :4], values[:, 4], values[:, 5]
        targets[number] = table(boxes, labels, most, crowd=crowd)
    return targets
