"""Cells: one file per family of equations, and combinators."""

from lstm_jax.cells.autoregressive import AutoregressiveCarry, autoregressive
from lstm_jax.cells.bottleneck import bottleneck_conv_lstm
from lstm_jax.cells.combinators import (
    densely_connected,
    learned_carry,
    readout,
    repeat,
    residual,
    stack,
)
from lstm_jax.cells.conv import conv_gru, conv_lstm
from lstm_jax.cells.gru import GRUCarry, gru
from lstm_jax.cells.lstm import LSTMCarry, lstm
from lstm_jax.cells.regularize import (
    RecurrentDropoutCarry,
    dropout,
    recurrent_dropout,
    zoneout,
)
from lstm_jax.cells.rnn import RNNCarry, rnn
from lstm_jax.cells.spatiotemporal import STLSTMCarry, st_lstm
