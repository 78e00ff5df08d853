"""Models in Flax, and the orders that turn an image into a sequence."""

from typing import TYPE_CHECKING, Any

from lstm_jax.models.classifier import SequenceClassifier
from lstm_jax.models.crnn import CRNN, crnn
from lstm_jax.models.detectors import DenseDetector, RecurrentDetector
from lstm_jax.models.encoders import FrameEncoder
from lstm_jax.models.forecasters import EncoderForecaster, FrameForecaster
from lstm_jax.models.kraken import KrakenRecognizer, load_kraken
from lstm_jax.models.recurrent import Recurrent
from lstm_jax.models.resnet import ResNet, load_resnet, resnet_params
from lstm_jax.models.segmenters import ReNet, Segmenter
from lstm_jax.models.sequencer import BiLSTM2D, Sequencer
from lstm_jax.models.streaming import Stream, stream
from lstm_jax.models.vgsl_net import VGSLNet

if TYPE_CHECKING:
    from lstm_jax.models.recurrent_nnx import NNXRecurrent


def __getattr__(name: str) -> Any:
    if name == "NNXRecurrent":
        from lstm_jax.models import recurrent_nnx  # NNX takes a while to import

        return recurrent_nnx.NNXRecurrent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
