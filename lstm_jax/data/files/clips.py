"""Your own clips or features as a data set, decoded once and cached."""

import concurrent.futures
import functools
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data.cache import cached, new_array
from lstm_jax.data.counts import check_counts, large_classes
from lstm_jax.data.dataset import DataError, Dataset, Split, common_size
from lstm_jax.data.files.clip_files import (
    FEATURES,
    VIDEOS,
    Clip,
    fill_clip,
    frame_files,
    import_av,
    pick_steps,
    probe_clip,
)
from lstm_jax.data.files.clip_lists import Entry, list_folder, list_table
from lstm_jax.data.files.read_options import ReadOptions, counted
from lstm_jax.data.files.tables import (
    fingerprint,
    first_few,
    targets_of,
    with_groups,
)
from lstm_jax.data.similarity import HASHED
from lstm_jax.data.splits import assign_splits, by_split

_FORMAT = 2  # version of the cached arrays; increase it when decoding changes
_FRAMES = 16
_FALLBACK_SIZE = 64


def load_clips(path: Path, root: Path, options: ReadOptions) -> Dataset:
    """Load a folder or CSV of clips; unreadable ones are reported in `notes`.

    Args:
      path: the folder or CSV, which exists.
      root: the cache folder.
      options: without a size, the common one, or 64 if sizes differ.

    Raises:
      DataError: no clips, only one class, too few clips of a class, or a malformed
        table.
    """
    frames, sampling, size = options.frames, options.sampling, options.size
    if path.is_dir():
        (entries, notes), columns, by_step = list_folder(path), None, False
        entries = with_groups(path, entries, options.group)
    else:
        listed = list_table(path, options.form, options.group)
        (entries, columns, by_step), notes = listed, []
    kinds = {p.path.suffix.lower() == FEATURES for p in entries}
    if len(kinds) > 1:
        raise DataError(
            f"{path}: lists .npy features and clips; a data set has one kind"
        )
    entries, small = _with_counts(path, entries, columns, options.min_per_class)
    notes += small
    paths = [entry.path for entry in entries]
    video = next((p for p in paths if p.suffix.lower() in VIDEOS), None)
    if video:
        import_av(str(video))
    slot = "-".join([path.name, *map(str, filter(None, (frames, sampling, size)))])
    key = [_FORMAT, frames, sampling, size, [[str(p), *_fingerprint(p)] for p in paths]]
    arrays, facts = cached(
        root,
        slot,
        key,
        functools.partial(_decode_all, path, paths, options),
    )
    notes += facts["notes"]
    if columns is None:
        arrays, small = _large_only(path, entries, arrays, options.min_per_class)
        notes += small
    owners, steps = arrays["owners"], arrays["steps"]
    owned = [entries[owner] for owner in owners]
    if columns is None:
        targets, classes = _labelled(path, owned)
        listed = {entry.label: entry.path for entry in entries if entry.label}
        gone = listed.keys() - set(classes)
        if classes and gone and options.min_per_class is None:
            name = min(gone)
            raise DataError(
                f"{path}: no clip of class {name!r} can be read, such as "
                f"{listed[name]}; repair them, or leave the class out with "
                "--data.min-per-class=1"
            )
    else:
        targets, classes = _from_columns(entries, owners, steps, columns, by_step)
        notes += _beyond(entries, facts["totals"]) if by_step else []
    exclusive = targets.dtype == np.int32
    known = classes if exclusive else ()
    inputs = arrays["inputs"]
    if len(inputs) != len(owned):  # rows of clips that could not be read
        inputs = inputs[arrays["rows"]] if inputs.nbytes <= HASHED else None
    draw = dict(validation=options.validation, seed=options.seed, inputs=inputs)
    chosen, more = assign_splits(path, owned, "clip", targets, known, **draw)
    unknown = targets == -1 if exclusive else np.isnan(targets)
    bare = sum(unknown[i].all() for i in chosen["test"])
    if bare:
        notes.append(f"{bare} test clips have no label and are not scored")
    inputs = _by_split(root, slot, key, arrays, chosen)
    lengths = arrays["lengths"] if (arrays["lengths"] < steps.shape[1]).any() else None
    splits = {
        name: Split(inputs[name], targets[i], None if lengths is None else lengths[i])
        for name, i in chosen.items()
    }
    names = by_split([entry.name for entry in owned], chosen)
    groups = by_split([entry.group for entry in owned], chosen)
    return Dataset(path.name, splits, classes, (*notes, *more), names, groups)


