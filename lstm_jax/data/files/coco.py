"""Reads boxes in COCO JSON files."""

import json
import re
from pathlib import Path

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.split_names import SPELLINGS, split_folders

_LARGEST_FILE = 1 << 30  # bytes of JSON; COCO itself, 118,287 images, takes 0.45 GB
_SINGLE = ("annotations.json", "_annotations.coco.json")
_PARTS = re.compile(rf"instances_({'|'.join(SPELLINGS)}|default)\d*\.json")


def find_coco(path: Path) -> dict[str | None, Path]:
    """COCO files by split; {} if there are none. The split None means unassigned.

    These are: FILE.json itself; annotations.json or _annotations.coco.json in a folder;
    annotations/instances_train.json, _val and _test (a year may follow), or
    instances_default.json; or _annotations.coco.json or annotations.json in train/,
    valid/ and test/.

    Raises:
      DataError: two files of one split, or no file for training.
    """
    if path.is_file():
        return {None: path} if path.suffix.lower() == ".json" else {}
    for name in _SINGLE:
        if (path / name).is_file():
            return {None: path / name}
    found: dict[str | None, Path] = {}
    for file in sorted((path / "annotations").glob("instances_*.json")):
        if match := _PARTS.fullmatch(file.name.lower()):
            split = SPELLINGS.get(match[1])
            if split in found:
                raise DataError(
                    f"{path}: {found[split].name} and {file.name} are both for "
                    f"{split}; keep one"
                )
            found[split] = file
    if not found:
        for split, folder in split_folders(path).items():
            for name in _SINGLE:
                if (folder / name).is_file():
                    found.setdefault(split, folder / name)
    if found and not found.keys() & {None, "train"}:
        files = ", ".join(file.name for file in found.values())
        raise DataError(f"{path}: has no boxes to train on, only {files}")
    return found


def read_coco(file: Path, top: Path) -> dict[str, list[dict]]:
    """The lists images, annotations and categories of a file."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise DataError(
                f"{file}: {file.stat().st_size / 2**30:.1f} GiB of JSON, over the "
                f"{_LARGEST_FILE >> 30} GiB limit; leave out outlines "
                "(segmentation), or list fewer images"
            )
        text = file.read_text("utf-8-sig")
        found = json.loads(text, object_hook=_drop_segmentation)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except RecursionError as error:
        raise DataError(f"{file}: not readable JSON (too deeply nested)") from error
    except DataError:
        raise
    except ValueError as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, json.JSONDecodeError) and not text[error.pos :].strip():
            reason = f"ends too early, {reason}"
        raise DataError(f"{file}: not readable JSON ({reason})") from error
    for key in ("images", "annotations", "categories"):
        entries = found.get(key) if isinstance(found, dict) else None
        if not isinstance(entries, list):
            has = (
                ", ".join(list(found)[:6])
                if isinstance(found, dict)
                else "no JSON object"
            )
            raise DataError(
                f"{file}: no list {key!r}, found {has or 'nothing'}; a COCO file has "
                "the lists images, annotations and categories"
            )
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise DataError(f"{file}: {key}[{number}] is not an object")
    return found


def coco_folders(file: Path, path: Path) -> list[Path]:
    """Folders in which a file's images may be, the most likely first."""
    match = _PARTS.fullmatch(file.name.lower())
    if match:
        homes = [file.parent.parent, file.parent]
    else:
        homes = [file.parent, path if path.is_dir() else file.parent]
    folders = [folder for home in homes for folder in (home, home / "images")]
    if match:
        part = file.stem[len("instances_") :]
        inside = [folder / name for name in (part, match[1]) for folder in folders]
        folders = inside + folders
    return folders


def _drop_segmentation(entry: dict) -> dict:
    """Segmentations are most of a file, and are not used."""
    entry.pop("segmentation", None)
    return entry
