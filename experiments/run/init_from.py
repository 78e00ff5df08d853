"""Initial weights from a run or a file: `--init-from=runs/fashion-rows`."""

import json
from pathlib import Path
from typing import Any

from experiments.config import read_run
from experiments.errors import UsageError
from experiments.options import Config
from experiments.run.folder import underway
from experiments.run.load_run import load_run, located, read_weights, saved_run
from experiments.spec import DataSpec
from experiments.tasks import TASKS, task_kind
from lstm_jax import interop, training
from lstm_jax.interop.entries import check
from lstm_jax.models import kraken

# Functions that read weights files, by suffix.
READERS = {
    ".pt": interop.read_torch,
    ".pth": interop.read_torch,
    ".safetensors": read_weights,
    ".h5": interop.read_keras,
}


def known_labels(config: Config, directory: Path) -> list[str]:
    """Class names with fixed labels, for tasks that extend labels; else [].

    They come from the run itself if it is resumed, else from `--init-from`.
    """
    if not task_kind(config).extends_labels:
        return []
    saved = read_run(directory) if underway(directory, config) else None
    if saved is None and config.init_from:
        source = located(config.init_from)
        if source.suffix == ".safetensors" and source.is_file():
            return _classes(source) or []
        saved = read_run(source)
    return saved["data"]["classes"] if _extends_labels(saved) else []


def _extends_labels(saved: dict[str, Any] | None) -> bool:
    return saved is not None and TASKS[saved["config"]["task"]["name"]].extends_labels


def weights_from(source: str | None, spec: DataSpec, params: Any):
    """Loads weights from a run or a file into params, as far as they match.

    Parameters match by path and shape. If classes differ, the output layer is copied
    column by column for classes of the same name. A file with names of PyTorch or Keras
    must match completely, except that the output layer may be missing.

    Args:
      source: run folder; a .pt, .pth, .safetensors or .weights.h5 file; the name of
        installed weights; or None.
      spec: of the data.
      params: initial values.

    Returns:
      `(params, lines about loaded parameters)`.

    Raises:
      UsageError: an unreadable file, names and shapes that do not match, or no match
        except for the output layer.
    """
    if source is None:
        return params, []
    path = located(source)
    if path.suffix in READERS or path.is_file():
        classes, donor = _of_file(path, params)
    else:
        theirs, donor = load_run(path)
        classes, donor = theirs.spec.classes, training.flatten_params(donor)
    columns, same = None, 0
    output = "output" if "output/kernel" in training.flatten_params(params) else "head"
    first = int(output == "output")  # text recognition: label 0 is the blank
    if classes is not None and classes != spec.classes:
        same = len(set(classes) & set(spec.classes))
        columns = {number: number for number in range(first)} | {
            first + spec.classes.index(name): first + number
            for number, name in enumerate(classes)
            if name in spec.classes
        }
    params, found = training.warm_start(params, donor, output=output, columns=columns)
    if all(name.startswith(f"{output}/") for name in found.loaded):
        raise UsageError(
            f"init_from={source}: no parameter ({_few(found.skipped)}) matches one of "
            f"this network ({_few(found.new)}) by name and shape; {_wanted(path)}"
        )
    lines = [
        f"{source}: loaded {len(found.loaded)} of "
        f"{sum(map(len, found[:2] + found[3:]))} parameters"
    ]
    for words, paths in (
        (f"in part, for {same} classes of the same name", found.resized),
        ("not in the file", found.new),
        ("not used", found.skipped),
    ):
        if paths:
            lines.append(f"  {words}: {', '.join(paths)}")
    return params, lines


def _of_file(path: Path, params: Any) -> tuple[list[str] | None, dict[str, Any]]:
    """`(classes, arrays by parameter path)` of a file; classes are None if unknown."""
    caller = f"init_from={path}"
    if path.suffix not in READERS:
        raise UsageError(
            f"{caller}: give a run folder, or a file with the suffix "
            f"{', '.join(READERS)}"
        )
    try:
        arrays = READERS[path.suffix](path)
        if path.suffix == ".h5":
            theirs = interop.from_keras_classifier(arrays, caller=caller)
        elif path.suffix != ".safetensors" or _is_pytorchs(arrays):
            theirs = interop.from_pytorch_classifier(arrays, caller=caller)
        else:
            return _classes(path), arrays
        theirs = training.flatten_params(theirs)
        wanted = {
            name: leaf.shape
            for name, leaf in training.flatten_params(params).items()
            if "head/kernel" in theirs or not name.startswith("head/")
        }
        check(caller, theirs, wanted)
    except (ValueError, NotImplementedError) as error:
        raise UsageError(str(error)) from error
    return None, theirs


def _is_pytorchs(arrays: dict[str, Any]) -> bool:
    return any("weight_hh" in name for name in arrays)


def _wanted(path: Path) -> str:
    """Which options of this network must equal those of the source."""
    try:
        saved = saved_run(path)
    except UsageError:  # weights alone
        saved = None
    if not _extends_labels(saved):
        return "model.features, model.cell and model.encoder must be as in the source"
    model, normalize = saved["config"]["model"], saved["config"]["data"]["normalize"]
    pad = f" --model.pad={model['pad']}" if model.get("pad") else ""
    return (
        f"use its network, --model={model['name']} --model.spec='{model['spec']}'"
        f"{pad} --data.normalize={normalize}"
    )


def _classes(path: Path) -> list[str] | None:
    if kraken.is_krakens(path):
        return list(kraken.describe_kraken(path)[1])
    words = interop.read_safetensors_metadata(path).get("classes")
    try:
        classes = json.loads(words) if words else None
    except (ValueError, RecursionError):
        classes = None
    texts = isinstance(classes, list) and all(isinstance(c, str) for c in classes)
    return classes if texts else None


def _few(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:3]) + ", …" * (len(paths) > 3)
