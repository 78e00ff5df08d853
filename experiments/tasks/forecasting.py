"""Forecasting (video prediction): the frames that follow a clip."""

import collections
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.choices import Count
from experiments.errors import UsageError
from experiments.options import Clips, Geometry, TaskOptions
from experiments.tasks.kind import PerFileTask

WORST = 3  # clips that a report shows


@dataclass(frozen=True)
class Options(TaskOptions):
    """Forecasting (video prediction): the frames that follow a clip."""

    name = "forecasting"
    loss: Literal["mse", "l1", "bce", "ssim"] = "mse"
    horizon: Count = 10
    """Number of frames to predict, the last ones of each clip."""


class Forecasting(PerFileTask):
    options = Options
    models = ("encoder_forecaster", "stacked", "predrnn", "predrnn_v2")
    data = Clips
    augment = Geometry
    cross_validates = "--folds does not support forecasting"
    to_onnx = False
    writes_files = True
    columns = ("clip", "gif")
    metrics = (
        ("mse", "MSE per frame", "min"),
        ("mae", "MAE per frame", "min"),
        ("psnr", "PSNR, dB", "max"),
        ("ssim", "SSIM", "max"),
        ("csi", "CSI", "max"),
        ("pod", "POD", "max"),
        ("far", "FAR", "min"),
        ("loss", "loss", "min"),
    )
    headlines = ("mse", "ssim", "psnr")
    by_class = ("frame", ("mse", "mae", "psnr", "ssim"))

    def check_data(self, config, dataset) -> None:
        shape = dataset.image_shape
        if len(shape) != 4:
            super().check_data(config, dataset)
            raise UsageError(
                f"{dataset.name} has examples of shape {tuple(shape)}; forecasting "
                "needs clips, such as moving_digits or a folder of class/clip.mp4"
            )
        frames, h, w, _ = shape
        if frames <= config.task.horizon:
            raise UsageError(
                f"clips have {frames} frames, and --task.horizon="
                f"{config.task.horizon} leaves no input frames; lower it, or raise "
                "--data.frames"
            )
        if h % config.model.patch or w % config.model.patch:
            raise UsageError(
                f"frames are {h}x{w}, not multiples of --model.patch="
                f"{config.model.patch}; choose another, or resize with --data.size"
            )
        lengths = dataset.splits["train"].lengths
        if lengths is not None and (lengths < frames).any():
            raise UsageError(
                f"{int((lengths < frames).sum())} clips are shorter than {frames} "
                "frames; lower --data.frames, or remove them"
            )

    def measure_inputs(self, config, train) -> dict[str, Any]:
        channels = train.inputs.shape[-1]  # pixels are compared in [0, 1]
        return dict(pixel_offset=[0.0] * channels, pixel_scale=[1 / 255] * channels)

    def objective(self, config, spec):
        from lstm_jax import tasks

        return tasks.forecasting(config.task.horizon, loss=config.task.loss)

    def with_targets(self, batch):
        import jax.numpy as jnp

        return batch | {"targets": batch["inputs"].astype(jnp.float32) / 255}

    def unseen_steps(self, config) -> int:
        return config.task.horizon

    def align_targets(self, split, predictions):
        return predictions, split.inputs

    # The report of the task has all metrics of its references.
    score, rate = "mse", False

    def baselines(self, config):
        from experiments.evaluation import baselines as made

        copy = made.last_frame(config.task.horizon)
        return {"copy last frame": made.Baseline(copy, trivial=True)}

    def example_scores(self, predictions, targets):
        import numpy as np

        true = targets[:, -predictions.shape[1] :].astype(np.float32) / 255
        return np.square(predictions - true).sum((2, 3, 4)).mean(1)

    def save_outputs(self, experiment, predictions, directory: Path) -> None:
        from experiments.run import record
        from lstm_jax import figures

        clip = experiment.dataset.splits["test"].inputs[0]
        horizon = experiment.config.task.horizon
        gif = figures.forecast_gif(clip[:-horizon], clip[-horizon:], predictions[0])
        record.write_bytes(directory / "forecast.gif", gif)

    def predict_clip(self, predictor, path: Path) -> dict[str, Any]:
        import numpy as np

        shape = tuple(predictor.spec.image_shape)
        given = shape[0] - predictor.config.task.horizon
        seen = _last_frames(path, given, shape[1:])
        clip = np.zeros((1, *shape), np.uint8)
        clip[0, :given] = seen
        return self.describe(predictor.spec, seen, predictor(inputs=clip)[0], path)

    def describe(self, spec, seen, output, path: Path) -> dict[str, Any]:
        return {"seen": seen, "frames": output}

    def save(self, spec, predictions, folder: Path) -> None:
        from experiments.run import record
        from lstm_jax import figures

        for found in predictions:
            if "frames" in found:
                path = folder / f"{Path(found['path']).stem}.gif"
                gif = figures.forecast_gif(found["seen"], None, found["frames"])
                record.write_bytes(path, gif)
                found["gif"] = str(path)

    def row(self, prediction):
        return prediction["path"], prediction["gif"]

    def stream_output(self, task, output):
        return output

    def stream_line(self, spec, frame, before, now) -> str:
        import numpy as np

        if before is None:
            return "no prediction yet"
        error = np.square(np.clip(before, 0, 1) - frame / np.float32(255)).sum()
        return f"squared error of the previous prediction {error:.1f}"

    def class_rows(self, test):
        return [{"name": f"+{k}"} | row for k, row in enumerate(test["per_frame"], 1)]

    def worst(self, evaluation):
        import numpy as np

        from experiments.reporting.page import Picture
        from experiments.reporting.worst import highest_losses
        from lstm_jax import figures

        predictions, _ = evaluation.known
        inputs = evaluation.dataset.splits["test"].inputs
        clips = [
            (
                f"error {evaluation.losses[k]:.4g} per frame",
                inputs[k].astype(np.float32) / 255,
                predictions[k],
            )
            for k in highest_losses(evaluation)[:WORST]
        ]
        figure = figures.frame_strip(clips, total=len(evaluation.losses))
        return [Picture(figure, "The clips with the largest errors.", photo=True)]


def _last_frames(path: Path, count: int, shape: tuple[int, ...]):
    import numpy as np

    from lstm_jax import data

    last = collections.deque(data.stream_frames(path, shape), maxlen=count)
    if len(last) < count:
        raise data.DataError(
            f"{path}: {len(last)} frames, but the run needs {count} input frames"
        )
    return np.stack(last)


KIND = Forecasting()
