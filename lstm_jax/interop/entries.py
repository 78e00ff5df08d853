"""Named arrays: conversion from any array library, checks by name, splitting.

Names are those of arrays in other libraries, with `/` between the parts of nested ones.
NumPy arrays stay NumPy arrays, including float64; if one is a JAX array, so is the
result, so that conversions are differentiable.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCKS = {"lstm": 4, "gru": 3, "rnn": 1}
MOST = 8  # maximum number of names in one part of an error
OPTIONS = {  # params that only exist with an option of a cell
    "p_i": "peepholes",
    "p_f": "peepholes",
    "p_o": "peepholes",
    "gain_x": "a norm",
    "gain_h": "a norm",
    "gain_c": "a norm",
    "b_c": "a norm",
}


class Sizes(NamedTuple):
    """Kind and sizes of a layer's cell, derived from its params.

    Attributes:
      kind: "lstm", "gru" or "rnn".
      inputs: F, or the channels of an image.
      features: D.
      outputs: P with a projection, else D.
      kernel: of the input convolution; () for products.
    """

    kind: str
    inputs: int
    features: int
    outputs: int
    kernel: tuple[int, ...] = ()


def arrays(caller: str, tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by their paths, as arrays.

    Args:
      caller: the source, for errors.
      tree: NumPy or JAX arrays, or anything that `np.asarray` accepts, such as CPU
        tensors of PyTorch. None is skipped.
      prefix: of the paths to read; it is removed.
    """
    found = {}
    for path, leaf in _leaves(tree):
        if leaf is None or not path.startswith(prefix):
            continue
        if not isinstance(leaf, jax.Array):
            try:
                leaf = np.asarray(leaf)
            except (TypeError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"{caller}: {path} is not an array: {reason}"
                ) from error
        found[path[len(prefix) :]] = leaf
    if not found:
        under = f" under {prefix!r}" if prefix else ""
        names = few(path for path, _ in _leaves(tree)) or "none"
        raise ValueError(f"{caller}: no arrays{under}; there are: {names}")
    return found


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[name] = leaf
    return tree


