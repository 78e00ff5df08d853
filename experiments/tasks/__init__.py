"""The tasks by name, as in `--task`."""

from experiments.tasks import (
    classification,
    detection,
    forecasting,
    multilabel,
    regression,
    segmentation,
    text_recognition,
)
from experiments.tasks.kind import TaskKind

TASKS: dict[str, TaskKind] = {
    module.KIND.name: module.KIND
    for module in (
        classification,
        regression,
        forecasting,
        multilabel,
        segmentation,
        detection,
        text_recognition,
    )
}

__all__ = ["TASKS", "TaskKind"]
