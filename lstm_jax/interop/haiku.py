"""Haiku's `LSTM`, `Conv1DLSTM` to `Conv3DLSTM` and `VanillaRNN`: params and states.

Their gates are in the order i g f o, and 1 is added to the forget gate at every step:
Haiku's bias is ours minus 1. If the forget bias is not between 0.5 and 2, that rounds
by half an ulp of the larger number.
"""

from collections.abc import Mapping
from typing import Any

from lstm_jax.interop.carries import from_states, one_or_both, to_states
from lstm_jax.interop.entries import (
    arrays,
    check,
    conv_from_igfo,
    from_igfo,
    join,
    need,
    nested,
    sizes,
    to_igfo,
    zeros_like,
)

_HALVES = "input_to_hidden", "hidden_to_hidden"


def from_haiku(
    params: Mapping[str, Any], *, prefix: str | None = None
) -> dict[str, Any]:
    """Params from a recurrent core, recognized by the names of its arrays.

    Args:
      params: from `transformed.init`: `{"lstm/linear": {"w": ..., "b": ...}}`.
      prefix: of the paths to read, such as "my_model/lstm/"; None: the module that
        contains all arrays.

    Returns:
      Params of `lstm`, `conv_lstm`, or `rnn(activation=jax.nn.relu)`.

    Raises:
      NotImplementedError: of a `GRU`, which resets before the recurrent product.
    """
    found = arrays("from_haiku", params, prefix or "")
    if prefix is None:
        found = _below_the_common_module(found)
    if "w_i" in found and "w_h" in found:
        raise NotImplementedError(
            "from_haiku: Haiku's GRU resets the state before the recurrent product; "
            "gru does so after it"
        )
    if f"{_HALVES[0]}/w" in found or f"{_HALVES[1]}/w" in found:
        kernels, biases = (tuple(f"{half}/{n}" for half in _HALVES) for n in "wb")
        return conv_from_igfo("from_haiku", found, kernels, biases)
    b = need("from_haiku", found, "linear/b", 1)
    w = need("from_haiku", found, "linear/w")
    if "linear_1/w" in found:  # VanillaRNN
        features = len(b)
        shapes = {"linear/w": (len(w), features), "linear/b": (features,)}
        shapes["linear_1/w"] = (features, features)
        if "linear_1/b" in found:
            shapes["linear_1/b"] = (features,)
            b = b + found["linear_1/b"]
        check("from_haiku", found, shapes)
        return {"w_x": w, "w_h": found["linear_1/w"], "b": b}
    features = len(b) // 4
    inputs = max(len(w) - features, 0)
    gates = 4 * features
    check(
        "from_haiku",
        found,
        {"linear/w": (inputs + features, gates), "linear/b": (gates,)},
    )
    return from_igfo(w[:inputs], w[inputs:], b)


def to_haiku(
    params: Mapping[str, Any], *, name: str | None = None, double_bias: bool = True
) -> dict[str, Any]:
    """Params of the Haiku core with the same equations.

    Args:
      params: of `lstm`, `conv_lstm`, or `rnn`, which Haiku runs with ReLU.
      name: of the module; None: Haiku's default, such as "lstm".
      double_bias: of a `VanillaRNN`, as in Haiku: whether the hidden half has a bias.
    """
    own = sizes("to_haiku", params)
    if own.kind == "gru" or "w_p" in params:
        what = (
            "GRU that resets after the product" if own.kind == "gru" else "projection"
        )
        raise NotImplementedError(f"to_haiku: Haiku has no {what}")
    if own.kind == "rnn":
        name, b = name or "vanilla_rnn", params["b"]
        half = {"w": params["w_h"]} | ({"b": zeros_like(b)} if double_bias else {})
        return {
            f"{name}/linear": {"w": params["w_x"], "b": b},
            f"{name}/linear_1": half,
        }
    w_x, w_h, b = to_igfo(params)
    if not own.kernel:
        w = join([w_x, w_h], axis=0)
        return {f"{name or 'lstm'}/linear": {"w": w, "b": b}}
    name = name or f"conv{len(own.kernel)}_dlstm"
    halves = {"w": w_x, "b": b}, {"w": w_h, "b": zeros_like(b)}
    pairs = zip(_HALVES, halves, strict=True)
    return {f"{name}/{half}": leaves for half, leaves in pairs}


def from_haiku_carry(state: Any, kind: str) -> Any:
    """A carry from `hk.LSTMState(hidden, cell)`, or from a `VanillaRNN`'s array.

    Args:
      state: each `[*B, D]`, or `[*B, *space, D]`.
      kind: "lstm" or "rnn".
    """
    return from_states("from_haiku_carry", kind, state, "hc")


def to_haiku_carry(carry: Any) -> Any:
    """`(hidden, cell)`, for `hk.LSTMState(*...)`; or the state of a `VanillaRNN`."""
    return one_or_both(to_states(carry, "hc"))


def _below_the_common_module(found: dict[str, Any]) -> dict[str, Any]:
    tree = nested(found)
    inner = {"linear", "linear_1", *_HALVES}
    while len(tree) == 1 and not inner & tree.keys():
        (below,) = tree.values()
        if not isinstance(below, Mapping):
            break
        tree = below
    return arrays("from_haiku", tree)
