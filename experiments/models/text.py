"""Networks for text recognition: from a VGSL spec, and the CRNN."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from experiments.choices import Size
from experiments.errors import UsageError
from experiments.models.kind import ModelKind, Network, shared
from experiments.options import RecurrentOptions


@dataclass(frozen=True)
class TextOptions(RecurrentOptions):
    """Options of all networks for text recognition."""

    pad: ClassVar[int] = 0


@dataclass(frozen=True)
class CRNNOptions(TextOptions):
    """A CNN, two bidirectional LSTMs and CTC (Shi et al. 2017)."""

    name = "crnn"


@dataclass(frozen=True)
class VGSLOptions(TextOptions):
    """A network defined by a VGSL spec."""

    name = "vgsl"
    spec: str = (
        "[1,32,0,1 Cr5,5,24,4,3 Gn3 Cr3,3,48,2,1 Gn6 Cr3,3,64,2,1 Gn8 S1(1x0)1,3 "
        "Cr1,1,80 Lbx96]"
    )
    """VGSL spec as in Tesseract or kraken; the output layer is appended."""
    pad: Size = 0
    """Columns of zeros on both sides of a line; 16 for kraken's networks."""


class TextModel(ModelKind):
    """A network for lines of any width, with CTC."""

    reads_lengths = True

    @abstractmethod
    def line_spec(self, config, outputs: int):
        """The `lstm_jax.models.vgsl.Spec` of the network, with `outputs` classes."""

    @abstractmethod
    def module(self, config, outputs: int):
        """The Flax module."""

    def build(self, config, spec) -> Network:
        import jax.numpy as jnp

        from lstm_jax.models.blocks import masked

        module, margin = self.module(config, spec.outputs), config.model.pad

        def call(params, inputs, batch, keys):
            lengths = batch.get("lengths")
            if margin:
                sides = ((0, 0), (0, 0), (margin, margin), (0, 0))
                inputs = jnp.pad(masked(inputs, lengths), sides)
                lengths = None if lengths is None else lengths + 2 * margin
            options = dict(lengths=lengths, keys=keys)
            return module.apply({"params": params}, inputs, **options), None

        return Network(module, tuple(spec.image_shape), call)

    def steps(self, config, widths: Any) -> Any:
        """Number of time steps for lines of `widths` columns, an int or an array."""
        return self.line_spec(config, 2).steps(widths + 2 * config.model.pad)

    def height(self, config) -> int:
        """Height in pixels to which lines are resized.

        Raises:
          UsageError: data.size differs from the height of the spec.
        """
        spec = self.line_spec(config, 2)
        wanted = spec.height if spec.height > 1 else spec.channels * (spec.height == 1)
        size = config.data.size
        if wanted and size not in (None, wanted):
            raise UsageError(
                f"--data.size={size}, but the network needs lines of {wanted} pixels; "
                "leave --data.size out, or change the height in --model.spec"
            )
        return wanted or size or 32


class CRNN(TextModel):
    options = CRNNOptions

    def line_spec(self, config, outputs: int):
        from lstm_jax.models import crnn

        return crnn(outputs).spec

    def module(self, config, outputs: int):
        from lstm_jax.models import crnn

        return crnn(outputs, **shared(config))


class VGSL(TextModel):
    options = VGSLOptions

    def line_spec(self, config, outputs: int):
        """The spec of `--model.spec`, with an output layer of `outputs` classes.

        Raises:
          ValueError: it is malformed, or its output is not a sequence.
        """
        from lstm_jax.models.vgsl import parse
        from lstm_jax.models.vgsl_layers import Output

        spec = parse(config.model.spec)
        if spec.output is not None and spec.output[:2] != (1, "c"):
            raise UsageError(
                f"--model.spec ends with {spec.output}, but text recognition uses CTC: "
                "end it with O1c and any number, or leave the output out"
            )
        name = spec.output.name if spec.output else ""
        return spec.with_output(Output(1, "c", outputs, name))

    def module(self, config, outputs: int):
        from lstm_jax.models import VGSLNet

        return VGSLNet(self.line_spec(config, outputs), **shared(config))


KINDS = (VGSL(), CRNN())
