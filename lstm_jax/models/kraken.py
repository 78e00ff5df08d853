"""Loads text-recognition models trained by kraken from .safetensors files."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.interop.entries import arrays, check
from lstm_jax.interop.pytorch import from_pytorch
from lstm_jax.interop.safetensors import read_safetensors, read_safetensors_metadata
from lstm_jax.models import vgsl_layers as vgsl
from lstm_jax.models.vgsl import Spec, flat, parse
from lstm_jax.models.vgsl_net import VGSLNet

MARGIN = 16  # columns of background that kraken adds before and after a line
_MIDDLE = re.compile(r"\bO(\{\w+\})?1[lsc](\d+)(?= )")


class KrakenRecognizer(NamedTuple):
    """A text-recognition network trained by kraken.

    Attributes:
      spec: with kraken's layer names, except for the output.
      params: of `VGSLNet(spec)`.
      alphabet: the characters of labels 1, 2, …; several code points each if the model
        was trained on decomposed text.
    """

    spec: Spec
    params: dict[str, Any]
    alphabet: tuple[str, ...]


def is_krakens(path: str | Path) -> bool:
    """Whether a .safetensors file was written by kraken.

    Raises:
      ValueError: the file is damaged; one line.
    """
    return "kraken_meta" in read_safetensors_metadata(path)


def describe_kraken(path: str | Path) -> tuple[Spec, tuple[str, ...]]:
    """Spec and alphabet of `load_kraken`, without reading the weights."""
    _, spec, alphabet = _described(path)
    return spec._replace(output=spec.output._replace(name="")), alphabet


def _described(path: str | Path) -> tuple[str, Spec, tuple[str, ...]]:
    """The array prefix, spec and alphabet of the file's only recognition model."""
    if not is_krakens(path):
        raise ValueError(f"{path}: kraken did not write this file")
    try:
        found = json.loads(read_safetensors_metadata(path)["kraken_meta"])
        readers = {
            prefix: (str(one["vgsl"]), _mapping(one["codec"]))
            for prefix, one in found.items()
            if one["_model"] == "TorchVGSLModel" and one["codec"]
        }
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: kraken's metadata in it is damaged") from error
    if len(readers) != 1:
        names = ", ".join(str(one["_model"]) for one in found.values())
        raise ValueError(
            f"{path}: expected one recogniser, a TorchVGSLModel with characters; "
            f"there are {len(readers)} among its networks ({names})"
        )
    ((prefix, (words, codec)),) = readers.items()
    spec = parse(_MIDDLE.sub(r"Cl\g<1>1,1,\g<2>", words))
    if spec.output is None or spec.output[:2] != (1, "c"):
        raise ValueError(f"{path}: {spec} does not output a sequence for CTC")
    layers = tuple(_as_run(path, layer) for layer in spec.layers)
    alphabet = _alphabet(path, codec, spec.output.features)
    return prefix, spec._replace(layers=layers), alphabet


def _mapping(codec: Any) -> dict[str, Any]:
    """Labels by character; kraken may nest JSON within JSON."""
    found = json.loads(codec) if isinstance(codec, str) else codec
    if not isinstance(found, dict):
        raise TypeError(f"{type(found)} is not a codec")
    return found


def load_kraken(path: str | Path) -> KrakenRecognizer:
    """Loads a recognition model written by `ketos train` or `ketos convert`.

    Its images are grey, of the spec's height, 1 for ink and 0 for background, with 16
    columns of background before and after the line (`MARGIN`).

    Args:
      path: a .safetensors file of kraken 5 or later.

    Returns:
      The spec and params for `VGSLNet(found.spec).apply({"params": found.params},
      images)`, and the alphabet. Where kraken's network differs from its spec, this
      spec describes the network: in kraken G is an LSTM, r reads forward, and an
      output in the middle is a 1x1 convolution.

    Raises:
      ValueError: the file was not written by kraken, or is damaged; its spec is not
        supported (`SpecError`); a character has several labels; one line.

    Reference: kraken 7.1, `kraken/lib/vgsl`.
    """
    prefix, spec, alphabet = _described(path)
    tensors = {
        name: array.astype(np.float32)
        for name, array in read_safetensors(path).items()
        if name.startswith(f"{prefix}.")
    }
    params = {}
    for layer in flat(spec.all):
        if made := _params(path, layer, tensors):
            params["output" if layer == spec.output else layer.name] = made
    spec = spec._replace(output=spec.output._replace(name=""))
    _check(path, spec, params)
    return KrakenRecognizer(spec, params, alphabet)


