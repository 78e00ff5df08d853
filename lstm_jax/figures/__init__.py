"""Figures of runs and predictions: Matplotlib figures, PNG and GIF files."""

from lstm_jax.figures.curves import curves, overlay
from lstm_jax.figures.gif import encode_gif
from lstm_jax.figures.reliability import reliability_figure
from lstm_jax.figures.roc_pr import precision_recall_figure, roc_figure
from lstm_jax.figures.text import lines_figure
from lstm_jax.figures.video_plots import forecast_gif, frame_strip
from lstm_jax.figures.visualization import (
    encode_mask,
    encode_png,
    image_grid,
    image_rows,
    magnification,
    overlay_boxes,
    overlay_mask,
)
