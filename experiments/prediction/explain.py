"""How a network reads pictures and clips, drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UsageError
from experiments.prediction.predictor import Predictor
from experiments.run import record
from lstm_jax import data, inspect


def explain(predictor: Predictor, folder: Path, answers: list[dict[str, Any]]) -> None:
    """Draws how each picture or clip was read: NAME.png and NAME.gif in a folder.

    Raises:
      UsageError: if the network of the run reads nothing step by step to an answer.
    """
    experiment, spec = predictor.experiment, predictor.spec
    if not experiment.model_kind.explains:
        raise UsageError(
            f"--explain: a {experiment.model_kind.name} does not read step by step "
            "to one answer; its answers are drawn without the flag"
        )
    module, params = experiment.network.module, predictor.params
    for row in answers:
        if "error" in row:
            continue
        path, length = Path(row["path"]), None
        if spec.pictures:
            image = data.read_image(path, tuple(spec.image_shape))
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
        print(f"how {path.name} is read: {place}.png, {place}.gif", flush=True)
