"""The loggers of --tensorboard, --wandb and --mlflow."""

from pathlib import Path
from typing import Any

from experiments.options import Config
from experiments.run.loggers.logger import Logger
from experiments.run.loggers.mlflow import MLflow
from experiments.run.loggers.tensorboard import TensorBoard
from experiments.run.loggers.wandb import WandB

LOGGERS = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}  # by flag


def make_loggers(
    config: Config, directory: Path, start: int, rows: list[dict[str, Any]]
) -> list[Logger]:
    """The loggers that the flags of a run select.

    Args:
      config: of the run.
      directory: of the run.
      start: the step from which it is resumed, or 0.
      rows: of metrics up to `start`, for loggers that are new in a resumed run.
    """
    loggers = []
    for flag, kind in LOGGERS.items():
        if getattr(config, flag):
            loggers.append(kind(config, directory, start))
            for row in rows if loggers[-1].is_new else ():
                loggers[-1].on_log(row)
    return loggers
