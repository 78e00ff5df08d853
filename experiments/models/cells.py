"""The cells of `--model.cell`, and the options of recurrent layers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from experiments.choices import Choice, Count
from experiments.options import RecurrentOptions

KERNEL_INITS = {"glorot": "glorot_uniform", "he": "he_normal", "lecun": "lecun_normal"}


class CellOptions(Choice, ABC):
    """The cell of a layer; convolutional cells are for clips."""

    convolves = False

    @abstractmethod
    def build(self, features: int, steps: int, inits: dict[str, Any]):
        """The `lstm_jax.Cell`.

        Args:
          features: hidden width D.
          steps: length of the sequences, for `forget_bias="chrono"`.
          inits: initializers, by argument of the cell.
        """


@dataclass(frozen=True)
class LSTM(CellOptions):
    """A long short-term memory."""

    name = "lstm"
    forget_bias: float | Literal["chrono", "uniform_gate"] = 1.0
    """A number, or an initialisation for long memory: chrono, uniform_gate."""

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
    """A vanilla RNN."""

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
    """Kernel size."""
    forget_bias: float | Literal["chrono", "uniform_gate"] = 1.0
    """A number, or an initialisation for long memory: chrono, uniform_gate."""

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
    """Kernel size."""

    def build(self, features, steps, inits):
        from lstm_jax import conv_gru

        return conv_gru(features, (self.kernel_size,) * 2, **inits)


@dataclass(frozen=True)
class LayersOptions(RecurrentOptions):
    """A stack of layers of one cell."""

    cell: CellOptions = LSTM()
    """Recurrent cell; convolutional cells are for clips."""
    features: Count = 128
    """Hidden width per layer and direction; channels of a convolutional cell."""
    layers: Count = 1
    """Number of recurrent layers."""
    init: Literal["glorot", "he", "lecun", "torch"] = "glorot"
    """Initializer of input weights; torch: PyTorch's defaults for all parameters."""
    recurrent_init: Literal["orthogonal", "identity", "glorot", "he"] | None = None
    """Initializer of recurrent weights; default orthogonal, or PyTorch's."""

    def cells(self, steps: int) -> tuple:
        """The cells of all layers, for sequences of `steps` steps."""
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
