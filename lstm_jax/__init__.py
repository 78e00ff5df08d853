"""LSTMs for image recognition as pure functions, in JAX."""

from lstm_jax import initializers
from lstm_jax.bidirectional import bidirectional
from lstm_jax.cell import Cell, step
from lstm_jax.cells import (
    AutoregressiveCarry,
    GRUCarry,
    LSTMCarry,
    RecurrentDropoutCarry,
    RNNCarry,
    STLSTMCarry,
    autoregressive,
    bottleneck_conv_lstm,
    conv_gru,
    conv_lstm,
    densely_connected,
    dropout,
    gru,
    learned_carry,
    lstm,
    readout,
    recurrent_dropout,
    repeat,
    residual,
    rnn,
    st_lstm,
    stack,
    zoneout,
)
from lstm_jax.keys import Keys
from lstm_jax.layers import Layers, recurrent_layers
from lstm_jax.unroll import Unrolled, UnrolledWithCarries, unroll

__version__ = "0.1.0"

__all__ = [
    "AutoregressiveCarry",
    "Cell",
    "UnrolledWithCarries",
    "GRUCarry",
    "Keys",
    "LSTMCarry",
    "Layers",
    "RNNCarry",
    "STLSTMCarry",
    "RecurrentDropoutCarry",
    "Unrolled",
    "autoregressive",
    "bidirectional",
    "bottleneck_conv_lstm",
    "conv_gru",
    "conv_lstm",
    "densely_connected",
    "dropout",
    "gru",
    "initializers",
    "learned_carry",
    "lstm",
    "readout",
    "recurrent_dropout",
    "recurrent_layers",
    "repeat",
    "residual",
    "rnn",
    "st_lstm",
    "stack",
    "step",
    "unroll",
    "zoneout",
]
