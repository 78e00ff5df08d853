"""Your own text lines: NAME.png with NAME.gt.txt, a CSV, or pages with XML."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lstm_jax.data.cache import cached
from lstm_jax.data.dataset import DataError, Dataset, Split
from lstm_jax.data.files.bidi import visual
from lstm_jax.data.files.characters import INVISIBLE, clean
from lstm_jax.data.files.csv_files import TABLES, TableFormat, read_table
from lstm_jax.data.files.images import find_images
from lstm_jax.data.files.line_reading import HEIGHT, Line, decode_lines
from lstm_jax.data.files.pages import is_page, is_page_dataset, read_pages
from lstm_jax.data.files.read_options import ReadOptions
from lstm_jax.data.files.split_names import split_folders
from lstm_jax.data.files.tables import (
    fingerprint,
    first_few,
    table_rows,
    with_groups,
)
from lstm_jax.data.splits import assign_splits, by_split

TEXT = ".gt.txt"
_FORMAT = 3  # version of the cached arrays; increase it when decoding changes
_NOT_TEXT = ("Cc", "Cn", "Cs")  # Unicode categories: control, unassigned, surrogate


def is_line_dataset(path: Path, form: TableFormat = TableFormat()) -> bool:
    """Whether a path holds text lines.

    True for a folder with NAME.gt.txt, ALTO or PAGE XML in it or in its direct
    subfolders, for one such XML file, and for a CSV with a column `text`.
    """
    if path.is_dir():
        beside = any(any(path.glob(f"{way}*{TEXT}")) for way in ("", "*/"))
        return beside or is_page_dataset(path)
    if path.suffix.lower() == ".xml":
        return is_page(path)
    if path.suffix.lower() not in TABLES:
        return False
    try:
        header = read_table(path, ["path"], form)[0]
    except DataError:
        return False
    return "text" in header and "label" not in header


def alphabet_of(texts: Iterable[str]) -> tuple[str, ...]:
    """All characters that occur, sorted by code point."""
    return tuple(sorted(set().union(*map(set, texts))))


def labels_of(texts: Sequence[str], alphabet: Sequence[str]) -> np.ndarray:
    """Text as labels int32 [N, L]: 1 + index in the alphabet, padded with 0.

    Raises:
      KeyError: a character is not in the alphabet.
    """
    label = {character: k for k, character in enumerate(alphabet, start=1)}
    out = np.zeros((len(texts), max(map(len, texts), default=0)), np.int32)
    for row, text in zip(out, texts, strict=True):
        row[: len(text)] = [label[character] for character in text]
    return out


def load_lines(path: Path, root: Path, options: ReadOptions) -> Dataset:
    """Load text lines from a folder (optionally train/, val/ and test/), CSV or pages.

    Texts are UTF-8, normalized by `clean` and put in visual order by `visual`. Images
    become grey and are scaled to one height, keeping the aspect ratio; they are padded
    on the right with white. Lines of pages are cropped as `read_pages` describes; all
    lines of a page are in the same split, if there are enough pages.

    Skipped and reported in `notes`: images without text, and texts without image;
    images that cannot be read, are of one colour, lower than 4 pixels or, scaled, wider
    than 4,096; texts that are empty, not UTF-8, of more than one line, or contain
    control characters or characters not in the alphabet; pages that cannot be parsed.

    Args:
      path: the folder; a CSV with the columns `path,text[,group][,split]`; or an XML
        file beside its image.
      root: the cache folder.
      options: `size` is the height to scale to, pixels; None: 32.

    Returns:
      The Dataset: inputs uint8 [N, H, W, 1]; lengths int32 [N], the valid columns of
      each line; targets int32 [N, L], 1 + index into `classes`, padded with 0.

    Raises:
      DataError: no readable line, too few of them, a malformed table, or right-to-left
        text without the package python-bidi.
    """
    height, alphabet = options.size or HEIGHT, options.alphabet
    listed, notes = _listed(path, options.form, options.group)
    lines, faults = _with_valid_texts(listed, alphabet)
    notes += first_few(faults, "skipped {} more lines whose text cannot be used")
    notes += _invisible(listed)
    if not lines:
        first = notes[0].removeprefix("skipped ") if notes else "it is empty"
        raise DataError(f"{path}: no text line to train on; the first: {first}")
    arrays, facts = cached(
        root,
        f"{path.name}-lines-{height}",
        [
            _FORMAT,
            height,
            [[str(n.image), *fingerprint(n.image), n.cut] for n in lines],
        ],
        lambda folder: decode_lines(path, lines, options, folder),
    )
    lines = [lines[k] for k in facts["kept"]]
    images, widths = arrays["images"][: len(lines)], arrays["widths"]
    draw = dict(validation=options.validation, seed=options.seed, inputs=images)
    chosen, grouped, more = _assign(path, lines, options.group is not None, draw)
    texts = [line.text for line in lines]
    classes = alphabet_of(texts) if alphabet is None else tuple(alphabet)
    targets = labels_of(texts, classes)
    trained = set().union(*(set(texts[k]) for k in chosen["train"]))
    if unseen := sorted(set().union(*map(set, texts)) - trained):
        shown = ", ".join(map(repr, unseen[:8])) + (", …" if unseen[8:] else "")
        more.append(f"not in any training line: {shown}")
    splits = {n: Split(images[i], targets[i], widths[i]) for n, i in chosen.items()}
    names = by_split([line.name for line in lines], chosen)
    groups = by_split([line.group for line in lines] if grouped else None, chosen)
    notes = (*notes, *facts["notes"], *more)
    return Dataset(path.name, splits, classes, notes, names, groups, target_type="text")


def _invisible(lines: list[Line]) -> list[str]:
    """A note on characters that are removed from texts, except byte-order marks."""
    found = [(line, set(line.text.lstrip("\ufeff")) & INVISIBLE) for line in lines]
    found = [(line, removed) for line, removed in found if removed]
    if not found:
        return []
    codes = sorted(set().union(*(removed for _, removed in found)))
    shown = ", ".join(f"U+{ord(c):04X}" for c in codes[:8])
    where = found[0][0].label
    return [
        f"removed invisible characters ({shown}) from {len(found)} texts, such as "
        f"{where}"
    ]


def _assign(
    path: Path, lines: list[Line], by_group: bool, draw: dict
) -> tuple[dict[str, np.ndarray], bool, list[str]]:
    """Indices by split, whether groups were kept whole, and notes."""
    groups = [line.group for line in lines]
    try:
        chosen, notes = assign_splits(path, lines, "line", **draw)
        return chosen, len(set(groups)) < len(groups), notes
    except DataError:
        if by_group or not any(line.cut for line in lines):
            raise
    apart = [line._replace(group=None) for line in lines]
    chosen, notes = assign_splits(path, apart, "line", **draw)
    pages = len({line.group for line in lines if line.cut})
    notes.append(
        f"lines of one page are in several splits, because there are too few pages "
        f"({pages}); for a fair test add pages, or put them into train/, val/ and test/"
    )
    return chosen, False, notes


def _listed(
    path: Path, form: TableFormat, group: str | None
) -> tuple[list[Line], list[str]]:
    """All lines, before their texts are checked, and notes on what was skipped."""
    if path.is_dir():
        lines, notes = _from_folder(path)
        return with_groups(path, lines, group), notes
    if path.suffix.lower() in TABLES:
        return _from_table(path, form, group), []
    if path.suffix.lower() == ".xml":
        lines, faults, _ = read_pages([path], path.parent)
        lines = with_groups(path, lines, group)
        return lines, first_few(faults, "skipped {} more lines without a location")
    raise DataError(
        f"{path}: neither CSV nor XML; give a folder, a .csv table or a page's .xml"
    )


def _from_folder(path: Path) -> tuple[list[Line], list[str]]:
    """Images with text files, lines of pages, and notes."""
    lines, faulty, alone, unused = [], [], [], []
    parts = split_folders(path) or {None: path}
    for split, folder in parts.items():
        files = find_images(folder, (".xml",))
        found, faults, pages = read_pages(files, path, split)
        lines += found
        faulty += faults
        texts = {f for f in find_images(folder, (".txt",)) if f.name.endswith(TEXT)}
        used = set()
        for image in find_images(folder):
            # NAME.bin.png and NAME.nrm.png belong to NAME.gt.txt, too.
            stems = dict.fromkeys((image.stem, image.name.partition(".")[0]))
            beside = [image.with_name(stem + TEXT) for stem in stems]
            file = next((f for f in beside if f in texts), None)
            if file is None:
                if image not in pages:
                    alone.append(f"skipped {image}: has no text {beside[0].name}")
                continue
            used.add(file)
            try:
                text = file.read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not UTF-8"
                faulty.append(f"skipped {file}: not a readable text ({reason})")
                continue
            name = image.relative_to(path).as_posix()
            lines.append(Line(image, text, str(image), name, split, str(file)))
        unused += [f"left out {f}: has no image" for f in sorted(texts - used)]
    outside = [] if None in parts else _outside(path, parts.values())
    notes = [
        *first_few(alone, "skipped {} more images without a text"),
        *first_few(unused, "left out {} more texts without an image"),
        *first_few(faulty, "skipped {} more files or lines that cannot be parsed"),
        *outside,
    ]
    return lines, notes


def _outside(path: Path, parts: Iterable[Path]) -> list[str]:
    inside = {image for folder in parts for image in find_images(folder)}
    left = [image for image in find_images(path) if image not in inside]
    if not left:
        return []
    return [f"left out {len(left)} images outside the split folders, such as {left[0]}"]


def _from_table(path: Path, form: TableFormat, by: str | None) -> list[Line]:
    rows = table_rows(path, ["path", "text"], form, by)
    return [
        Line(file, cells["text"], str(file), cells["path"], split, group)
        for _, cells, file, split, group in rows
    ]


def _with_valid_texts(
    lines: list[Line], alphabet: Sequence[str] | None
) -> tuple[list[Line], list[str]]:
    """Lines whose text can be used, and notes on the others."""
    kept, faults, known = [], [], None if alphabet is None else set(alphabet)
    for line in lines:
        text, fault = clean(line.text), None
        rows = sum(bool(row.strip()) for row in line.text.splitlines())
        strange = [c for c in text if unicodedata.category(c) in _NOT_TEXT]
        strange += [c for c in text if c == "\ufffd"]
        text = text if strange else visual(text)
        unknown = [c for c in text if known is not None and c not in known]
        if not text:
            fault = "its text is empty"
        elif rows > 1:
            fault = f"its text has {rows} lines; expected one"
        elif strange:
            fault = f"its text holds U+{ord(strange[0]):04X}, which is not a character"
        elif unknown:
            code = f"U+{ord(unknown[0]):04X}"
            fault = f"its text holds {unknown[0]!r} ({code}), not in the alphabet"
        if fault:
            faults.append(f"skipped {line.label}: {fault}")
        else:
            kept.append(line._replace(text=text))
    return kept, faults
