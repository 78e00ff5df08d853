"""Classifiers of PyTorch and Keras: recurrent layers with one linear layer on top.

Our params are those of `SequenceClassifier` without an encoder: `layer_0`, `layer_1`
and so on, for bidirectional layers also `layer_0_backward`, and `head` with `kernel [D,
K]`, `bias [K]`. Names of modules are arbitrary: the only recurrent module and the only
linear layer are found by the names of their arrays.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lstm_jax.interop.entries import arrays, check, few, sizes, zeros_like
from lstm_jax.interop.keras import from_keras, to_keras
from lstm_jax.interop.pytorch import from_pytorch, to_pytorch

_OWN = r"(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?$"
_LAYER = re.compile(
    r"(?:.*/)?layers/(bidirectional|lstm|gru|simple_rnn)(?:_(\d+))?/"
    r"(?:(forward|backward)_layer/)?cell/vars/(\d)$"
)
_DENSE = re.compile(r"(?:.*/)?layers/(dense(?:_\d+)?)/vars/([01])$")
_KERAS = {"lstm": "lstm", "gru": "gru", "rnn": "simple_rnn"}


def from_pytorch_classifier(
    state: Mapping[str, Any], *, caller: str = "from_pytorch_classifier"
) -> dict[str, Any]:
    """Params from a module of one `nn.LSTM`, `nn.GRU` or `nn.RNN`, and one `nn.Linear`.

    Args:
      state: its `state_dict()`, with any attribute names.

    Returns:
      Params; without `head` if there is no linear layer. If the linear layer has no
      bias, `bias` is zero.

    Raises:
      ValueError: not exactly one recurrent module, more than one linear layer, other
        arrays, or shapes that do not fit; listed by name.
    """
    found = arrays(caller, state)
    ends = "weight_hh_l0"
    prefixes = [name[: -len(ends)] for name in found if name.endswith(ends)]
    if len(prefixes) != 1:
        raise ValueError(
            f"{caller}: {_count(prefixes, ends)}; expected the state_dict of one "
            f"nn.LSTM, nn.GRU or nn.RNN and one nn.Linear; there are: {few(found)}"
        )
    own = re.compile(re.escape(prefixes[0]) + _OWN)
    layers = from_pytorch(
        {name: array for name, array in found.items() if own.match(name)},
        prefix=prefixes[0],
        caller=f"{caller}: {prefixes[0]}*" if prefixes[0] else caller,
    )
    rest = {name: array for name, array in found.items() if not own.match(name)}
    linear = [
        n for n, a in rest.items() if n.split(".")[-1] == "weight" and a.ndim == 2
    ]
    if len(linear) > 1:
        raise ValueError(
            f"{caller}: {len(linear)} linear layers, but expected one: {few(linear)}"
        )
    weight = linear[0] if linear else ""
    bias = f"{weight[: -len('weight')]}bias"
    wanted = {n: rest[n].shape for n in linear}
    if linear and bias in rest:
        wanted[bias] = rest[weight].shape[:1]
    check(caller, rest, wanted)
    params = _params(layers)
    if linear:
        kernel = rest[weight].T
        params["head"] = {
            "kernel": kernel,
            "bias": rest.get(bias, zeros_like(kernel[0])),
        }
    return params


def to_pytorch_classifier(params: Mapping[str, Any]) -> dict[str, Any]:
    """The `state_dict` of a module with `lstm`, `gru` or `rnn`, and `head`.

    Args:
      params: as from `from_pytorch_classifier`.

    Returns:
      Arrays by name, such as `lstm.weight_ih_l0 [4D, F]` and `head.weight [K, D]`.

    Raises:
      NotImplementedError: there is an encoder, or a cell that PyTorch does not have.
    """
    layers, head = _layers("to_pytorch_classifier", params)
    prefix = f"{_kind(layers)}."
    state = to_pytorch(layers, prefix=prefix)
    return state | {"head.weight": head["kernel"].T, "head.bias": head["bias"]}


def from_keras_classifier(
    weights: Mapping[str, Any], *, caller: str = "from_keras_classifier"
) -> dict[str, Any]:
    """Params from a model of recurrent layers of one kind and one `Dense`.

    Args:
      weights: arrays by their paths in a `.weights.h5` file, as from `read_keras`:
        `layers/lstm/cell/vars/0`, `layers/lstm_1/…`, `layers/dense/vars/0`.

    Returns:
      Params; without `head` if there is no `Dense`.

    Raises:
      ValueError: several kinds of layers, more than one `Dense`, other arrays, or
        shapes that do not fit; listed by name.
      NotImplementedError: a GRU with `reset_after=False`.
    """
    found = arrays(caller, weights)
    places: dict[tuple, dict[tuple, Any]] = {}
    dense: dict[str, dict[int, Any]] = {}
    others = []
    for name, array in found.items():
        if match := _LAYER.match(name):
            kind, number, way, at = match.groups()
            place = places.setdefault((int(number or 0), kind), {})
            place[(way != "forward" and way is not None, int(at))] = array
        elif match := _DENSE.match(name):
            dense.setdefault(match[1], {})[int(match[2])] = array
        else:
            others.append(name)
    kinds = {kind for _, kind in places}
    if len(kinds) != 1 or len(dense) > 1 or others:
        raise ValueError(
            f"{caller}: expected LSTM, GRU, SimpleRNN or Bidirectional layers of one "
            f"kind and one Dense; there are: {few(others or found)}"
        )
    layers = []
    for place in sorted(places):
        own = places[place]
        ordered = [own[key] for key in sorted(own)]
        layers.append(from_keras(ordered, caller=f"{caller}: {place[1]} {place[0]}"))
    params = _params(layers)
    for vars_ in dense.values():
        named = {("kernel", "bias")[at]: array for at, array in vars_.items()}
        if "kernel" not in named or named["kernel"].ndim != 2:
            raise ValueError(f"{caller}: its Dense has no kernel [D, K]")
        kernel = named["kernel"]
        head = {"bias": zeros_like(kernel[0])} | named
        check(caller, head, {"kernel": kernel.shape, "bias": kernel.shape[1:]})
        params["head"] = head
    return params


def to_keras_classifier(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by their paths in the `.weights.h5` of the same network in Keras 3.

    Args:
      params: as from `from_keras_classifier`.

    Raises:
      NotImplementedError: there is an encoder, or a cell that Keras does not have.
    """
    layers, head = _layers("to_keras_classifier", params)
    kind, weights = _KERAS[_kind(layers)], {}
    for number, entry in enumerate(layers):
        both = not isinstance(entry, Mapping)
        name = ("bidirectional" if both else kind) + (f"_{number}" if number else "")
        ways = zip(
            ("forward_layer/", "backward_layer/") if both else ("",),
            entry if both else (entry,),
            strict=True,
        )
        for way, own in ways:
            for at, array in enumerate(to_keras(own)):
                weights[f"layers/{name}/{way}cell/vars/{at}"] = array
    weights["layers/dense/vars/0"] = head["kernel"]
    weights["layers/dense/vars/1"] = head["bias"]
    return weights


