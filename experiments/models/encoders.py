"""Networks before the recurrent layers, and their pretrained weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

from experiments.choices import Choice
from experiments.models.kind import ModelKind


class EncoderOptions(Choice):
    """A network applied to images, or to each frame of a clip, before the LSTMs."""

    depth: ClassVar[int | None] = None
    weights: ClassVar[str | None] = None

    def module(self, dtype):
        """A Flax module, or None."""
        return None


@dataclass(frozen=True)
class NoEncoder(EncoderOptions):
    """No encoder."""

    name = "none"


@dataclass(frozen=True)
class CNN(EncoderOptions):
    """A small CNN."""

    name = "cnn"

    def module(self, dtype):
        from lstm_jax.models import FrameEncoder

        return FrameEncoder()


@dataclass(frozen=True)
class _ResNet(EncoderOptions):
    weights: str | None = None
    """Pretrained weights: a .safetensors file with torchvision's or timm's names."""

    def module(self, dtype):
        from lstm_jax.models import ResNet

        return ResNet(self.depth, dtype=dtype)


@dataclass(frozen=True)
class ResNet18(_ResNet):
    """A ResNet with ImageNet's pixel normalisation."""

    name, depth = "resnet18", 18


@dataclass(frozen=True)
class ResNet34(_ResNet):
    """A ResNet with ImageNet's pixel normalisation."""

    name, depth = "resnet34", 34


@dataclass(frozen=True)
class ResNet50(_ResNet):
    """A ResNet with ImageNet's pixel normalisation."""

    name, depth = "resnet50", 50


class WithEncoder(ModelKind):
    """A network whose options have an `encoder`."""

    def pretrained(self, config) -> dict[str, Any]:
        from lstm_jax.models import load_resnet

        encoder = config.model.encoder
        if not encoder.weights:
            return {}
        return {"encoder": load_resnet(encoder.weights, encoder.depth)}

    def pixel_statistics(self, config):
        from lstm_jax.models import resnet

        if config.model.encoder.depth is None:
            return None
        return resnet.PIXEL_MEAN, resnet.PIXEL_STD
