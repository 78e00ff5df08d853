"""The state of a layer, between our carries and the orders of other libraries."""

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
    """A carry of states in the order "hc" or "ch"; `h` alone, or in a sequence of one.

    Raises:
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
    """States of a carry, `(h, c)` for the order "hc"; `(h,)` where there is no c."""
    return tuple(getattr(carry, name) for name in order if hasattr(carry, name))


def one_or_both(states: tuple[Any, ...]) -> Any:
    """`h` where it is alone, as libraries other than Keras have it."""
    return states if len(states) > 1 else states[0]
