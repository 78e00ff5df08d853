"""Beginning with the weights of another run: `--init-from=runs/fashion-rows`."""

from pathlib import Path
from typing import Any

from experiments import build
from experiments.config import UsageError
from experiments.predict import restored
from lstm_jax import training


def weights_from(run: str | None, about: build.Facts, params: Any):
    """Params filled with what fits of another run's, and lines that say what did.

    By path and shape; of an output layer with other classes, or in another order, the
    columns of those that both runs know by the same name.

    Raises:
      UsageError: nothing fits but, perhaps, the output layer.
    """
    if run is None:
        return params, []
    _, theirs, _, donor = restored(Path(run).expanduser())
    columns = None
    if theirs.classes != about.classes:
        columns = {
            about.classes.index(name): number
            for number, name in enumerate(theirs.classes)
            if name in about.classes
        }
    params, found = training.warm_start(params, training.named(donor), columns=columns)
    if all(path.startswith("head/") for path in found.loaded):
        raise UsageError(
            f"init_from={run}: none of its parameters ({_few(found.skipped)}) fits one "
            f"here by name and shape ({_few(found.new)}); model.features, model.cell "
            "and model.encoder must be as they are there"
        )
    lines = [
        f"{run}: {len(found.loaded)} of {sum(map(len, found[:2] + found[3:]))} "
        "parameters begin as they are there"
    ]
    for words, paths in (
        (f"in part, for {len(columns or ())} classes of the same name", found.resized),
        ("of its own", found.new),
        ("left out", found.skipped),
    ):
        if paths:
            lines.append(f"  {words}: {', '.join(paths)}")
    return params, lines


def _few(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:3]) + ", …" * (len(paths) > 3)
