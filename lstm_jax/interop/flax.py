"""Flax's cells, Linen and NNX: trees of kernels and biases, and states.

Linen's `LSTMCell` and `OptimizedLSTMCell` have the same tree. `ConvLSTMCell` has the
gates in the order i g f o, and adds 1 to the forget gate at every step. NNX's `GRUCell`
has no bias inside the reset.
"""

from collections.abc import Mapping
from typing import Any

from lstm_jax.interop.carries import from_states, one_or_both, to_states
from lstm_jax.interop.entries import (
    arrays,
    blocks,
    check,
    conv_from_igfo,
    join,
    kind_of,
    need,
    nested,
    sizes,
    to_igfo,
    without_bias,
    zeros_like,
)

_GATES = {"lstm": "ifgo", "gru": "rzn"}


def from_linen(params: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Params from Linen's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell`
    (without `residual`) or `ConvLSTMCell`, recognized by the names of the arrays.

    Args:
      params: nested, from `cell.init(...)["params"]`; of a whole model with `prefix`.
    """
    found = arrays("from_linen", params, prefix)
    if any(name.startswith("ih/") for name in found):
        biased = any(name.endswith("/bias") for name in found)
        kernels, biases = ("ih/kernel", "hh/kernel"), ("ih/bias", "hh/bias")
        return conv_from_igfo("from_linen", found, kernels, biases, biased=biased)
    return _from_cell("from_linen", found)


def to_linen(params: Mapping[str, Any], *, bias: bool = True) -> dict[str, Any]:
    """The tree of params of the Linen cell with the same equations.

    Args:
      params: of `lstm`, `gru`, `rnn` or `conv_lstm`.
      bias: False for a `ConvLSTMCell` with `use_bias=False`: then `b` must be -1 for
        the forget gate, and 0 for the rest, since that cell adds 1.
    """
    own = sizes("to_linen", params)
    if own.kernel:
        return _to_conv(own, params, bias)
    return _to_cell("to_linen", own, params)


def from_nnx(params: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Params from NNX's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` or `SimpleCell`.

    Args:
      params: nested arrays, as `nnx.to_pure_dict(nnx.state(cell, nnx.Param))`.
    """
    found = arrays("from_nnx", params, prefix)
    if not any(name.startswith("dense_") for name in found):
        found = {n.replace("if_/", "if/"): leaf for n, leaf in found.items()}
        return _from_cell("from_nnx", found)
    w_x = need("from_nnx", found, "dense_i/kernel")
    w_h = need("from_nnx", found, "dense_h/kernel")
    (features, gates), inputs = w_h.shape, w_x.shape[0]
    kind = kind_of("from_nnx", "dense_h/kernel", gates, features)
    side = "h" if kind == "lstm" else "i"  # which half has the bias
    shapes = {"i/kernel": (inputs, gates), "h/kernel": (features, gates)}
    shapes[f"{side}/bias"] = (gates,)
    check("from_nnx", found, {f"dense_{name}": shape for name, shape in shapes.items()})
    made = {"w_x": w_x, "w_h": w_h, "b": found[f"dense_{side}/bias"]}
    if kind == "gru":
        made["b_n"] = zeros_like(made["b"][:features])
    return made


def to_nnx(params: Mapping[str, Any], *, optimized: bool = False) -> dict[str, Any]:
    """The tree of params of the NNX cell with the same equations.

    Args:
      params: of `lstm`, `gru` (whose `b_n` must be zero) or `rnn`.
      optimized: of an LSTM, for `OptimizedLSTMCell`.

    Returns:
      Nested arrays, as `nnx.update(cell, ...)` takes them.
    """
    own = sizes("to_nnx", params)
    if own.kernel:
        raise NotImplementedError("to_nnx: NNX has no convolutional cells")
    if own.kind == "gru":
        without_bias("to_nnx", b_n=params["b_n"])
    if own.kind == "lstm" and not optimized:
        tree = _to_cell("to_nnx", own, params)
        return {"if_" if name == "if" else name: leaf for name, leaf in tree.items()}
    if "w_p" in params:
        raise NotImplementedError("to_nnx: Flax's cells have no projection")
    side = "h" if own.kind == "lstm" else "i"
    tree = {"dense_i": {"kernel": params["w_x"]}, "dense_h": {"kernel": params["w_h"]}}
    tree[f"dense_{side}"]["bias"] = params["b"]
    return tree


def from_flax_carry(carry: Any, kind: str) -> Any:
    """A carry from `(c, h)` of an LSTM in Linen or NNX, or from `h`.

    Args:
      carry: each `[*B, D]`, or `[*B, *space, D]`.
      kind: "lstm", "gru" or "rnn".
    """
    return from_states("from_flax_carry", kind, carry, "ch")


def to_flax_carry(carry: Any) -> Any:
    """`(c, h)`, or `h`."""
    return one_or_both(to_states(carry, "ch"))


def _from_cell(caller: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """From a cell with one kernel per gate: "ii", "hi", and so on; or "i" and "h"."""
    if "i/kernel" in found or "h/kernel" in found:
        w_h = need(caller, found, "h/kernel")
        inputs, features = need(caller, found, "i/kernel").shape[0], w_h.shape[1]
        shapes = {"i/kernel": (inputs, features), "i/bias": (features,)}
        check(caller, found, shapes | {"h/kernel": (features, features)})
        return {"w_x": found["i/kernel"], "w_h": w_h, "b": found["i/bias"]}
    kind = "gru" if any(name.startswith("ir/") for name in found) else "lstm"
    gates = _GATES[kind]
    first = need(caller, found, f"i{gates[0]}/kernel")
    inputs, features = first.shape
    wanted = {f"i{g}/kernel": (inputs, features) for g in gates}
    wanted |= {f"h{g}/kernel": (features, features) for g in gates}
    biased = [f"h{g}" for g in gates]
    if kind == "gru":
        biased = [f"i{g}" for g in gates] + ["hn"]
    check(caller, found, wanted | {f"{name}/bias": (features,) for name in biased})
    params = {
        "w_x": join([found[f"i{g}/kernel"] for g in gates]),
        "w_h": join([found[f"h{g}/kernel"] for g in gates]),
        "b": join([found[f"{name}/bias"] for name in biased[: len(gates)]]),
    }
    return params | ({"b_n": found["hn/bias"]} if kind == "gru" else {})


def _to_cell(caller: str, own, params: Mapping[str, Any]) -> dict:
    if "w_p" in params:
        raise NotImplementedError(f"{caller}: Flax's cells have no projection")
    if own.kind == "rnn":
        return {
            "i": {"kernel": params["w_x"], "bias": params["b"]},
            "h": {"kernel": params["w_h"]},
        }
    gates = _GATES[own.kind]
    side = "i" if own.kind == "gru" else "h"
    flat = {}
    for name, key, leaf in (
        ("i", "kernel", "w_x"),
        ("h", "kernel", "w_h"),
        (side, "bias", "b"),
    ):
        for gate, block in zip(gates, blocks(params[leaf], len(gates)), strict=True):
            flat[f"{name}{gate}/{key}"] = block
    if own.kind == "gru":
        flat["hn/bias"] = params["b_n"]
    return nested(flat)


def _to_conv(own, params: Mapping[str, Any], bias: bool) -> dict[str, Any]:
    if own.kind != "lstm":
        raise NotImplementedError("to_linen: of convolutional cells there is the LSTM")
    w_x, w_h, b = to_igfo(params)
    tree = {"ih": {"kernel": w_x}, "hh": {"kernel": w_h}}
    if bias:
        tree["ih"]["bias"], tree["hh"]["bias"] = b, zeros_like(b)
    else:
        without_bias("to_linen", **{"b, less the 1 that is added,": b})
    return tree
