"""What a network is trained for: a loss, its metrics, its report and its pictures."""

from lstm_jax.tasks.calibration import (
    Reliability,
    brier,
    reliability,
    reliability_figure,
)
from lstm_jax.tasks.classification import classification
from lstm_jax.tasks.comparison import McNemar, mcnemar, paired_difference
from lstm_jax.tasks.film import gif_bytes, strip
from lstm_jax.tasks.forecasting import forecasting
from lstm_jax.tasks.intervals import RESAMPLES, bootstrap, example_losses
from lstm_jax.tasks.judging import (
    average_precisions,
    middle_frames,
    one_against_rest,
    picture_sheet,
    precision_recall_figure,
)
from lstm_jax.tasks.multilabel import multilabel
from lstm_jax.tasks.plots import curves, overlay
from lstm_jax.tasks.regression import regression
from lstm_jax.tasks.task import Task

__all__ = [
    "RESAMPLES",
    "McNemar",
    "Reliability",
    "Task",
    "average_precisions",
    "bootstrap",
    "brier",
    "classification",
    "curves",
    "example_losses",
    "forecasting",
    "gif_bytes",
    "mcnemar",
    "middle_frames",
    "multilabel",
    "one_against_rest",
    "overlay",
    "paired_difference",
    "picture_sheet",
    "precision_recall_figure",
    "regression",
    "reliability",
    "reliability_figure",
    "strip",
]
