"""`--model=sequencer`: LSTMs along rows and columns of a map of convolutions."""

from dataclasses import dataclass

from experiments.choices import Count, Fraction
from experiments.errors import UsageError
from experiments.models.cells import LayersOptions
from experiments.models.encoders import EncoderOptions, NoEncoder, WithEncoder
from experiments.models.kind import Network, shared

FINEST = 32  # about as many patches a side, unless --model.patch is given


@dataclass(frozen=True)
class Options(LayersOptions):
    """Convolutions, then LSTMs along rows and columns; for images."""

    name = "sequencer"
    encoder: EncoderOptions = NoEncoder()
    """Replaces the convolutions by a ResNet; it overrides data.normalize."""
    features: Count = 48
    """Hidden width of the LSTM in each of four directions."""
    layers: Count = 1
    """Number of blocks, each of LSTMs in four directions."""
    width: Count = 96
    """Channels of the coarsest feature map, the last of three."""
    patch: Count | None = None
    """Patch size in pixels of the finest feature map; default: side / 32."""
    dropout: Fraction = 0.0
    """Dropout rate before the output layer."""


class Sequencer(WithEncoder):
    options = Options

    def build(self, config, spec) -> Network:
        from lstm_jax import models

        options = config.model
        if len(spec.image_shape) != 3 or spec.per_step:
            raise UsageError(
                f"--model=sequencer needs images, but examples are {spec.image_shape}; "
                "use --model=classifier"
            )
        if options.cell.convolves:
            raise UsageError(
                f"--model.cell={options.cell.name} is for clips; use --model.cell=lstm"
            )
        arguments, encoder = shared(config), options.encoder
        network = encoder.module(arguments["dtype"])
        if network is not None:
            if encoder.depth is None:
                raise UsageError(
                    f"--model.encoder={encoder.name} outputs a vector, but "
                    "--model=sequencer needs a map: use a ResNet, or none"
                )
            network = network.clone(pool=False)
        side = max(spec.image_shape[:2])
        width, patch = options.width, options.patch or max(round(side / FINEST), 1)
        module = models.Sequencer(
            outputs=spec.outputs,
            widths=tuple(max(width >> k, 1) for k in (2, 1, 0)),
            cells=options.cells(-(-side // (4 * patch))),
            patch=patch,
            encoder=network,
            dropout=options.dropout,
            **arguments,
        )
        return Network.of(module, spec)


KIND = Sequencer()
