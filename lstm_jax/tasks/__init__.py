"""Tasks: loss, metrics, report and figures for the outputs of a network."""

from lstm_jax.tasks.classification import classification
from lstm_jax.tasks.detection import detection
from lstm_jax.tasks.forecasting import forecasting
from lstm_jax.tasks.multilabel import multilabel
from lstm_jax.tasks.regression import regression
from lstm_jax.tasks.segmentation import segmentation
from lstm_jax.tasks.task import Task
from lstm_jax.tasks.text_recognition import text_of, text_recognition
