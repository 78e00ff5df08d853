"""The networks by name, as in `--model`."""

from experiments.models import classifier, dense, forecasters, sequencer, text
from experiments.models.kind import ModelKind, Network

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

__all__ = ["MODELS", "ModelKind", "Network"]
