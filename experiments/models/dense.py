"""Networks for segmentation and detection."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass

from experiments.choices import Count
from experiments.errors import UsageError
from experiments.models.kind import ModelKind, Network, shared
from experiments.options import RecurrentOptions


@dataclass(frozen=True)
class DenseOptions(RecurrentOptions):
    """Options of all networks for segmentation and detection."""

    features: Count = 128
    """Channels of the coarsest feature map and of the recurrent layers."""
    feedforward: bool = False
    """Replace recurrent layers by convolutions with as many parameters."""


@dataclass(frozen=True)
class ReNetOptions(DenseOptions):
    """A U-Net with a ReNet bottleneck; for clips, with a ConvLSTM over frames."""

    name = "renet"
    layers: Count = 1
    """Number of ReNet layers."""
    kernel_size: Count = 3
    """Kernel size of the ConvLSTM."""


@dataclass(frozen=True)
class UNetOptions(DenseOptions):
    """A U-Net with ConvLSTMs in its skips; for clips, with another over frames."""

    name = "unet"
    kernel_size: Count = 3
    """Kernel size of the ConvLSTMs."""


@dataclass(frozen=True)
class RecurrentDetectorOptions(DenseOptions):
    """An LSTM that outputs one box per step until it stops."""

    name = "recurrent_detector"
    max_detections: Count = 8
    """Maximum number of steps: the most boxes of an image, plus one."""


@dataclass(frozen=True)
class BottleneckOptions(DenseOptions):
    """A bottleneck ConvLSTM over frames, with a box per location."""

    name = "bottleneck"


class DenseModel(ModelKind):
    """A network for segmentation or detection, or its feedforward baseline.

    With `--model.feedforward`, convolutions replace the recurrent layers; their width
    is chosen so that the number of parameters is as large as possible, but not larger.
    """

    stages = 3  # feature maps, each of half the size of the previous one
    feedforward_stages = 3

    def maps(self, config) -> int:
        """Number of feature maps, each of half the size of the previous one."""
        return self.feedforward_stages if config.model.feedforward else self.stages

    def halvings(self, config) -> int:
        """Number of times that the network halves the size of an image."""
        return self.maps(config) - 1

    def check_data(self, config, dataset) -> None:
        """Raises UsageError if the network does not support the data."""

    @abstractmethod
    def module(self, config, spec, width: int):
        """The Flax module; `width` > 0: convolutions replace the recurrent layers."""

    def build(self, config, spec) -> Network:
        return Network.of(self._sized(config, spec), spec)

    def _sized(self, config, spec):
        if not config.model.feedforward:
            return self.module(config, spec, 0)
        recurrent = dataclasses.replace(
            config, model=dataclasses.replace(config.model, feedforward=False)
        )
        wanted = _size(self.module(recurrent, spec, 0), spec)
        width = 4
        while _size(self.module(config, spec, width + 1), spec) <= wanted:
            width += 1
        return self.module(config, spec, width)


def _size(module, spec) -> int:
    import jax
    import jax.numpy as jnp

    blank = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), blank)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _widths(features: int) -> tuple[int, ...]:
    return tuple(max(features >> (2 - k), features // 4) for k in range(3))


class Segmenter(DenseModel):
    """A U-Net; for clips with a ConvLSTM over frames."""

    @abstractmethod
    def recurrent_parts(self, config, widths: tuple[int, ...]) -> dict:
        """Arguments of `models.Segmenter` for recurrence within an image."""

    def module(self, config, spec, width: int):
        from lstm_jax import conv_lstm, models

        options = config.model
        widths = _widths(options.features)[1:]  # the finest map has patches of 2x2
        recurrent_cell = None
        if len(spec.image_shape) == 4 and not width:
            recurrent_cell = conv_lstm(options.features, (options.kernel_size,) * 2)
        parts = {"bottom": (width,) * 2} if width else None
        return models.Segmenter(
            outputs=len(spec.classes),
            widths=widths,
            patch=2,
            recurrent_cell=recurrent_cell,
            **(parts or self.recurrent_parts(config, widths)),
            **shared(config),
        )


class ReNetSegmenter(Segmenter):
    """A U-Net with a ReNet at its bottom."""

    options = ReNetOptions

    def recurrent_parts(self, config, widths):
        from lstm_jax import lstm

        options = config.model
        return {"renet": (lstm(options.features // 2),) * options.layers}


class UNetSegmenter(Segmenter):
    """A U-Net with ConvLSTMs in its skips."""

    options = UNetOptions

    def recurrent_parts(self, config, widths):
        from lstm_jax import conv_lstm

        window = (config.model.kernel_size,) * 2
        return {"skips": tuple(conv_lstm(w // 2, window) for w in widths[:-1])}


class Detector(DenseModel):
    """A detector with a box per location of a feature map."""

    feedforward_stages = 4

    def sequential(self, config) -> bool:
        """Whether boxes are output step by step until a stop."""
        return False

    def module(self, config, spec, width: int):
        from lstm_jax import bottleneck_conv_lstm, models

        features = config.model.features
        return models.DenseDetector(
            outputs=len(spec.classes),
            widths=(*_widths(features), features)[: self.maps(config)],
            recurrent_cell=None if width else bottleneck_conv_lstm(features),
            hidden=(width,) * 2 if width else (),
            **shared(config),
        )


class BottleneckDetector(Detector):
    """A bottleneck ConvLSTM over frames, with a box per location."""

    options = BottleneckOptions
    stages = 4


class RecurrentDetector(Detector):
    """An LSTM that outputs one box per step until it stops."""

    options = RecurrentDetectorOptions

    def sequential(self, config) -> bool:
        return not config.model.feedforward

    def module(self, config, spec, width: int):
        from lstm_jax import lstm, models

        if width:
            return super().module(config, spec, width)
        features = config.model.features
        return models.RecurrentDetector(
            cell=lstm(features),
            outputs=len(spec.classes),
            steps=config.model.max_detections,
            widths=_widths(features),
            **shared(config),
        )

    def check_data(self, config, dataset) -> None:
        most = max(s.targets.shape[-2] for s in dataset.splits.values())
        if config.model.max_detections <= most:
            raise UsageError(
                f"images of {dataset.name} have up to {most} boxes; use "
                f"--model.max-detections={most + 1}, one more for the stop"
            )
        if len(dataset.image_shape) == 4:
            raise UsageError(
                f"{dataset.name} has clips, but --model={self.name} is for images; use "
                "the preset detect-moving-digits"
            )


KINDS = (ReNetSegmenter(), UNetSegmenter(), RecurrentDetector(), BottleneckDetector())
