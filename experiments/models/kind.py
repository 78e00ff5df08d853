"""`ModelKind`: the interface between the commands and a network."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.options import ModelOptions
from experiments.spec import DataSpec


class Network(NamedTuple):
    """A network as pure functions.

    Attributes:
      module: the Flax module.
      input_shape: of one example, as the module takes it.
      call: `(params, inputs, batch, keys) -> (outputs, auxiliary loss [B] or None)`;
        `inputs` are normalised, `batch` has further entries such as `lengths`.
    """

    module: Any
    input_shape: tuple[int, ...]
    call: Callable[..., tuple[Any, Any]]

    @classmethod
    def of(cls, module: Any, spec: DataSpec) -> "Network":
        """A network without lengths and without an auxiliary loss."""

        def call(params, inputs, batch, keys):
            return module.apply({"params": params}, inputs, keys=keys), None

        return cls(module, tuple(spec.image_shape), call)


class ModelKind(ABC):
    """All that is specific to one kind of network.

    Attributes:
      options: the dataclass of `--model` options; its name is that of the network.
      explains: whether `predict --explain` and the diagnosis support it.
      reads_lengths: whether sequences may differ in length.
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
        """Whether one example is enough work for a CPU core."""
        return True

    def pretrained(self, config) -> dict[str, Any]:
        """Params that are loaded from a file instead of random ones."""
        return {}

    def pixel_statistics(self, config) -> tuple[list[float], list[float]] | None:
        """Required means and standard deviations of pixels; None: those of the data."""
        return None


def shared(config) -> dict[str, Any]:
    """Arguments of all models: the engine and the dtype of the computation."""
    import jax.numpy as jnp

    half = config.precision == "bfloat16"
    return dict(engine=config.model.engine, dtype=jnp.bfloat16 if half else None)