def _as_run(path: str | Path, layer: Any) -> Any:
    """A layer as kraken computes it."""
    if isinstance(layer, vgsl.Series | vgsl.Parallel):
        return layer._replace(layers=tuple(_as_run(path, one) for one in layer.layers))
    if isinstance(layer, vgsl.Conv) and layer.activation == "s":
        raise ValueError(f"{path}: for {layer} kraken 7 omits the sigmoid")
    if not isinstance(layer, vgsl.Recurrent):
        return layer
    if layer.last and layer.direction == "b":
        raise ValueError(
            f"{path}: for {layer} kraken keeps the end of the line in both directions, "
            "where the backward one has processed a single step"
        )
    forward = "f" if layer.direction == "r" else layer.direction
    return layer._replace(cell="L", direction=forward)


def _alphabet(path: str | Path, codec: dict[str, Any], outputs: int) -> tuple[str, ...]:
    """Characters by label, from 1."""
    by_label = {}
    for character, labels in codec.items():
        if not isinstance(labels, list) or [type(n) for n in labels] != [int]:
            raise ValueError(
                f"{path}: {character!r} has the labels {labels}; expected one label"
            )
        by_label[labels[0]] = character
    wanted = range(1, outputs)
    if sorted(by_label) != list(wanted):
        raise ValueError(
            f"{path}: {len(by_label)} characters have labels, expected one for each "
            f"of the {outputs} outputs but the blank"
        )
    return tuple(by_label[label] for label in wanted)


def _params(path: str | Path, layer: Any, tensors: dict[str, np.ndarray]):
    """Params of one layer from tensors by kraken's names; {} if it has none."""
    name = layer.name

    def own(module: str) -> dict[str, np.ndarray]:
        key = f".{name}.{module}."
        found = {n.split(key)[1]: array for n, array in tensors.items() if key in n}
        if not found:
            raise ValueError(f"{path}: no weights of {layer}, called {key[1:]}*")
        return found

    def kernel(found: dict[str, np.ndarray], axes: tuple[int, ...]) -> dict[str, Any]:
        if found.keys() != {"weight", "bias"} or found["weight"].ndim != len(axes):
            names = ", ".join(f"{n} {a.shape}" for n, a in found.items())
            raise ValueError(f"{path}: {layer} has {names}; expected weight, bias")
        return {"kernel": found["weight"].transpose(axes), "bias": found["bias"]}

    match layer:
        case vgsl.Conv() if any(f".{name}.lin." in key for key in tensors):
            made = kernel(own("lin"), (1, 0))
            return made | {"kernel": made["kernel"][None, None]}
        case vgsl.Conv():
            return kernel(own("co"), (2, 3, 1, 0))
        case vgsl.Output():
            return kernel(own("lin"), (1, 0))
        case vgsl.GroupNorm():
            found = own("layer")
            return {"scale": found.get("weight"), "bias": found.get("bias")}
        case vgsl.Recurrent():
            (made,) = from_pytorch(own("layer"), caller=f"{path}: {name}")
            pair = made if isinstance(made, tuple) else (made,)
            return dict(zip(("forward", "backward"), pair, strict=False))
    return {}


def _check(path: str | Path, spec: Spec, params: dict[str, Any]) -> None:
    """Raises ValueError, naming the param, unless params fit the spec's network."""
    height = spec.height if spec.height > 1 else spec.channels
    channels = spec.channels if spec.height > 1 else 1
    blank = jnp.zeros((1, height, spec.width or 256, channels))
    shapes = jax.eval_shape(VGSLNet(spec).init, jax.random.key(0), blank)["params"]
    wanted = {
        "/".join(key.key for key in keys): leaf.shape
        for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }
    check(str(path), arrays(str(path), params), wanted)
