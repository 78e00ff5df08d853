"""What a network is trained for: a loss, its metrics, its report and its pictures."""

from lstm_jax.tasks.classification import classification
from lstm_jax.tasks.plots import curves
from lstm_jax.tasks.regression import regression
from lstm_jax.tasks.task import Task

__all__ = ["Task", "classification", "curves", "regression"]
