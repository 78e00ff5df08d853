"""Keras 3's LSTM, GRU, SimpleRNN, ConvLSTM1D to 3D, and Bidirectional of them.

Kernels have our layout; an LSTM has our order of blocks, a GRU z r h. As here, the
forget bias of 1 is part of the bias.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lstm_jax.interop.carries import from_states, to_states
from lstm_jax.interop.entries import (
    arrays,
    bias_of,
    check,
    join,
    kind_of,
    need,
    reorder,
    sizes,
    stack,
    without_bias,
    zeros_like,
)

NAMES = "kernel", "recurrent_kernel", "bias"
_GATES = (1, 0, 2)  # r z n from z r h, and back


def from_keras(
    weights: Sequence[Any], *, reset_after: bool = True, caller: str = "from_keras"
) -> Any:
    """Params from a layer, recognized by the shapes of its arrays.

    Args:
      weights: `layer.get_weights()`: kernel `[*k, F, G]`, recurrent kernel
        `[*k, D, G]`, and with `use_bias` bias `[G]`, of a GRU `[2, G]`; of
        `Bidirectional` those of the forward layer, then of the backward layer.
      reset_after: of a GRU. False applies the reset gate before the recurrent product,
        which is not supported.

    Returns:
      Params of a layer; for `Bidirectional` a pair of them, as in `bidirectional`.

    Raises:
      NotImplementedError: a GRU resets before the product.
    """
    if len(weights) in (4, 6):
        half = len(weights) // 2
        pairs = ("forward", weights[:half]), ("backward", weights[half:])
        return tuple(_from(f"{caller}: {way}", own, reset_after) for way, own in pairs)
    return _from(caller, weights, reset_after)


def _from(caller: str, weights: Sequence[Any], reset_after: bool) -> dict[str, Any]:
    names = (*NAMES, *(f"array {k}" for k in range(3, len(weights))))
    found = arrays(caller, dict(zip(names, weights, strict=False)))
    w_h = need(caller, found, "recurrent_kernel", None)
    w_x = need(caller, found, "kernel", max(w_h.ndim, 2))
    features, gates = w_h.shape[-2:]
    kind = kind_of(caller, "recurrent_kernel", gates, features)
    if kind == "gru" and not (reset_after and _resets_after(found)):
        raise NotImplementedError(
            f"{caller}: a GRU with reset_after=False resets the state before the "
            "recurrent product; gru does so after it, as Keras by default"
        )
    wanted = {
        "kernel": (*w_x.shape[:-1], gates),
        "recurrent_kernel": (*w_h.shape[:-2], features, gates),
    }
    if "bias" in found:
        wanted["bias"] = (2, gates) if kind == "gru" else (gates,)
    check(caller, found, wanted)
    bias = found.get("bias")
    if kind != "gru":
        params = {"w_x": w_x, "w_h": w_h, "b": bias}
        return params | {"b": bias_of(params)}
    bias = zeros_like(w_h[:2]) if bias is None else bias
    b_x, b_h = (reorder(bias[k], _GATES) for k in (0, 1))
    two = 2 * features
    return {
        "w_x": reorder(w_x, _GATES),
        "w_h": reorder(w_h, _GATES),
        "b": join([b_x[:two] + b_h[:two], b_x[two:]]),
        "b_n": b_h[two:],
    }


def _resets_after(found: Mapping[str, Any]) -> bool:
    return "bias" not in found or found["bias"].ndim == 2


def to_keras(params: Any, *, bias: bool = True) -> list[Any]:
    """Weights for `layer.set_weights`, from params or a pair of them.

    Args:
      params: of `lstm`, `gru` (for `GRU(reset_after=True)`), `rnn` or `conv_lstm`; a
        pair for `Bidirectional`.
      bias: False for a layer without bias; ours must then be zero.
    """
    if not isinstance(params, Mapping):
        return [array for own in params for array in to_keras(own, bias=bias)]
    own = sizes("to_keras", params)
    if "w_p" in params:
        raise NotImplementedError("to_keras: Keras's layers have no projection")
    if own.kernel and own.kind != "lstm":
        raise NotImplementedError("to_keras: of convolutional cells there is the LSTM")
    w_x, w_h, b = params["w_x"], params["w_h"], bias_of(params)
    if own.kind == "gru":
        two = 2 * own.features
        b_h = join([zeros_like(b[:two]), params["b_n"]])
        w_x, w_h, b, b_h = (reorder(array, _GATES) for array in (w_x, w_h, b, b_h))
        b = stack([b, b_h])
    if not bias:
        without_bias("to_keras", b=params.get("b"), b_n=params.get("b_n"))
        return [w_x, w_h]
    return [w_x, w_h, b]


def from_keras_carry(states: Any, kind: str) -> Any:
    """A carry from `[h, c]`, `[h]` or `h`; from 4 or 2 states a pair of carries.

    Args:
      states: as returned with `return_state=True`, each `[B, D]` or `[B, *space, D]`.
      kind: "lstm", "gru" or "rnn".
    """
    caller, each = "from_keras_carry", 2 if kind == "lstm" else 1
    if isinstance(states, Sequence) and len(states) == 2 * each:
        halves = states[:each], states[each:]
        return tuple(from_states(caller, kind, half, "hc") for half in halves)
    return from_states(caller, kind, states, "hc")


def to_keras_carry(carry: Any) -> list[Any]:
    """`initial_state` of a layer, of a carry or a pair of them: `[h, c]` or `[h]`."""
    if hasattr(carry, "h"):
        return list(to_states(carry, "hc"))
    return [state for own in carry for state in to_states(own, "hc")]
