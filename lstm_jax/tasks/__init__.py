"""What a network is trained for: a loss, its metrics, its report and its pictures."""

from lstm_jax.tasks.calibration import (
    Reliability,
    brier,
    reliability,
    reliability_figure,
)
from lstm_jax.tasks.classification import classification
from lstm_jax.tasks.comparison import McNemar, mcnemar, paired_difference
from lstm_jax.tasks.ctc import infeasible
from lstm_jax.tasks.detection import SURE, detection
from lstm_jax.tasks.drawing import drawn, gif, mask_png, png, resized, sheet
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
from lstm_jax.tasks.ngram import Ngram, ngram
from lstm_jax.tasks.plots import curves, overlay
from lstm_jax.tasks.plots_text import lines_figure
from lstm_jax.tasks.precision import average_precision
from lstm_jax.tasks.recognition import recognition, text_of
from lstm_jax.tasks.regression import regression
from lstm_jax.tasks.segmentation import segmentation
from lstm_jax.tasks.task import Task

__all__ = [
    "RESAMPLES",
    "SURE",
    "McNemar",
    "Ngram",
    "Reliability",
    "Task",
    "average_precision",
    "average_precisions",
    "bootstrap",
    "brier",
    "classification",
    "curves",
    "detection",
    "drawn",
    "example_losses",
    "forecasting",
    "gif",
    "gif_bytes",
    "infeasible",
    "lines_figure",
    "mask_png",
    "mcnemar",
    "middle_frames",
    "multilabel",
    "ngram",
    "one_against_rest",
    "overlay",
    "paired_difference",
    "picture_sheet",
    "png",
    "precision_recall_figure",
    "recognition",
    "regression",
    "resized",
    "segmentation",
    "sheet",
    "reliability",
    "reliability_figure",
    "strip",
    "text_of",
]
