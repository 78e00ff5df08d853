"""Named arrays: read from any array library, checked by name, cut and joined.

The names of these files are those of arrays in other libraries, with `/` between the
parts of a nested one. NumPy's arrays stay NumPy's, float64 too; where one is of JAX
the result is, so that a conversion can be differentiated.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCKS = {"lstm": 4, "gru": 3, "rnn": 1}
MOST = 8  # names in one part of an error
OPTIONS = {  # params that only an option of a cell has
    "p_i": "peepholes",
    "p_f": "peepholes",
    "p_o": "peepholes",
    "gain_x": "a norm",
    "gain_h": "a norm",
    "gain_c": "a norm",
    "b_c": "a norm",
}


class Sizes(NamedTuple):
    """What the params of a layer tell about its cell.

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
      caller: what an error begins with.
      tree: arrays of NumPy, JAX, or whatever `np.asarray` takes, such as tensors of
        PyTorch on the CPU. None is left out.
      prefix: of the paths to take, which is cut off.
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
                raise ValueError(f"{caller}: {path} is no array: {reason}") from error
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
    """Refuses arrays that are missing, unexpected or of another shape, all by name."""
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
    """Names as one part of an error."""
    names = list(names)
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def need(caller: str, found: Mapping[str, Any], name: str, ndim: int | None = 2):
    """An array whose shape all others follow from, or an error that names it."""
    if name not in found:
        names = few(f"{n} {tuple(a.shape)}" for n, a in found.items())
        raise ValueError(f"{caller}: missing: {name}; there are: {names}")
    if ndim is not None and found[name].ndim != ndim:
        shape = tuple(found[name].shape)
        raise ValueError(f"{caller}: of another shape: {name} is {shape}, not {ndim}-D")
    return found[name]


def kind_of(caller: str, name: str, gates: int, features: int) -> str:
    """The kind of cell with so many gates together; `name` is that of their array."""
    for kind, blocks in BLOCKS.items():
        if gates == blocks * features and features:
            return kind
    raise ValueError(
        f"{caller}: of another shape: {name} has {gates} gates for {features} features;"
        f" an LSTM has {4 * features}, a GRU {3 * features}, an RNN {features}"
    )


def sizes(caller: str, params: Mapping[str, Any]) -> Sizes:
    """Of the params of `lstm`, `gru`, `rnn` or a convolutional cell; checks them.

    Raises:
      NotImplementedError: the cell has an option that no other library knows.
      ValueError: params are missing, unexpected or of another shape.
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
    """Concatenated, by JAX where one of them is of JAX."""
    return (np if is_numpy(parts) else jnp).concatenate(parts, axis=axis)


def stack(parts: Sequence[Any]) -> Any:
    return (np if is_numpy(parts) else jnp).stack(parts)


def zeros_like(array: Any) -> Any:
    return (np if is_numpy([array]) else jnp).zeros_like(array)


def blocks(array: Any, count: int, axis: int = -1) -> list[Any]:
    """Cut into `count` equal blocks along an axis."""
    axis %= array.ndim
    size = array.shape[axis] // count
    at = (slice(None),) * axis
    return [array[(*at, slice(k * size, (k + 1) * size))] for k in range(count)]


def reorder(array: Any, order: Sequence[int], axis: int = -1) -> Any:
    """The blocks along an axis in another order: new block k is old `order[k]`."""
    cut = blocks(array, len(order), axis)
    return join([cut[k] for k in order], axis)


def shifted(b: Any, shift: float, order: Sequence[int]) -> Any:
    """A bias of 4 blocks i f g o, whose f is shifted, in another order.

    Where a library adds 1 to the forget gate in every step, its bias is 1 less.
    """
    i, f, g, o = blocks(b, 4)
    cut = [i, f + np.asarray(shift, f.dtype), g, o]
    return join([cut[k] for k in order])


def bias_of(params: Mapping[str, Any]) -> Any:
    """`b`, or zeros where a convolutional cell has none."""
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
    """The same of two convolutions, by the names of their arrays; input first."""
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
    """Refuses to leave out a bias that is not zero; a traced one is taken as zero."""
    for name, bias in biases.items():
        if bias is None or isinstance(bias, jax.core.Tracer):
            continue
        if np.any(np.asarray(bias)):
            raise ValueError(f"{caller}: {name} is not zero, but it has no place there")
