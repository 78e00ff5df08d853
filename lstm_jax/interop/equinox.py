"""Equinox's `LSTMCell` and `GRUCell`: arrays by field name, and states.

Shapes and order are PyTorch's, with one bias; a GRU has a separate one inside the
reset.
"""

from collections.abc import Mapping
from typing import Any

from lstm_jax.interop.carries import from_states, one_or_both, to_states
from lstm_jax.interop.entries import (
    arrays,
    check,
    kind_of,
    need,
    sizes,
    without_bias,
    zeros_like,
)


def from_equinox(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Params of an `LSTMCell` or a `GRUCell`.

    Args:
      fields: `weight_ih [G, F]`, `weight_hh [G, D]`, `bias [G]` or None, and of a GRU
        `bias_n [D]` or None.
    """
    found = arrays("from_equinox", fields)
    w_hh = need("from_equinox", found, "weight_hh")
    inputs = need("from_equinox", found, "weight_ih").shape[1]
    gates, features = w_hh.shape
    kind = kind_of("from_equinox", "weight_hh", gates, features)
    wanted = {"weight_ih": (gates, inputs), "weight_hh": (gates, features)}
    if "bias" in found or "bias_n" in found:
        wanted["bias"] = (gates,)
        if kind == "gru":
            wanted["bias_n"] = (features,)
    check("from_equinox", found, wanted)
    bias, bias_n = found.get("bias"), found.get("bias_n")
    params = {
        "w_x": found["weight_ih"].T,
        "w_h": w_hh.T,
        "b": zeros_like(w_hh[:, 0]) if bias is None else bias,
    }
    if kind == "gru":
        params["b_n"] = zeros_like(w_hh[0]) if bias_n is None else bias_n
    return params


def to_equinox(params: Mapping[str, Any], *, bias: bool = True) -> dict[str, Any]:
    """Arrays by field name, to put into a cell with `equinox.tree_at`.

    Args:
      params: of `lstm` or `gru`.
      bias: False for a cell with `use_bias=False`; our bias must then be zero.
    """
    own = sizes("to_equinox", params)
    if own.kernel or own.kind == "rnn" or "w_p" in params:
        what = "convolutional cell" if own.kernel else "such cell"
        what = "projection" if "w_p" in params else what
        raise NotImplementedError(f"to_equinox: Equinox has no {what}")
    fields = {"weight_ih": params["w_x"].T, "weight_hh": params["w_h"].T}
    if not bias:
        without_bias("to_equinox", b=params.get("b"), b_n=params.get("b_n"))
        return fields
    fields["bias"] = params["b"]
    return fields | ({"bias_n": params["b_n"]} if own.kind == "gru" else {})


def from_equinox_carry(state: Any, kind: str) -> Any:
    """A carry from `(h, c)` of an LSTM, or from `h`; each `[D]` or `[B, D]`."""
    return from_states("from_equinox_carry", kind, state, "hc")


def to_equinox_carry(carry: Any) -> Any:
    """`(h, c)`, or `h`."""
    return one_or_both(to_states(carry, "hc"))
