"""Reads boxes in YOLO format: labels/NAME.txt for images/NAME.jpg."""

import math
from pathlib import Path
from typing import Any

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.file_tree import holds
from lstm_jax.data.files.images import find_images, image_size
from lstm_jax.data.files.split_names import one_each, split_folders, split_of

_LABELS, _IMAGES = "labels", "images"
_NAMES = ("classes.txt", "obj.names", "data.yaml", "data.yml", "dataset.yaml")


def find_yolo(path: Path) -> dict[str | None, Path]:
    """Folders of labels by split; the key None: split at random; {}: none found.

    These are labels/ beside images/, or for each split labels/SPLIT/ or SPLIT/labels/.
    """
    if not path.is_dir():
        return {}
    labels = path / _LABELS
    files = labels.glob("*.txt") if (path / _IMAGES).is_dir() else ()
    if any(file.name not in _NAMES for file in files):
        return {None: labels}
    if (path / _IMAGES).is_dir() and labels.is_dir():
        parts = [f for f in sorted(labels.iterdir()) if holds(f, (".txt",))]
        return one_each(labels, [(split_of(f.name), f) for f in parts])
    parts = {split: f / _LABELS for split, f in split_folders(path).items()}
    return {split: f for split, f in parts.items() if holds(f, (".txt",))}


def read_yolo(labels: Path, top: Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the images and boxes of a folder of labels into the structure of COCO.

    Each line is `class x y w h`, with center and size as fractions of the image, or
    the class and the corners of a polygon. An image without a label file has no boxes.

    Args:
      labels: the folder; the path of the images has `images` instead of `labels`.
      top: the data set's folder, with class names in classes.txt or data.yaml.

    Raises:
      DataError: a line is malformed, or the names cannot be read.
    """
    home = images_of(labels)
    images, boxes, numbers = [], [], set()
    for key, path in enumerate(find_images(home)):
        name = path.relative_to(home)
        images.append({"id": key, "file_name": name.as_posix()})
        file, size = (labels / name).with_suffix(".txt"), image_size(path)
        if size is None or not file.is_file():
            continue  # decoding reports what cannot be read
        h, w = size
        images[-1] |= {"height": h, "width": w}
        for number, corners in _boxes(file):
            x0, y0, x1, y1 = (v * s for v, s in zip(corners, (w, h, w, h), strict=True))
            box = {"image_id": key, "category_id": number}
            boxes.append(box | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
            numbers.add(number)
    names = _names(top) or {k: str(k) for k in range(max(numbers, default=-1) + 1)}
    categories = [{"id": k, "name": name} for k, name in names.items()]
    return {"images": images, "annotations": boxes, "categories": categories}


def yolo_folders(labels: Path, top: Path) -> list[Path]:
    """Folders in which the images of a folder of labels may be."""
    return [images_of(labels)]


def images_of(labels: Path) -> Path:
    """The folder of images that belongs to a folder of labels."""
    parts = list(labels.parts)
    parts[max(k for k, part in enumerate(parts) if part == _LABELS)] = _IMAGES
    return Path(*parts)


def _boxes(file: Path):
    """(class, (x0, y0, x1, y1) as fractions of the image) of each line of a file."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable text ({error})") from error
    for at, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            number, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            number, values = -1, []
        polygon = len(values) >= 6 and len(values) % 2 == 0
        finite = all(map(math.isfinite, values))
        if number < 0 or not finite or not (len(values) == 4 or polygon):
            raise DataError(
                f"{file}: line {at} is {line[:60]!r}; expected class x y w h, as "
                "fractions of the image, or a class and a polygon"
            )
        if polygon:
            xs, ys = values[::2], values[1::2]
            yield number, (min(xs), min(ys), max(xs), max(ys))
        else:
            x, y, w, h = values
            yield number, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def _names(top: Path) -> dict[int, str] | None:
    """Class names by index, from a file in the data set's folder; None without one."""
    files = [folder / name for folder in (top, top / _LABELS) for name in _NAMES]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix in (".yaml", ".yml"):
            import yaml

            names = yaml.safe_load(text)["names"]
            names = names if isinstance(names, dict) else dict(enumerate(names))
        else:
            names = dict(enumerate(text.split("\n")))
        return {int(k): str(n).strip() for k, n in names.items() if str(n).strip()}
    except Exception as error:  # PyYAML's errors have several base classes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file}: no class names can be read ({reason})") from error
