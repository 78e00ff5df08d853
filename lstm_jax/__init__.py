"""LSTMs for image recognition as pure functions, in JAX."""

from lstm_jax import initializers
from lstm_jax.cell import Cell, step
from lstm_jax.cells import LSTMCarry, RNNCarry, lstm, rnn, stack
from lstm_jax.unroll import Unrolled, bidirectional, unroll

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "LSTMCarry",
    "RNNCarry",
    "Unrolled",
    "bidirectional",
    "initializers",
    "lstm",
    "rnn",
    "stack",
    "step",
    "unroll",
]
