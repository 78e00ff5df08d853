"""The cells of `--model.cell`, and the options that layers of them share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from experiments.choices import Choice, Count
from experiments.options import RecurrentOptions

KERNEL_INITS = {"glorot": "glorot_uniform", "he": "he_normal", "lecun": "lecun_normal"}


class CellOptions(Choice, ABC):
    """The cell of a layer; convolutional ones are for clips."""

    convolves = False

    @abstractmethod
    def build(self, features: int, steps: int, inits: dict[str, Any]):
        """The `lstm_jax.Cell` for sequences of so many steps."""


@dataclass(frozen=True)
class LSTM(CellOptions):
    """A long short-term memory."""

    name = "lstm"
    forget_bias: float | Literal["chrono", "uniform_gate"] = 1.0
    """chrono spreads what is kept over up to the whole sequence."""

    def build(self, features, steps, inits):
        from lstm_jax import lstm

        return lstm(features, forget_bias=_forget(self.forget_bias, steps), **inits)


@dataclass(frozen=True)
class GRU(CellOptions):
    """A gated recurrent unit."""

    name = "gru"

    def build(self, features, steps, inits):
        from lstm_jax import gru

        return gru(features, **inits)


@dataclass(frozen=True)
class RNN(CellOptions):
    """The vanilla RNN."""

    name = "rnn"
    activation: Literal["tanh", "relu", "leaky_relu"] = "tanh"

    def build(self, features, steps, inits):
        import jax

        from lstm_jax import rnn

        return rnn(features, activation=getattr(jax.nn, self.activation), **inits)


@dataclass(frozen=True)
class ConvLSTM(CellOptions):
    """A convolutional LSTM."""

    name = "conv_lstm"
    convolves = True
    kernel_size: Count = 3
    """Side of the kernels."""
    forget_bias: float | Literal["chrono", "uniform_gate"] = 1.0
    """chrono spreads what is kept over up to the whole sequence."""

    def build(self, features, steps, inits):
        from lstm_jax import conv_lstm

        forget = _forget(self.forget_bias, steps)
        window = (self.kernel_size,) * 2
        return conv_lstm(features, window, forget_bias=forget, **inits)


@dataclass(frozen=True)
class ConvGRU(CellOptions):
    """A convolutional GRU."""

    name = "conv_gru"
    convolves = True
    kernel_size: Count = 3
    """Side of the kernels."""

    def build(self, features, steps, inits):
        from lstm_jax import conv_gru

        return conv_gru(features, (self.kernel_size,) * 2, **inits)


@dataclass(frozen=True)
class LayersOptions(RecurrentOptions):
    """Layers of one kind of cell."""

    cell: CellOptions = LSTM()
    """Convolutional ones are for clips."""
    features: Count = 128
    """Hidden width D of a layer (and direction); channels of a convolutional one."""
    layers: Count = 1
    init: Literal["glorot", "he", "lecun", "torch"] = "glorot"
    """Of the input weights; torch is uniform, and for recurrent ones and biases too."""
    recurrent_init: Literal["orthogonal", "identity", "glorot", "he"] | None = None
    """Default orthogonal, or torch's; identity with the activation relu is an IRNN."""

    def cells(self, steps: int) -> tuple:
        """The cells of all layers, for sequences of so many steps."""
        from lstm_jax import initializers

        if self.init == "torch":
            inits = initializers.pytorch_defaults(self.features)
        else:
            inits = {"kernel_init": _init(self.init)}
        if self.recurrent_init or self.init != "torch":
            inits["recurrent_init"] = _init(self.recurrent_init or "orthogonal")
        return (self.cell.build(self.features, steps, inits),) * self.layers


def _init(name: str):
    import jax

    from lstm_jax import initializers

    own = {"orthogonal": initializers.orthogonal, "identity": initializers.identity}
    if name in own:
        return own[name]()
    return getattr(jax.nn.initializers, KERNEL_INITS[name])()


def _forget(forget_bias, steps: int):
    from lstm_jax import initializers

    if forget_bias == "chrono":
        return initializers.chrono(max(steps, 2))
    return initializers.uniform_gate() if forget_bias == "uniform_gate" else forget_bias
