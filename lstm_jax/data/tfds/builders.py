"""Data sets by name, from their tfds builders, without TensorFlow."""

import contextlib
import difflib
import errno
import importlib
import io
import json
import logging
import os
import re
import shutil
import sys
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data.cache import cached, written_beside
from lstm_jax.data.catalog import LINES, MORE, OWN, SCENES, STOCK, VIDEOS
from lstm_jax.data.dataset import SPLITS, DataError, Dataset, Split
from lstm_jax.data.files.tables import fingerprint
from lstm_jax.data.similarity import FORMAT as SIMILARITY
from lstm_jax.data.similarity import copy_groups, joined_groups
from lstm_jax.data.splits import split_indices

_FORMAT = 1  # version of the cached arrays; increase it when decoding changes


class _Asked(NamedTuple):
    """A requested data set; `label` is its name in errors."""

    name: str
    config: str  # "": the default config
    label: str
    root: Path
    manual_dir: Path | None
    target_type: str = "labels"


def load_named(
    source: str,
    root: Path,
    *,
    manual_dir: Path | None,
    size: int | None,
    validation: float,
    seed: int,
    frames: int | None = None,
    sampling: str = "uniform",
    target_type: str = "labels",
) -> Dataset:
    """Load a tfds set of images (features `image`, `label`) or clips, or one of ours.

    Args:
      source: `name` or `name/config`; `-` and `_` in the name are equivalent.
      root: the cache folder.
      manual_dir, size, validation, seed, sampling: as in `load`.
      frames: T of clips that are not ours; None: their length if all have the same,
        else 16.
      target_type: as in `load`; for our scenes and text lines the name decides.

    Raises:
      DataError: unknown name, no network, an unsupported kind of data set, or one that
        cannot be prepared without TensorFlow.
    """
    name, _, config = source.strip().partition("/")
    name = name.lower().replace("-", "_")
    if name in VIDEOS or name in LINES:
        config = _config_of_ours(name, config)
    label = f"{name}/{config}" if config else name
    options = (frames, sampling) if name not in OWN else (None, "uniform")
    if name in OWN:
        known = SCENES.get(name, ("text",) if name in LINES else ("labels",))
        target_type = target_type if target_type in known else known[0]
    elif target_type == "text":
        raise DataError(
            f"{label}: has no text lines; the sets that have them: {', '.join(LINES)}"
        )
    asked = _Asked(name, config, label, root, manual_dir, target_type)
    arrays, facts, origin, place = _arrays(asked, size, *options)
    splits = {
        split: Split(*(arrays.get(f"{split}_{part}") for part in Split._fields))
        for split in (*SPLITS, *MORE)
        if f"{split}_inputs" in arrays
    }
    extra = {split: splits.pop(split) for split in MORE if split in splits} or None
    notes = [*origin["notes"], *facts["notes"]]
    groups = []
    if not all(split in splits for split in SPLITS):
        owners = arrays.get("train_owners")
        groups = _groups(root, place, splits["train"].inputs, owners)
    splits, more = _complete(label, splits, validation, seed, groups)
    classes, notes = tuple(facts["classes"]), (*notes, *more)
    more = dict(target_type=target_type, more=extra, depth=facts.get("depth"))
    return Dataset(label, splits, classes, notes, **more)


def _arrays(
    asked: _Asked,
    size: int | None,
    frames: int | None = None,
    sampling: str = "uniform",
) -> tuple[dict[str, np.ndarray], dict, dict, tuple[str, list]]:
    """A set's published splits; prepares it if necessary.

    Returns:
      (arrays, facts, origin, the name and key of the arrays in the cache).
    """
    name, config, label, root, manual_dir, target_type = asked
    drawn = _font_fingerprint() if name in LINES and config == "all" else ""
    home = root / "tfds" / (label.replace("/", "@") + drawn)
    origin = _origin(home)
    old = origin and origin["version"] != OWN.get(name, origin["version"])
    if origin is None or old or _differs(origin, manual_dir):
        _prepare(asked, home)
        origin = _origin(home)
    sampled = [frames, sampling] if (frames, sampling) != (None, "uniform") else []
    sampled += [target_type] if target_type != "labels" else []

    def decode_all(folder: Path) -> dict:
        from lstm_jax.data.tfds import decoding
        from lstm_jax.data.tfds.preparing import tfds_stubs

        with tfds_stubs():
            builder = _builder(asked, home)
        if name in LINES:
            from lstm_jax.data.synthetic import line_builder

            return line_builder.decode_lines(builder, label, size, folder)
        if name in SCENES or target_type != "labels":
            return decoding.decode_scenes(builder, label, target_type, size, folder)
        return decoding.decode_all(builder, label, size, frames, sampling, folder)

    slot = "-".join(str(part) for part in (label + drawn, size, *sampled) if part)
    key = [_FORMAT, origin, size, *sampled]
    return *cached(root, slot, key, decode_all), origin, (slot, key)


