"""`--model=classifier`: recurrent layers over an image or clip, and an output layer."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from experiments.choices import Choice, Count, Fraction
from experiments.errors import UsageError
from experiments.models.cells import LayersOptions
from experiments.models.kind import ModelKind, Network, shared


class EncoderOptions(Choice):
    """An encoder applied to each frame of a clip before the recurrent layers."""

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


@dataclass(frozen=True)
class Options(LayersOptions):
    """Recurrent layers over an image or a clip, and an output layer."""

    name = "classifier"
    encoder: EncoderOptions = NoEncoder()
    """Frame encoder of clips; a ResNet overrides data.normalize."""
    order: Literal["rows", "columns", "both", "pixels", "permuted", "patches"] = "rows"
    """How an image becomes a sequence."""
    patch: Count = 4
    """Patch size in pixels, for order=patches."""
    bidirectional: bool = False
    """Run each layer in both directions and concatenate the outputs."""
    pooling: Literal["last", "mean", "max"] = "last"
    """Pooling over time before the output layer."""
    dropout: Fraction = 0.0
    """Dropout rate between layers and before the output layer."""
    tbptt_steps: Count | None = None
    """Steps per chunk of truncated backpropagation through time."""


class Classifier(ModelKind):
    options = Options
    explains = True
    reads_lengths = True

    def build(self, config, spec) -> Network:
        import jax
        import jax.numpy as jnp

        from lstm_jax.models import SequenceClassifier

        options, shape = config.model, tuple(spec.image_shape)
        order = order_of(options, shape)
        blank = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        steps = jax.eval_shape(order.to_sequence, blank).shape[1]
        arguments = shared(config)
        module = SequenceClassifier(
            order=order,
            cells=options.cells(steps),
            outputs=spec.outputs,
            bidirectional=options.bidirectional,
            pooling=options.pooling,
            per_step=spec.per_step,
            encoder=options.encoder.module(arguments["dtype"]),
            dropout=options.dropout,
            tbptt_steps=options.tbptt_steps,
            **arguments,
        )

        def call(params, inputs, batch, keys):
            options = dict(lengths=batch.get("lengths"), keys=keys)
            return module.apply({"params": params}, inputs, **options), None

        return Network(module, shape, call)

    def convolves(self, config) -> bool:
        return config.model.cell.convolves

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


def order_of(options: Options, shape: tuple[int, ...]):
    """The order in which an image or a clip becomes a sequence.

    Args:
      options: of the classifier.
      shape: of one example.

    Raises:
      UsageError: the cell, the encoder or the order does not fit the shape.
    """
    from lstm_jax.models import sequences

    cell, encoder = options.cell, options.encoder
    encodes = not isinstance(encoder, NoEncoder)
    spatial = cell.convolves or encodes
    if len(shape) != 3:
        if spatial and len(shape) == 2:
            raise UsageError(
                f"the steps are vectors of {shape[-1]} features, not images; use "
                "--model.cell=lstm and --model.encoder=none"
            )
        if cell.convolves and encodes:
            raise UsageError(
                f"--model.encoder={encoder.name} outputs a vector for each frame, but "
                f"--model.cell={cell.name} needs images; use --model.cell=lstm"
            )
        return sequences.frames() if spatial else sequences.flat_frames()
    if spatial:
        raise UsageError(
            f"--model.cell={cell.name} and --model.encoder={encoder.name} need "
            "clips, but these are images; use --model.cell=lstm, --model.encoder=none"
        )
    h, w, _ = shape
    if options.order == "both" and h != w:
        raise UsageError(
            f"images are {h}x{w}, but --model.order=both needs square images: add "
            "--data.size=32, or --model.order=rows"
        )
    if options.order == "patches":
        if h % options.patch or w % options.patch:
            raise UsageError(
                f"images are {h}x{w}, not multiples of --model.patch={options.patch}; "
                "choose another, or resize with --data.size"
            )
        return sequences.patches(options.patch)
    named = {"both": sequences.rows_and_columns}
    return named.get(options.order, getattr(sequences, options.order, None))()


KIND = Classifier()
