"""Conversion of a layer's state between our carries and other libraries' orders."""

from collections.abc import Sequence
from typing import Any

from lstm_jax.cells.gru import GRUCarry
from lstm_jax.cells.lstm import LSTMCarry
from lstm_jax.cells.rnn import RNNCarry

CARRIES = {"lstm": LSTMCarry, "gru": GRUCarry, "rnn": RNNCarry}


def carry_class(caller: str, kind: str):
    if kind not in CARRIES:
        raise ValueError(f"{caller}: kind={kind!r}; choose {', '.join(CARRIES)}")
    return CARRIES[kind]


def from_states(caller: str, kind: str, states: Any, order: str) -> Any:
    """A carry from states in the order "hc" or "ch"; or from `h`, alone or in a list.

    Raises:
      ValueError: the number of states does not fit the kind of cell.
      ValueError: there are more or fewer states than the kind of cell has.
    """
    made = carry_class(caller, kind)
    if not isinstance(states, Sequence):
        states = (states,)
    wanted = order if kind == "lstm" else "h"
    if len(states) != len(wanted):
        raise ValueError(
            f"{caller}: {len(states)} states, but kind={kind!r} has {len(wanted)}: "
            f"({', '.join(wanted)})"
        )
    return made(**dict(zip(wanted, states, strict=True)))


def to_states(carry: Any, order: str) -> tuple[Any, ...]:
    """States of a carry, `(h, c)` for the order "hc"; `(h,)` if there is no c."""
    return tuple(getattr(carry, name) for name in order if hasattr(carry, name))


def one_or_both(states: tuple[Any, ...]) -> Any:
    """`h` alone instead of `(h,)`, as in libraries other than Keras."""
    return states if len(states) > 1 else states[0]
