"""Models in Flax, and the orders in which an image becomes a sequence."""

from lstm_jax.models.classifier import SequenceClassifier
from lstm_jax.models.recurrent import NNXRecurrent, Recurrent

__all__ = ["NNXRecurrent", "Recurrent", "SequenceClassifier"]
