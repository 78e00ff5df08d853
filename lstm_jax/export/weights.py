"""Writes params to a file, with the names of another library or our own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lstm_jax import interop


def write(
    path: Path, params: Any, names: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a file atomically.

    Args:
      path: for PyTorch's names .safetensors, or else .pt.
      params: of a `SequenceClassifier` without an encoder; with our own names, of any
        network.
      names: "pytorch", "keras" or "safetensors" (our own names).
      metadata: of the file, with our own names.

    Raises:
      NotImplementedError: the library's layers cannot represent the network.
    """
    if names == "keras":
        interop.write_keras(path, interop.to_keras_classifier(params))
    elif names == "safetensors":
        interop.write_safetensors(path, params, metadata)
    elif path.suffix == ".safetensors":
        interop.write_safetensors(path, interop.to_pytorch_classifier(params))
    else:
        interop.write_torch(path, interop.to_pytorch_classifier(params))
