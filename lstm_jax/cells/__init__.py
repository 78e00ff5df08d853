"""The equations: one file per family of cells, and what combines them."""

from lstm_jax.cells.combinators import stack
from lstm_jax.cells.lstm import LSTMCarry, lstm
from lstm_jax.cells.rnn import RNNCarry, rnn

__all__ = ["LSTMCarry", "RNNCarry", "lstm", "rnn", "stack"]
