"""PyTorch's `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells: `state_dict` and states.

PyTorch multiplies from the left, `W x`: its matrices are the transposes of ours, with
blocks in our order, i f g o and r z n. It adds two biases, of which we keep the sum;
only in a GRU the second new-gate bias is inside the reset, and stays separate.
Converting our params to PyTorch and back is exact; PyTorch's biases come back as a sum
in `bias_ih`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lstm_jax.interop.carries import carry_class, one_or_both, to_states
from lstm_jax.interop.entries import (
    BLOCKS,
    arrays,
    check,
    join,
    kind_of,
    need,
    sizes,
    stack,
    without_bias,
    zeros_like,
)

_PLACE = re.compile(r"weight_hh_l(\d+)(_reverse)?$")


def from_pytorch(
    state: Mapping[str, Any], *, prefix: str = "", caller: str = "from_pytorch"
) -> tuple[Any, ...]:
    """Params from an `nn.LSTM`, `nn.GRU` or `nn.RNN`.

    Args:
      state: its `state_dict()`; the kind is recognized by the shapes.

    Returns:
      One entry per layer, bottom first: params, as for `stack(*cells)`; for a
      bidirectional module a pair of them, as for `bidirectional`. `w_x [F, G]`,
      `w_h [D, G]` (with a `proj_size` `[P, G]`, and `w_p [D, P]`), `b [G]`; of a GRU
      `b_n [D]`; zero if the module has no biases.
    """
    found = arrays(caller, state, prefix)
    w_hh = need(caller, found, "weight_hh_l0")
    places = [m.groups() for name in found if (m := _PLACE.match(name))]
    layers = 1 + max(int(layer) for layer, _ in places)
    ways = ["", "_reverse"] if any(way for _, way in places) else [""]
    outputs, features = w_hh.shape[1], w_hh.shape[1]
    projected = "weight_hr_l0" in found
    if projected:
        features = need(caller, found, "weight_hr_l0").shape[1]
    kind = kind_of(caller, "weight_hh_l0", w_hh.shape[0], features)
    inputs = need(caller, found, "weight_ih_l0").shape[1]
    bias = any(name.startswith("bias_") for name in found)

    wanted = {}
    for layer in range(layers):
        for way in ways:
            reads = outputs * len(ways) if layer else inputs
            shapes = _shapes(kind, reads, features, outputs, bias, projected)
            wanted |= {f"{n}_l{layer}{way}": shape for n, shape in shapes.items()}
    check(caller, found, wanted)

    def at(place):
        return _from(kind, {n: found.get(f"{n}_{place}") for n in _NAMES})

    made = [tuple(at(f"l{layer}{way}") for way in ways) for layer in range(layers)]
    return tuple(pair if len(ways) == 2 else pair[0] for pair in made)


def to_pytorch(
    layers: Sequence[Any], *, bias: bool = True, prefix: str = ""
) -> dict[str, Any]:
    """The `state_dict` of an `nn.LSTM`, `nn.GRU` or `nn.RNN`, as plain arrays.

    Args:
      layers: as from `from_pytorch`.
      bias: False for a module without biases; ours must then be zero.

    Returns:
      Arrays by name, such as `weight_ih_l0 [4D, F]`; `bias_hh` is zero except for a
      GRU's new gate. `torch.from_numpy` converts NumPy arrays to tensors.
    """
    if isinstance(layers, Mapping) or not layers:
        raise ValueError("to_pytorch: layers is a sequence of params, one a layer")
    state, first = {}, None
    for layer, entry in enumerate(layers):
        pair = (entry,) if isinstance(entry, Mapping) else tuple(entry)
        if len(pair) > 2:
            raise ValueError(f"to_pytorch: layer {layer} has {len(pair)} directions")
        for way, params in zip(("", "_reverse")[: len(pair)], pair, strict=True):
            own = sizes(f"to_pytorch: layer {layer}{way}", params)
            first = first or (own, len(pair))
            reads = first[0].outputs * first[1] if layer else own.inputs
            whole = own._replace(inputs=first[0].inputs)
            if whole != first[0] or own.inputs != reads or len(pair) != first[1]:
                raise ValueError(
                    f"to_pytorch: layer {layer}{way} is {own} in {len(pair)} "
                    f"direction(s), but expected {reads} inputs, the rest as in the "
                    f"first layer: {first[0]} in {first[1]}"
                )
            for name, array in _to(own.kind, params, bias, own.kernel).items():
                state[f"{prefix}{name}_l{layer}{way}"] = array
    return state


def from_pytorch_cell(state: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Params of an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`, as `from_pytorch`."""
    found = arrays("from_pytorch_cell", state, prefix)
    w_hh = need("from_pytorch_cell", found, "weight_hh")
    inputs = need("from_pytorch_cell", found, "weight_ih").shape[1]
    features = w_hh.shape[1]
    kind = kind_of("from_pytorch_cell", "weight_hh", w_hh.shape[0], features)
    bias = any(name.startswith("bias_") for name in found)
    check(
        "from_pytorch_cell",
        found,
        _shapes(kind, inputs, features, features, bias, False),
    )
    return _from(kind, found)


