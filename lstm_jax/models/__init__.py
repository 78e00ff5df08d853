"""Models in Flax, and the orders in which an image becomes a sequence."""

from lstm_jax.models.classifier import SequenceClassifier
from lstm_jax.models.crnn import CRNN, crnn
from lstm_jax.models.detectors import BoxEmitter, DenseDetector
from lstm_jax.models.encoders import FrameEncoder
from lstm_jax.models.forecasters import EncoderForecaster, FrameForecaster
from lstm_jax.models.readers import Reader
from lstm_jax.models.recurrent import NNXRecurrent, Recurrent
from lstm_jax.models.resnet import ResNet, load_resnet, resnet_params
from lstm_jax.models.segmenters import ReNet, Segmenter
from lstm_jax.models.streaming import Stream, stream

__all__ = [
    "CRNN",
    "BoxEmitter",
    "DenseDetector",
    "EncoderForecaster",
    "FrameEncoder",
    "FrameForecaster",
    "NNXRecurrent",
    "ReNet",
    "Reader",
    "Recurrent",
    "ResNet",
    "Segmenter",
    "SequenceClassifier",
    "Stream",
    "crnn",
    "load_resnet",
    "resnet_params",
    "stream",
]
