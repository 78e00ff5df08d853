"""What a network is trained for: a loss, its metrics, its report and its pictures."""

from lstm_jax.tasks.classification import classification
from lstm_jax.tasks.film import gif_bytes
from lstm_jax.tasks.forecasting import forecasting
from lstm_jax.tasks.multilabel import multilabel
from lstm_jax.tasks.plots import curves
from lstm_jax.tasks.regression import regression
from lstm_jax.tasks.task import Task

__all__ = [
    "Task",
    "classification",
    "curves",
    "forecasting",
    "gif_bytes",
    "multilabel",
    "regression",
]