def _groups(
    root: Path, place: tuple[str, list], inputs: np.ndarray, owners: np.ndarray | None
) -> list[list | None]:
    """Examples that stay together: windows of a clip and copies; or windows alone."""
    slot, key = place

    def build(folder: Path) -> dict:
        found = copy_groups([inputs])
        np.save(folder / "groups.npy", np.arange(0) if found is None else found)
        return {}

    stored, _ = cached(root, f"{slot}-copies", [SIMILARITY, key], build)
    copies = stored["groups"] if len(stored["groups"]) == len(inputs) else None
    owners = None if owners is None else owners.tolist()
    return [joined_groups(owners, c, len(inputs)) for c in (copies, None)]


def _font_fingerprint() -> str:
    """A hash of the installed fonts."""
    from lstm_jax.data.synthetic.fonts import font_files

    names = "\n".join(str(file) for file in font_files("all"))
    return f"-{zlib.crc32(names.encode()):08x}"


def _config_of_ours(name: str, config: str) -> str:
    """The full name of a config; "" for the default one."""
    config, known = config.lower().replace("-", "_"), (VIDEOS | LINES)[name]
    if config and config not in known:
        near = difflib.get_close_matches(config, known, n=4)
        hint = f"similar: {', '.join(near)}" if near else f"it has {', '.join(known)}"
        raise DataError(f"{name}/{config}: {name} has no config {config!r}; {hint}")
    return "" if config == known[0] else config


def _stills(asked: _Asked) -> tuple[Any, dict[str, list[int]], list[str]]:
    """The stills of a video data set; fingerprints of their files; notes."""
    from lstm_jax.data.synthetic import moving

    config, manual_dir = asked.config, asked.manual_dir
    if config in STOCK:
        stock = _Asked(config, "", config, asked.root, manual_dir)
        arrays, _, origin, _ = _arrays(stock, None)
        return moving.image_stills(arrays), origin["manual"], origin["notes"]
    if config != "scans":
        return moving.digit_stills(), {}, []
    path = Path(manual_dir or ".", moving.SCANS_FILE)
    if manual_dir is None or not path.is_file():
        looked = f" (it is not in {manual_dir})" if manual_dir else ""
        raise DataError(
            f"{asked.label}: needs the 5,000 digits of OpenCV's documentation, the "
            f"file {path.name}{looked}; Debian's package opencv-doc contains it. Give "
            "its folder as --data.manual-dir=DIR"
        )
    return moving.scan_stills(path), _fingerprints({path.name: path}), []


def _complete(
    label: str,
    splits: dict[str, Split],
    validation: float,
    seed: int,
    choices: Sequence[list | None],
) -> tuple[dict[str, Split], list[str]]:
    """Splits the missing validation and test sets off "train".

    `choices` are groupings of examples that stay together; the first one that leaves no
    split empty, and every class in "train", is used.
    """
    notes = []
    targets = splits["train"].targets
    if "test" not in splits:
        notes.append(f"{label} has no labelled test split: 20 % of train is held out")
    absent = {name for name in SPLITS if name not in splits}
    assigned = {name: np.arange(len(s.inputs)) for name, s in splits.items()}
    chosen = assigned
    for groups in choices:
        draw = dict(validation=validation, seed=seed, groups=groups)
        chosen = split_indices(targets, assigned, **draw)
        kept = targets[chosen["train"]]
        whole = targets.ndim > 1 or len(np.unique(kept)) == len(np.unique(targets))
        if whole and all(len(chosen[name]) for name in absent):
            break
    inputs, _, lengths = splits["train"]

    def part(rows: np.ndarray, pixels: np.ndarray) -> Split:
        own = None if lengths is None else lengths[rows]
        return Split(pixels, targets[rows], own)

    for name in absent:
        splits[name] = part(chosen[name], inputs[chosen[name]])
    if absent:
        kept = chosen["train"]
        splits["train"] = part(kept, _gather(inputs, kept))
    empty = [name for name in SPLITS if not len(splits[name].inputs)]
    if empty:
        raise DataError(
            f"{label}: {len(targets)} training examples are too few to split off "
            f"{' and '.join(empty)}"
        )
    return {name: splits[name] for name in SPLITS}, notes