def _params(layers: Sequence[Any]) -> dict[str, Any]:
    params = {}
    for number, entry in enumerate(layers):
        if isinstance(entry, Mapping):
            params[f"layer_{number}"] = entry
        else:
            params[f"layer_{number}"], params[f"layer_{number}_backward"] = entry
    return params


def _layers(caller: str, params: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """`(layers, head)`, bottom first; a pair for each bidirectional layer."""
    layers, names = [], {"head"}
    while (name := f"layer_{len(layers)}") in params:
        back = f"{name}_backward"
        names |= {name, back}
        both = back in params
        layers.append((params[name], params[back]) if both else params[name])
    if not layers or "head" not in params or set(params) - names:
        others = sorted(set(params) - names) or sorted(params)
        raise NotImplementedError(
            f"{caller}: expected recurrent layers and a head, nothing else; the "
            f"network has {', '.join(others)}, which only .safetensors keeps"
        )
    return layers, params["head"]


def _kind(layers: Sequence[Any]) -> str:
    first = layers[0] if isinstance(layers[0], Mapping) else layers[0][0]
    return sizes("layer_0", first).kind


def _count(prefixes: Sequence[str], ends: str) -> str:
    if not prefixes:
        return f"no array is called {ends}"
    names = ", ".join(prefix.rstrip(".") or "the file itself" for prefix in prefixes)
    return f"{len(prefixes)} recurrent modules, {names}"