def to_pytorch_cell(
    params: Mapping[str, Any], *, bias: bool = True, prefix: str = ""
) -> dict[str, Any]:
    """The `state_dict` of a cell, as `to_pytorch`; cells have no projection."""
    own = sizes("to_pytorch_cell", params)
    if "w_p" in params:
        raise NotImplementedError("to_pytorch_cell: PyTorch's cells have no projection")
    arrays = _to(own.kind, params, bias, own.kernel)
    return {prefix + name: array for name, array in arrays.items()}


def from_pytorch_carry(
    states: Any, kind: str, *, bidirectional: bool = False
) -> tuple[Any, ...]:
    """Carries from `(h, c)`, or from `h`, as PyTorch's modules take and return them.

    Args:
      states: each `[layers * directions, B, D or P]`, independent of `batch_first`.
      kind: "lstm", "gru" or "rnn".
      bidirectional: whether directions alternate along the first axis.

    Returns:
      One entry per layer: a carry; with `bidirectional` a pair of them.
    """
    made = carry_class("from_pytorch_carry", kind)
    names = "hc" if kind == "lstm" else "h"
    states = tuple(states) if kind == "lstm" else (states,)
    if len(states) != len(names) or any(s.ndim != 3 for s in states):
        shapes = ", ".join(str(tuple(s.shape)) for s in states)
        raise ValueError(
            f"from_pytorch_carry: states {shapes}; kind={kind!r} wants "
            f"({', '.join(names)}), each [layers * directions, B, D]"
        )
    ways = 2 if bidirectional else 1
    if len(states[0]) % ways:
        raise ValueError(
            f"from_pytorch_carry: {len(states[0])} states are no pairs of directions"
        )
    carries = [
        made(**{name: s[at] for name, s in zip(names, states, strict=True)})
        for at in range(len(states[0]))
    ]
    if not bidirectional:
        return tuple(carries)
    return tuple(zip(carries[::2], carries[1::2], strict=True))


def to_pytorch_carry(carries: Sequence[Any]) -> Any:
    """`(h, c)`, or `h`, from carries as from `from_pytorch_carry`."""
    flat = []
    for entry in carries:
        flat += [entry] if hasattr(entry, "h") else entry
    states = [to_states(carry, "hc") for carry in flat]
    return one_or_both(tuple(stack(leaves) for leaves in zip(*states, strict=True)))


_NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"


def _shapes(kind, inputs, features, outputs, bias, projected) -> dict[str, tuple]:
    gates = BLOCKS[kind] * features
    shapes = {"weight_ih": (gates, inputs), "weight_hh": (gates, outputs)}
    if bias:
        shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
    if projected:
        shapes["weight_hr"] = (outputs, features)
    return shapes


def _from(kind: str, own: Mapping[str, Any]) -> dict[str, Any]:
    params = {"w_x": own["weight_ih"].T, "w_h": own["weight_hh"].T}
    b_ih, b_hh = own.get("bias_ih"), own.get("bias_hh")
    if b_ih is None:
        b_ih = b_hh = zeros_like(own["weight_ih"][:, 0])
    if kind == "gru":
        two = 2 * len(b_ih) // 3  # r and z
        params["b"] = join([b_ih[:two] + b_hh[:two], b_ih[two:]])
        params["b_n"] = b_hh[two:]
    else:
        params["b"] = b_ih + b_hh
    if own.get("weight_hr") is not None:
        params["w_p"] = own["weight_hr"].T
    return params


def _to(kind: str, params: Mapping[str, Any], bias: bool, kernel) -> dict[str, Any]:
    if kernel:
        raise NotImplementedError("to_pytorch: PyTorch has no convolutional cells")
    state = {"weight_ih": params["w_x"].T, "weight_hh": params["w_h"].T}
    if bias:
        b = params["b"]
        state |= {"bias_ih": b, "bias_hh": zeros_like(b)}
        if kind == "gru":
            two = 2 * len(b) // 3
            state["bias_hh"] = join([zeros_like(b[:two]), params["b_n"]])
    else:
        without_bias("to_pytorch", b=params.get("b"), b_n=params.get("b_n"))
    if "w_p" in params:
        state["weight_hr"] = params["w_p"].T
    return state
