"""The networks by name, as in `--model`."""

from experiments.models import classifier, dense, forecasters, sequencer, text
from experiments.models.kind import ModelKind, Network
from experiments.options import Config

MODELS: dict[str, ModelKind] = {
    kind.name: kind
    for kind in (
        classifier.KIND,
        sequencer.KIND,
        *forecasters.KINDS,
        *dense.KINDS,
        *text.KINDS,
    )
}


def model_kind(config: Config) -> ModelKind:
    """The model of a configuration."""
    return MODELS[config.model.name]


__all__ = ["MODELS", "ModelKind", "Network", "model_kind"]
