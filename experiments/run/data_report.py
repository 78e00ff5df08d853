"""`train --check-data`: a report on the data in `--data`, without training."""

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.errors import UsageError
from experiments.experiment import Experiment
from lstm_jax import data

_SHOWN = 10  # classes or sizes that are listed


def report_data(config: Config) -> int:
    """Prints a report on the data of a configuration.

    Returns:
      The exit code: 0, or 1 if the data cannot be trained on.
    """
    experiment = Experiment(config)
    options, source = config.data, config.data.source
    try:
        layout = data.layout_of(
            source,
            target_type=experiment.kind.target_type,
            frames=options.frames,
            columns=options.columns,
            encoding=options.encoding,
        )
        what = layout.name if layout else "a data set by name"
        print(f"{source}: {what}, for {config.task.name}", flush=True)
        for ignored in layout.ignored if layout else ():
            _print("ignored", ignored)
        shown = layout.ignored if layout else ()
        for head, text in _lines(experiment, layout is not None):
            if text not in shown:
                _print(head, text)
        _ = experiment.steps  # raises if a batch is larger than the training split
    except (data.DataError, UsageError) as error:
        print(f"problem: {error}")
        return 1
    print(f"this can be trained on: train with --data={shlex.quote(source)}")
    return 0


def _print(head: str, text: str) -> None:
    print(f"  {head:<12}{text}", flush=True)


def _lines(experiment: Experiment, own: bool) -> Iterator[tuple[str, str]]:
    """(heading, text) of each line of the report on the loaded data."""
    dataset, spec = experiment.dataset, experiment.spec
    for name, split in dataset.splits.items():
        text = f"{len(split.inputs):,}"
        if counts := _by_class(dataset, split):
            text += f": {counts}"
        yield name, text
    classes = dataset.classes
    if classes:
        shown = ", ".join(classes[:_SHOWN])
        more = f" and {len(classes) - _SHOWN} more" if classes[_SHOWN:] else ""
        yield "classes", f"{len(classes)}: {shown}{more}"
    inputs = dataset.splits["train"].inputs
    shape = "×".join(map(str, spec.image_shape))
    yield "input", f"{shape}, {inputs.dtype}, {inputs.min():g} to {inputs.max():g}"
    if own and (sizes := _sizes(dataset, Path(experiment.config.data.source))):
        yield "file sizes", sizes
    for line in experiment.duplicates.lines() or ["none"]:
        yield "duplicates", line
    for note in dataset.notes:
        yield "note", note


def _by_class(dataset: data.Dataset, split: data.Split) -> str:
    """Numbers of examples by class in a split; "" if the targets are not classes."""
    if dataset.target_type != "labels" or split.targets.ndim != 1:
        return ""
    if not dataset.classes:
        return ""
    known = split.targets[split.targets >= 0]
    counts = np.bincount(known, minlength=len(dataset.classes)).tolist()
    pairs = sorted(zip(counts, dataset.classes, strict=True), reverse=True)
    text = ", ".join(f"{name} {count:,}" for count, name in pairs[:_SHOWN])
    return text + (f" and {len(pairs) - _SHOWN} more" if pairs[_SHOWN:] else "")


def _sizes(dataset: data.Dataset, source: Path) -> str:
    """Sizes of the image files, height × width in pixels; "" if there are none."""
    home = source.expanduser()
    home = home if home.is_dir() else home.parent
    found: Counter[Any] = Counter()
    names = [
        Path(n.replace("\\", "/")) for ns in (dataset.names or {}).values() for n in ns
    ]
    files = [home / name for name in names]
    if not any(map(Path.is_file, files)):  # names in a file with boxes
        inside = {path.name: path for path in data.find_images(home)}
        files = [inside.get(name.name, home / name) for name in names]
    found.update(map(data.image_size, files))
    del found[None]
    text = ", ".join(f"{h}×{w} ({n:,})" for (h, w), n in found.most_common(_SHOWN))
    more = len(found) - _SHOWN
    return text + (f" and {more} other sizes" if more > 0 else "")
