"""Detects the layout of a data set from the files in it."""

from pathlib import Path
from typing import NamedTuple

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.array_files import is_array_dataset
from lstm_jax.data.files.box_lists import name_of_boxes
from lstm_jax.data.files.class_folders import find_class_folders
from lstm_jax.data.files.clip_lists import is_clip_dataset
from lstm_jax.data.files.csv_files import TABLES, TableFormat, open_table
from lstm_jax.data.files.lines import is_line_dataset
from lstm_jax.data.files.mask_pairs import mask_layout

_PRESETS = {"text": "text-lines", "masks": "segment-digits", "boxes": "detect-digits"}


class Layout(NamedTuple):
    """The layout of a data set.

    Attributes:
      kind: "images", "clips", "arrays", "masks", "boxes" or "text".
      name: a description, such as "images in class folders in train/ and test/".
      ignored: one line for each file or folder that is not read.
      notes: lines to show to the user.
    """

    kind: str
    name: str
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def target_type(self) -> str:
        """As in `Dataset`."""
        return self.kind if self.kind in _PRESETS else "labels"


def detect(
    path: Path,
    target_type: str | None = "labels",
    frames: int | None = None,
    form: TableFormat = TableFormat(),
) -> Layout:
    """The layout of a folder, table or annotation file.

    Args:
      path: an existing folder or file.
      target_type: the expected type, "labels", "masks", "boxes" or "text"; None: any.
      frames: as in `load`.
      form: the user's options for tables.

    Raises:
      DataError: the layout is unknown, ambiguous or of another target type; the
        message says what was found and what to do.
    """
    if is_array_dataset(path):
        if target_type not in ("labels", None):
            raise DataError(f"{path}: arrays hold labels, not {target_type}")
        return Layout("arrays", "arrays")
    found = _annotated(path, form)
    if target_type in found:
        return found[target_type]
    if found:
        layout = next(iter(found.values()))
        if target_type is None:
            return layout
        preset = _PRESETS[layout.kind]
        raise DataError(
            f"{path}: holds {layout.name}; use the preset {preset}: experiments.train "
            f"{preset} --data={path}"
        )
    if target_type not in ("labels", None):  # the loader says what it expects
        return Layout(target_type, f"no {target_type}")
    if not path.is_dir():
        kind = "clips" if is_clip_dataset(path, None, form) else "images"
        wanted = ["path"] if kind == "clips" else ["path", "label"]
        return Layout(kind, f"table of {kind}", notes=_table_notes(path, wanted, form))
    classes = find_class_folders(path)
    kind = "clips" if is_clip_dataset(path, frames) else "images"
    splits = dict.fromkeys(
        f.path.relative_to(path).parts[0] + "/" for f in classes.folders if f.split
    )
    name = f"{kind} in class folders"
    if splits:
        name += f" in {' and '.join(splits)}"
    return Layout(kind, name, (*classes.ignored, *classes.lost))


def _annotated(path: Path, form: TableFormat) -> dict[str, Layout]:
    """Layouts with targets in files beside the images, by target type."""
    found = {}
    if is_line_dataset(path, form):
        name = "lines of text (NAME.gt.txt, a column text, or ALTO or PAGE XML)"
        found["text"] = Layout("text", name, notes=_table_notes(path, ["path"], form))
    if masks := mask_layout(path):
        found["masks"] = Layout("masks", masks)
    if name := name_of_boxes(path):
        found["boxes"] = Layout("boxes", name)
    return found


def _table_notes(path: Path, wanted, form: TableFormat) -> tuple[str, ...]:
    """A line on how a table is read, if it is not a plain CSV."""
    if path.suffix.lower() not in TABLES:
        return ()
    told = open_table(path, wanted, form).described()
    return (f"{path.name}: {told}",) if told else ()