def check(
    caller: str, found: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises ValueError for missing or unexpected arrays or wrong shapes, by name."""
    missing = [f"{name} {wanted[name]}" for name in wanted if name not in found]
    unexpected = [f"{n} {tuple(found[n].shape)}" for n in found if n not in wanted]
    other = [
        f"{name} is {tuple(found[name].shape)} and not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    parts = [
        f"{word}: {few(names)}"
        for word, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", other),
        )
        if names
    ]
    if parts:
        raise ValueError(f"{caller}: {'; '.join(parts)}")


def few(names: Iterable[str]) -> str:
    """A shortened list of names, for an error."""
    names = list(names)
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def need(caller: str, found: Mapping[str, Any], name: str, ndim: int | None = 2):
    """An array that determines the other shapes; raises ValueError if it is missing."""
    if name not in found:
        names = few(f"{n} {tuple(a.shape)}" for n, a in found.items())
        raise ValueError(f"{caller}: missing: {name}; there are: {names}")
    if ndim is not None and found[name].ndim != ndim:
        shape = tuple(found[name].shape)
        raise ValueError(f"{caller}: of another shape: {name} is {shape}, not {ndim}-D")
    return found[name]


def kind_of(caller: str, name: str, gates: int, features: int) -> str:
    """The kind of cell, from the total width of its gates; `name` is that array's."""
    for kind, blocks in BLOCKS.items():
        if gates == blocks * features and features:
            return kind
    raise ValueError(
        f"{caller}: of another shape: {name} has {gates} gates for {features} features;"
        f" an LSTM has {4 * features}, a GRU {3 * features}, an RNN {features}"
    )


def sizes(caller: str, params: Mapping[str, Any]) -> Sizes:
    """Sizes from the params of `lstm`, `gru`, `rnn` or a convolutional cell.

    Raises:
      NotImplementedError: the cell has an option that other libraries do not support.
      ValueError: params are missing, unexpected or have wrong shapes.
    """
    options = dict.fromkeys(OPTIONS[name] for name in params if name in OPTIONS)
    if options:
        raise NotImplementedError(
            f"{caller}: the cell has {' and '.join(options)}, which are not known there"
        )
    w_h = need(caller, params, "w_h", None)
    w_x = need(caller, params, "w_x", None)
    if w_h.ndim < 2 or w_x.ndim != w_h.ndim:
        shapes = f"w_x is {tuple(w_x.shape)}, w_h is {tuple(w_h.shape)}"
        raise ValueError(f"{caller}: of another shape: {shapes}")
    outputs, gates = w_h.shape[-2:]
    features = params["w_p"].shape[0] if "w_p" in params else outputs
    if gates == 3 * features and "b_n" not in params:
        raise NotImplementedError(
            f"{caller}: the cell has coupled gates, which are not known there"
        )
    kind = kind_of(caller, "w_h", gates, features)
    wanted = {
        "w_x": (*w_x.shape[:-2], w_x.shape[-2], gates),
        "w_h": (*w_h.shape[:-2], outputs, gates),
    }
    if "b" in params or w_h.ndim == 2:  # of convolutions it may be left out
        wanted["b"] = (gates,)
    if kind == "gru":
        wanted["b_n"] = (features,)
    if "w_p" in params:
        wanted["w_p"] = (features, outputs)
    check(caller, params, wanted)
    return Sizes(kind, w_x.shape[-2], features, outputs, tuple(w_x.shape[:-2]))


def is_numpy(found: Iterable[Any]) -> bool:
    return not any(isinstance(a, jax.Array) for a in found)


def join(parts: Sequence[Any], axis: int = -1) -> Any:
    """Concatenates, with JAX if one of the arrays is a JAX array."""
    return (np if is_numpy(parts) else jnp).concatenate(parts, axis=axis)


def stack(parts: Sequence[Any]) -> Any:
    return (np if is_numpy(parts) else jnp).stack(parts)


def zeros_like(array: Any) -> Any:
    return (np if is_numpy([array]) else jnp).zeros_like(array)


def blocks(array: Any, count: int, axis: int = -1) -> list[Any]:
    """Splits into `count` equal blocks along an axis."""
    axis %= array.ndim
    size = array.shape[axis] // count
    at = (slice(None),) * axis
    return [array[(*at, slice(k * size, (k + 1) * size))] for k in range(count)]


def reorder(array: Any, order: Sequence[int], axis: int = -1) -> Any:
    """Reorders the blocks along an axis: new block k is old `order[k]`."""
    cut = blocks(array, len(order), axis)
    return join([cut[k] for k in order], axis)


def shifted(b: Any, shift: float, order: Sequence[int]) -> Any:
    """A bias of 4 blocks i f g o, with f shifted and the blocks reordered.

    If a library adds 1 to the forget gate at every step, its bias is smaller by 1.
    """
    i, f, g, o = blocks(b, 4)
    cut = [i, f + np.asarray(shift, f.dtype), g, o]
    return join([cut[k] for k in order])


def bias_of(params: Mapping[str, Any]) -> Any:
    """`b`, or zeros if a convolutional cell has none."""
    w_h, b = params["w_h"], params.get("b")
    return zeros_like(w_h.reshape(-1, w_h.shape[-1])[0]) if b is None else b


IGFO = (0, 2, 1, 3)  # i f g o from i g f o, and back


def from_igfo(w_x: Any, w_h: Any, b: Any) -> dict[str, Any]:
    """Params of a cell with blocks i g f o that adds 1 to the forget gate."""
    b = shifted(reorder(b, IGFO), 1, range(4))
    return {"w_x": reorder(w_x, IGFO), "w_h": reorder(w_h, IGFO), "b": b}


def to_igfo(params: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The inverse of `from_igfo`: `w_x`, `w_h` and `b`."""
    w_x, w_h = (reorder(params[name], IGFO) for name in ("w_x", "w_h"))
    return w_x, w_h, shifted(bias_of(params), -1, IGFO)


def conv_from_igfo(
    caller: str,
    found: Mapping[str, Any],
    kernels: tuple[str, str],
    biases: tuple[str, str],
    *,
    biased: bool = True,
) -> dict[str, Any]:
    """As `from_igfo`, for two convolutions with given array names, input first."""
    w_x = need(caller, found, kernels[0], None)
    w_h = need(caller, found, kernels[1], w_x.ndim)
    features = w_h.shape[-2]
    gates = 4 * features
    wanted = {
        kernels[0]: (*w_x.shape[:-1], gates),
        kernels[1]: (*w_x.shape[:-2], features, gates),
    }
    check(caller, found, wanted | dict.fromkeys(biases if biased else (), (gates,)))
    b = sum(found[name] for name in biases) if biased else bias_of({"w_h": w_h})
    return from_igfo(w_x, w_h, b)


def without_bias(caller: str, **biases: Any) -> None:
    """Raises ValueError if a bias to omit is not zero; traced ones count as zero."""
    for name, bias in biases.items():
        if bias is None or isinstance(bias, jax.core.Tracer):
            continue
        if np.any(np.asarray(bias)):
            raise ValueError(f"{caller}: {name} is not zero, and cannot be represented")
