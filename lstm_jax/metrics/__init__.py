"""Metrics of predictions, their confidence intervals and comparisons."""

from lstm_jax.metrics.average_precision import average_precision
from lstm_jax.metrics.bootstrap import RESAMPLES, bootstrap
from lstm_jax.metrics.boxes import SCORE_THRESHOLD
from lstm_jax.metrics.calibration import Reliability, brier, reliability
from lstm_jax.metrics.ctc import infeasible
from lstm_jax.metrics.error_analysis import average_precisions, middle_frames
from lstm_jax.metrics.mcnemar import McNemar, mcnemar, paired_difference
