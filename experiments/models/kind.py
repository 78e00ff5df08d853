"""The contract of a model kind: how a network is built, and what commands ask of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.options import ModelOptions
from experiments.spec import DataSpec


class Network(NamedTuple):
    """A network as pure functions.

    Attributes:
      module: the Flax module.
      input_shape: of one example that the module reads.
      call: `(params, inputs, batch, keys) -> (outputs, extra loss [B] or None)`, of
        normalised inputs; `batch` holds what else there is, such as `lengths`.
    """

    module: Any
    input_shape: tuple[int, ...]
    call: Callable[..., tuple[Any, Any]]

    @classmethod
    def of(cls, module: Any, spec: DataSpec) -> "Network":
        """One that reads whole examples and returns its outputs alone."""

        def call(params, inputs, batch, keys):
            return module.apply({"params": params}, inputs, keys=keys), None

        return cls(module, tuple(spec.image_shape), call)


class ModelKind(ABC):
    """What is particular to one kind of network.

    Attributes:
      options: the dataclass behind `--model`, whose name is this network's.
      explains: whether how it reads can be drawn and diagnosed step by step.
      reads_lengths: whether sequences may have lengths of their own.
    """

    options: type[ModelOptions]
    explains = False
    reads_lengths = False

    @property
    def name(self) -> str:
        """Of `--model`."""
        return self.options.name

    @abstractmethod
    def build(self, config, spec: DataSpec) -> Network:
        """The network of a run."""

    def convolves(self, config) -> bool:
        """Whether a core of a CPU is busy with few examples."""
        return True

    def pretrained(self, config) -> dict[str, Any]:
        """Params that come from a file in place of random ones."""
        return {}

    def pixel_statistics(self, config) -> tuple[list[float], list[float]] | None:
        """Means and standard deviations of pixels that it wants, whatever the data."""
        return None


def shared(config) -> dict[str, Any]:
    """Arguments that all models take: the engine, and the dtype to compute in."""
    import jax.numpy as jnp

    half = config.precision == "bfloat16"
    return dict(engine=config.model.engine, dtype=jnp.bfloat16 if half else None)
