"""cuDNN's flat vector of weights, as used by `jax.experimental.rnn`.

The matrices of all layers come first, forward before backward in each, then all biases,
two per layer and direction, which cuDNN adds. Gates are in the order i f g o. ROCm's
order differs and is not supported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_jax.interop.entries import check, join, sizes, zeros_like
from lstm_jax.interop.pytorch import from_pytorch_carry, to_pytorch_carry


def to_cudnn(layers: Sequence[Any]) -> Any:
    """All weights of an LSTM as one vector.

    Args:
      layers: one entry per layer, bottom first: params, `w_x [F, 4D]`, `w_h [D, 4D]`,
        `b [4D]`; or a pair of them, forward and backward.

    Returns:
      `[n]`, with `n` the sum of `4D (F + D + 2)` over layers and directions; the
      second bias of each is zero.

    Raises:
      NotImplementedError: a cell is not a plain `lstm`.
      ValueError: layers do not fit each other.
    """
    if isinstance(layers, Mapping) or not layers:
        raise ValueError("to_cudnn: layers is a sequence of params, one a layer")
    flat, ways = _flat(layers)
    matrices, biases, first = [], [], None
    for number, params in enumerate(flat):
        own = sizes("to_cudnn", params)
        if own.kind != "lstm" or own.kernel or "w_p" in params:
            raise NotImplementedError("to_cudnn: only the plain lstm is supported")
        first = first or own
        reads = first.inputs if number < ways else ways * first.features
        if (own.inputs, own.features) != (reads, first.features):
            raise ValueError(
                f"to_cudnn: layer {number // ways} has F={own.inputs}, "
                f"D={own.features}; expected F={reads}, D={first.features}"
            )
        matrices += [params["w_x"].T.reshape(-1), params["w_h"].T.reshape(-1)]
        biases += [params["b"], zeros_like(params["b"])]
    return join([*matrices, *biases])


def from_cudnn(
    flat: Any, inputs: int, features: int, *, layers: int = 1, bidirectional=False
) -> tuple[Any, ...]:
    """Params of an LSTM from the vector of its weights.

    Args:
      flat: `[n]`, as from `to_cudnn`.
      inputs: F, of the first layer.
      features: D.
      layers: number of layers.
      bidirectional: whether each layer has two directions.

    Returns:
      One entry per layer: params; with `bidirectional` a pair of them.

    Raises:
      ValueError: the length of the vector does not fit.
    """
    ways, gates = 2 if bidirectional else 1, 4 * features
    widths = [inputs] * ways + [ways * features] * ways * (layers - 1)
    size = sum(gates * (width + features + 2) for width in widths)
    check("from_cudnn", {"weights": flat}, {"weights": (size,)})
    at = 0

    def take(*shape):
        nonlocal at
        start, at = at, at + int(np.prod(shape))
        return flat[start:at].reshape(shape)

    pairs = [(take(gates, width).T, take(gates, features).T) for width in widths]
    made = [
        {"w_x": w_x, "w_h": w_h, "b": take(gates) + take(gates)} for w_x, w_h in pairs
    ]
    return (
        tuple(zip(made[::2], made[1::2], strict=True)) if bidirectional else tuple(made)
    )


def from_cudnn_carry(h: Any, c: Any, *, bidirectional: bool = False) -> tuple[Any, ...]:
    """Carries of states `[layers * ways, B, D]`, one entry a layer, as PyTorch's."""
    return from_pytorch_carry((h, c), "lstm", bidirectional=bidirectional)


def to_cudnn_carry(carries: Sequence[Any]) -> tuple[Any, Any]:
    """`(h, c)`, each `[layers * ways, B, D]`."""
    return to_pytorch_carry(carries)


def _flat(layers: Sequence[Any]) -> tuple[list[Any], int]:
    entries = [(e,) if isinstance(e, Mapping) else tuple(e) for e in layers]
    ways = {len(entry) for entry in entries}
    if len(ways) > 1 or not ways <= {1, 2}:
        raise ValueError(f"to_cudnn: layers have {sorted(ways)} directions")
    return [params for entry in entries for params in entry], ways.pop()