def _with_counts(
    path: Path,
    entries: list[Entry],
    columns: tuple[str, ...] | None,
    minimum: int | None,
) -> tuple[list[Entry], list[str]]:
    """Entries of classes that are large enough, before anything is decoded."""
    if columns is not None or not any(entry.label for entry in entries):
        return entries, []
    kept, notes = large_classes(path, entries, "clip", minimum)
    entries = [entries[i] for i in kept]
    targets, classes = _labelled(path, entries)
    if classes:
        check_counts(path, entries, "clip", targets, classes)
    return entries, notes


def _large_only(
    path: Path,
    entries: list[Entry],
    arrays: dict[str, np.ndarray],
    minimum: int | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays without classes of which too few clips were decoded, and notes."""
    readable = sorted({*arrays["owners"].tolist()})
    kept, notes = large_classes(path, [entries[k] for k in readable], "clip", minimum)
    if len(kept) == len(readable):
        return arrays, notes
    rows = np.isin(arrays["owners"], [readable[k] for k in kept])
    per_row = ("owners", "steps", "rows", "lengths")
    return arrays | {name: arrays[name][rows] for name in per_row}, notes


def _fingerprint(path: Path) -> list:
    """Changes if the file, or one of the frames in the folder, changes."""
    try:
        files = frame_files(path) if path.is_dir() else None
    except OSError:
        files = None
    if files is None:
        return fingerprint(path)
    frames = [[file.name, *fingerprint(file)] for file in files]
    return [hashlib.sha256(str(frames).encode()).hexdigest()]


def _decode_all(
    source: Path,
    paths: list[Path],
    options: ReadOptions,
    folder: Path,
) -> dict:
    """Decodes the readable clips to inputs.npy [rows, T, ...].

    Other arrays, for the N examples that were decoded: rows [N], the index into
    inputs; owners [N], the index into `paths`; lengths [N]; and steps int32 [N, T],
    the steps of the clip that the example holds, padded with -1.
    """
    failed: dict[int, str] = {}
    frames, sampling = options.frames, options.sampling
    with concurrent.futures.ThreadPoolExecutor() as pool:
        probed = dict(enumerate(pool.map(functools.partial(_tried, probe_clip), paths)))
        features = any(path.suffix.lower() == FEATURES for path in paths)
        clips = _sorted_out(probed, failed)
        if features:
            _drop_other_widths(paths, clips, failed)
        if not clips:
            raise DataError(_none_usable(source, paths, failed))
        shape, notes = _shape([*clips.values()], features, options.size)
        if frames is None:
            frames = max(c.steps for c in clips.values()) if features else _FRAMES
        picked = {k: pick_steps(c.steps, frames, sampling) for k, c in clips.items()}
        ends = dict(zip(picked, np.cumsum([*map(len, picked.values())]), strict=True))
        total = sum(map(len, picked.values()))
        dtype = np.dtype(np.float32 if features else np.uint8)
        inputs = new_array(folder / "inputs.npy", dtype, (total, frames, *shape))

        def fill(k: int) -> tuple[list[list[int]], list[str]]:
            out = inputs[ends[k] - len(picked[k]) : ends[k]]
            return fill_clip(paths[k], picked[k], out)

        tried = pool.map(functools.partial(_tried, fill), picked)
        tried = counted(tried, len(picked), options)
        filled = _sorted_out(dict(zip(picked, tried, strict=True)), failed)
        inputs.flush()
    if not filled:
        raise DataError(_none_usable(source, paths, failed))
    examples = [
        (ends[k] - len(windows) + number, k, held)
        for k, (windows, _) in filled.items()
        for number, held in enumerate(windows)
        if held
    ]
    steps = np.full((len(examples), frames), -1, np.int32)
    for place, (_, _, held) in zip(steps, examples, strict=True):
        place[: len(held)] = held
    np.save(folder / "rows.npy", np.asarray([row for row, _, _ in examples], np.int64))
    np.save(folder / "owners.npy", np.asarray([k for _, k, _ in examples], np.int32))
    np.save(folder / "lengths.npy", (steps >= 0).sum(1).astype(np.int32))
    np.save(folder / "steps.npy", steps)
    flaws = [line for k, (_, own) in filled.items() for line in own or clips[k].flaws]
    notes += first_few(flaws, "{} more clips or frames with flaws")
    skipped = [f"skipped {failed[k]}" for k in sorted(failed)]
    notes += first_few(skipped, "{} more clips that cannot be used")
    return {"notes": notes, "totals": {str(k): clips[k].steps for k in filled}}


def _tried(function: Callable, argument: Any) -> Any:
    try:
        return function(argument)
    except DataError as error:
        return error


def _sorted_out(results: dict[int, Any], failed: dict[int, str]) -> dict[int, Any]:
    """The results without the errors, which are added to `failed`."""
    failed |= {k: str(r) for k, r in results.items() if isinstance(r, DataError)}
    return {k: r for k, r in results.items() if not isinstance(r, DataError)}


def _drop_other_widths(
    paths: list[Path], clips: dict[int, Clip], failed: dict[int, str]
) -> None:
    """Keep the features of the width F that most files have."""
    widths = {k: width for k, clip in clips.items() for (width,) in clip.sizes}
    if not widths:
        return
    ((common, count),) = Counter(widths.values()).most_common(1)
    for k, width in widths.items():
        if width != common:
            failed[k] = f"{paths[k]}: has F={width}, but {count} others have F={common}"
            del clips[k]


def _shape(
    clips: list[Clip], features: bool, size: int | None
) -> tuple[tuple[int, ...], list[str]]:
    """(H, W, C) or (F,) of all steps, and notes."""
    sizes = frozenset().union(*(clip.sizes for clip in clips))
    if features:
        return next(iter(sizes)), []
    notes: list[str] = []
    known = next(iter(sizes)) if len(sizes) == 1 else None
    what = f"frames of {len(sizes)} sizes"
    height, width = common_size(known, size, _FALLBACK_SIZE, what, notes)
    return (height, width, 1 if all(clip.grey for clip in clips) else 3), notes


def _none_usable(source: Path, paths: list[Path], failed: dict[int, str]) -> str:
    return (
        f"{source}: none of its {len(paths)} clips can be used; the first: "
        f"{failed[min(failed)]}"
    )


def _labelled(source: Path, entries: list[Entry]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets if each clip has one label, and the class names."""
    known = np.asarray([bool(entry.label) for entry in entries])
    labels = [entry.label for entry in entries if entry.label]
    values, classes = targets_of(source, labels, numbers=not source.is_dir())
    unknown = -1 if values.dtype == np.int32 else np.nan
    targets = np.full((len(entries), *values.shape[1:]), unknown, values.dtype)
    targets[known] = values
    return targets, classes


def _from_columns(
    entries: list[Entry],
    owners: np.ndarray,
    steps: np.ndarray,
    columns: tuple[str, ...],
    by_step: bool,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Multi-label targets, float32 [N, T, K] or [N, K], NaN if unknown; and names."""
    if not by_step:
        values = [entries[owner].by_step[-1] for owner in owners]
        return np.asarray(values, np.float32), columns
    targets = np.full((*steps.shape, len(columns)), np.nan, np.float32)
    for place, owner, held in zip(targets, owners, steps, strict=True):
        known = entries[owner].by_step
        for t, step in enumerate(held.tolist()):
            if step in known:
                place[t] = known[step]
    return targets, columns


def _beyond(entries: list[Entry], totals: dict[str, int]) -> list[str]:
    """Notes on labels for steps beyond the end of the file."""
    lines = []
    for k, total in totals.items():
        entry = entries[int(k)]
        lost = sum(step >= total for step in entry.by_step)
        if lost:
            lines.append(
                f"{entry.path}: has {total} steps; {lost} of its labels are for later "
                "steps and are left out"
            )
    return first_few(lines, "{} more files with labels after their end")


def _by_split(
    root: Path, slot: str, key: list, arrays: dict, chosen: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Inputs by split; memory-mapped inputs are copied to one file per split."""
    inputs, rows = arrays["inputs"], arrays["rows"]
    if not isinstance(inputs, np.memmap):
        return {name: inputs[rows[i]] for name, i in chosen.items()}

    def build(folder: Path) -> dict:
        for name, i in chosen.items():
            shape = (len(i), *inputs.shape[1:])
            file = folder / f"{name}.npy"
            out = new_array(file, inputs.dtype, shape)
            for place, row in enumerate(rows[i]):
                out[place] = inputs[row]
            out.flush()
        return {}

    assigned = [key, {name: rows[i].tolist() for name, i in chosen.items()}]
    return cached(root, f"{slot}-assigned", assigned, build)[0]
