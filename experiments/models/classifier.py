"""`--model=classifier`: recurrent layers over an image or clip, and an output layer."""

from dataclasses import dataclass
from typing import Literal

from experiments.choices import Count, Fraction
from experiments.errors import UsageError
from experiments.models.cells import LayersOptions
from experiments.models.encoders import EncoderOptions, NoEncoder, WithEncoder
from experiments.models.kind import Network, shared


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


class Classifier(WithEncoder):
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