def _gather(inputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """inputs[rows], rows ascending; moves them in place if the array is in memory."""
    if not inputs.flags.writeable:
        return inputs[rows]
    for start in range(0, len(rows), 1024):  # never holds two copies of the images
        block = rows[start : start + 1024]
        inputs[start : start + len(block)] = inputs[block]
    return inputs[: len(rows)]


def _origin(home: Path) -> dict | None:
    """Metadata of a prepared set; None if it is not prepared."""
    try:
        return json.loads((home / "origin.json").read_text())
    except (OSError, ValueError):
        return None


def _differs(origin: dict, manual_dir: Path | None) -> bool:
    """Whether the manually downloaded files changed since the set was prepared."""
    if manual_dir is None or not origin["manual"]:
        return False
    files = {name: manual_dir / name for name in origin["manual"]}
    if not all(path.is_file() for path in files.values()):
        return False
    return _fingerprints(files) != origin["manual"]


def _fingerprints(files: dict[str, Path]) -> dict[str, list[int]]:
    return {name: fingerprint(path) for name, path in sorted(files.items())}


def _builder(asked: _Asked, data_dir: Path) -> Any:
    """The tfds builder of a name in `data_dir`, with checked features."""
    name, config, label = asked[:3]
    tfds = _import_tfds()
    if name in OWN:
        from lstm_jax.data.synthetic.builders import BUILDERS

        options = dict(data_dir=data_dir, file_format="array_record")
        if configs := (VIDEOS | LINES).get(name):
            options["config"] = config or configs[0]
        elif config:
            raise DataError(f"{label}: {name} has no configs; use {name}")
        return BUILDERS[name](**options)
    from lstm_jax.data.tfds.named_clips import REFUSED

    if name in REFUSED:
        raise DataError(f"{label}: {REFUSED[name]}")
    known = tfds.list_builders(with_community_datasets=False)
    if name not in known:
        near = difflib.get_close_matches(name, [*OWN, *known], n=4)
        hint = f"Similar: {', '.join(near)}" if near else f"For example: {_examples()}"
        raise DataError(
            f"{label}: no data set of that name, and no such folder or CSV. {hint}"
        )
    try:
        builder_cls = tfds.builder_cls(name)
        configs = list(builder_cls.builder_configs)
        if config and config not in configs:
            near = difflib.get_close_matches(config, configs, n=4) or configs[:8]
            raise DataError(
                f"{label}: {name} has no config {config!r}; "
                + (f"similar: {', '.join(near)}" if configs else f"use {name}")
            )
        options = {"config": config} if config else {}
        builder = builder_cls(data_dir=data_dir, file_format="array_record", **options)
        features = builder.info.features
    except DataError:
        raise
    except Exception as error:  # builders raise exceptions of many types
        raise _cannot(label, error) from error
    _check_features(label, features, asked.target_type)
    return builder


def _check_features(label: str, features: Any, target_type: str) -> None:
    tfds = _import_tfds()
    from lstm_jax.data.tfds.named_clips import find_frames

    by_name = dict(features.items()) if hasattr(features, "items") else {}
    if find_frames(features):
        return
    image, kind = by_name.get("image"), by_name.get("label")
    if target_type == "labels":
        fits = isinstance(kind, tfds.features.ClassLabel)
    else:  # checked when they are decoded
        fits = bool(by_name.keys() & {"label", "segmentation_mask", "objects"})
    if not isinstance(image, tfds.features.Image) or not fits:
        raise DataError(
            f"{label}: neither images with classes nor clips; its features are "
            f"{', '.join(by_name) or features}, expected image and label, or frames. "
            f"For example: {_examples()}"
        )
    if image.np_dtype == np.float32:
        raise DataError(f"{label}: its images are floating point; expected 8 bit")


def _examples() -> str:
    other = (*VIDEOS, *SCENES, *LINES)
    images = (name for name in OWN if name not in other)
    return ", ".join((*images, *STOCK, *VIDEOS))


def _prepare(asked: _Asked, home: Path) -> None:
    """Writes a set's array_record files to `home`; removes them if that fails."""
    tfds = _import_tfds()
    from lstm_jax.data.tfds.preparing import without_tensorflow

    label, manual_dir = asked.label, asked.manual_dir
    stills, fingerprints, notes = None, {}, []
    if asked.name in VIDEOS:
        stills, fingerprints, notes = _stills(asked)
    with written_beside(home) as beside:
        work = beside / "downloads"
        work.mkdir()
        chatter = contextlib.redirect_stdout(io.StringIO())
        with chatter, without_tensorflow(manual_dir, work) as trace:
            builder = _builder(asked, beside)
            if stills is not None:
                builder.stills = stills
            options = tfds.download.DownloadConfig(
                manual_dir=manual_dir, extract_dir=work / "extracted"
            )
            try:
                builder.download_and_prepare(download_dir=work, download_config=options)
            except Exception as error:  # builders raise exceptions of many types
                if isinstance(error, OSError) and error.errno in (
                    errno.ENOSPC,
                    errno.EDQUOT,
                ):
                    raise
                if len(trace.arrived) < len(trace.missing) and _of_network(error):
                    raise DataError(
                        _by_hand(label, trace.missing, manual_dir, error)
                    ) from error
                by_hand = getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None)
                if by_hand and isinstance(error, (AssertionError, FileNotFoundError)):
                    raise DataError(
                        f"{label}: its files must be downloaded manually. "
                        f"{_one_line(by_hand)} Then give the folder that holds them "
                        "as --data.manual-dir=DIR"
                    ) from error
                raise _cannot(label, error) from error
        shutil.rmtree(work, ignore_errors=True)
        origin = {
            "made": uuid.uuid4().hex,
            "version": str(builder.version),
            "manual": {**_fingerprints(trace.manual), **fingerprints},
            "notes": [*notes, *trace.notes],
        }
        (beside / "origin.json").write_text(json.dumps(origin))


