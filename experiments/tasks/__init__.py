"""The tasks by name, as in `--task`."""

from experiments.options import Config
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


def task_kind(config: Config) -> TaskKind:
    """The task of a configuration."""
    return TASKS[config.task.name]


__all__ = ["TASKS", "TaskKind", "task_kind"]
