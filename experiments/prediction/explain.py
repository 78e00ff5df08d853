"""Figures of what a network computes step by step, for `predict --explain`."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UsageError
from experiments.prediction.predictor import Predictor
from experiments.run import record
from lstm_jax import data, inspect


def explain(predictor: Predictor, folder: Path, found: list[dict[str, Any]]) -> None:
    """Draws the network's steps for each image or clip: NAME.png and NAME.gif.

    Args:
      predictor: of the run.
      folder: where the files are written.
      found: predictions, as `predict` returns them.

    Raises:
      UsageError: the network is not a classifier over time steps.
    """
    experiment, spec = predictor.experiment, predictor.spec
    if not experiment.model_kind.explains:
        raise UsageError(
            f"--explain: --model={experiment.model_kind.name} has no single prediction "
            "after its steps; leave the flag out, predictions are drawn anyway"
        )
    module, params = experiment.network.module, predictor.params
    for row in found:
        if "error" in row:
            continue
        path, length = Path(row["path"]), None
        if spec.is_image:
            shape = tuple(spec.image_shape)
            image = data.read_image(path, shape, spec.depth, spec.fit)
        else:
            image, length = predictor.read_clip(path)
        pixels = spec.normalize(image)
        predict = experiment.task.predict
        options = dict(
            classes=spec.classes or None,
            shown=image if image.dtype == np.uint8 else None,
            traced=inspect.trace(
                module, params, pixels, length=length, predict=predict
            ),
        )
        figure = inspect.trace_figure(module, params, pixels, **options)
        gif = inspect.trace_gif(module, params, pixels, **options)
        place = folder / path.stem
        record.save_figure(f"{place}.png", figure)
        record.write_bytes(f"{place}.gif", gif)
        print(f"steps for {path.name}: {place}.png, {place}.gif", flush=True)