def _by_hand(
    label: str, missing: dict[str, str], manual_dir: Path | None, error: Exception
) -> str:
    looked = f" (not all of them are in {manual_dir})" if manual_dir else ""
    lines = [f"  {file}  {url}" for url, file in missing.items()]
    return (
        f"{label}: cannot be downloaded: {_one_line(_root_cause(error))}\n"
        f"Download manually, into one folder{looked}, and give it as "
        "--data.manual-dir=DIR:\n" + "\n".join(lines)
    )


def _of_network(error: BaseException) -> bool:
    from tensorflow_datasets.core.download.util import DownloadError

    return isinstance(error, (OSError, DownloadError))


def _cannot(label: str, error: BaseException) -> DataError:
    """An error that says why a set cannot be prepared, from the root cause."""
    cause = _root_cause(error)
    if isinstance(cause, ImportError):
        module = (cause.name or "").partition(".")[0]
        if module == "tensorflow" or not module:
            return DataError(
                f"{label}: cannot be prepared without TensorFlow, which this library "
                f"does not use. Sets that can: {_examples()}; or save its images or "
                "clips to folders, one per class, and give the folder"
            )
        return DataError(
            f"{label}: preparing it needs the package {module}; pip install {module}"
        )
    reason = _one_line(cause) or type(cause).__name__
    archive = re.search(r"Error while extracting (.+?) to ", str(error))
    if archive:
        reason = f"{Path(archive[1]).name} is damaged ({reason}); download it again"
    return DataError(f"{label}: cannot be prepared: {reason}")


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None or (
        error.__context__ is not None and not error.__suppress_context__
    ):
        error = error.__cause__ or error.__context__
    return error


def _one_line(text: object) -> str:
    return re.sub(r"\s+", " ", str(text)).strip()[:400]


def _import_tfds() -> Any:
    """Imports tfds lazily (it takes half a second) and silences its logging."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"data sets by name need tensorflow-datasets ({error}); "
            "pip install tensorflow-datasets importlib_resources"
        ) from error
    logging.getLogger("absl").setLevel(logging.ERROR)
    # tfds lists fewer names if a package for other kinds of sets is missing.
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorflow_datasets.video")
    with contextlib.suppress(AttributeError, ValueError):
        if not os.isatty(sys.stderr.fileno()):
            tfds.disable_progress_bar()
    return tfds
