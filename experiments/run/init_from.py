"""Beginning with other weights: `--init-from=runs/fashion-rows`, or `=model.pt`."""

import json
from pathlib import Path
from typing import Any

from experiments.config import read_run
from experiments.errors import UsageError
from experiments.options import Config
from experiments.run.folder import underway
from experiments.run.load_run import load_run, located, read_weights, saved_run
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax import interop, training
from lstm_jax.interop.entries import check
from lstm_jax.models import kraken

# Of files of weights, by what reads them.
READERS = {
    ".pt": interop.read_torch,
    ".pth": interop.read_torch,
    ".safetensors": read_weights,
    ".h5": interop.read_keras,
}


def known_labels(config: Config, directory: Path) -> list[str]:
    """Names that have a label before any data is read, of a run that extends labels.

    Those of the run, where it has begun; else of the run that it begins from.
    """
    if not TASKS[config.task.name].extends_labels:
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
    """Params filled with what fits of a run's or a file's, and lines that say what did.

    By path and shape; of an output layer with other classes, or in another order, the
    columns of those that both know by the same name. A file by the names of PyTorch or
    Keras has to fit as a whole, save that it may have no output layer.

    Args:
      source: folder of a run; a .pt, .pth, .safetensors or .weights.h5 file; the name
        of weights that are installed; None.
      spec: of the data.
      params: freshly initialised.

    Raises:
      UsageError: a file that cannot be read, or names and shapes that do not fit;
        nothing fits but, perhaps, the output layer.
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
    first = int(output == "output")  # after the blank, where text is read
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
            f"init_from={source}: none of its parameters ({_few(found.skipped)}) fits "
            f"one here by name and shape ({_few(found.new)}); {_wanted(path)}"
        )
    lines = [
        f"{source}: {len(found.loaded)} of {sum(map(len, found[:2] + found[3:]))} "
        "parameters begin as they are there"
    ]
    for words, paths in (
        (f"in part, for {same} classes of the same name", found.resized),
        ("of its own", found.new),
        ("left out", found.skipped),
    ):
        if paths:
            lines.append(f"  {words}: {', '.join(paths)}")
    return params, lines


def _of_file(path: Path, params: Any) -> tuple[list[str] | None, dict[str, Any]]:
    """`(classes, arrays by our paths)` of a file; classes None where it tells none."""
    caller = f"init_from={path}"
    if path.suffix not in READERS:
        raise UsageError(
            f"{caller}: weights are read from {', '.join(READERS)} files, or from the "
            "folder of a run"
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
    """What has to be as it is in a run, or in a file."""
    try:
        saved = saved_run(path)
    except UsageError:  # weights alone
        saved = None
    if not _extends_labels(saved):
        return "model.features, model.cell and model.encoder must be as they are there"
    model, normalize = saved["config"]["model"], saved["config"]["data"]["normalize"]
    pad = f" --model.pad={model['pad']}" if model.get("pad") else ""
    return (
        f"its network is --model={model['name']} --model.spec='{model['spec']}'"
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
