"""The common part of tasks with labels or numbers as targets."""

import dataclasses
from abc import abstractmethod

from experiments.errors import UsageError
from experiments.tasks.kind import PerFileTask


class LabelTask(PerFileTask):
    """Predicts classes, numbers or labels for each example, or for each step."""

    models = ("classifier", "sequencer")
    shown_from_file = True

    def check_options(self, options) -> None:
        if getattr(options, "gamma", None) is not None and options.loss != "focal":
            raise UsageError(
                f"task.gamma={options.gamma} has no effect on "
                f"task.loss={options.loss}; add --task.loss=focal, or leave it out"
            )

    def check_data(self, config, dataset) -> None:
        super().check_data(config, dataset)
        _check_labels(self.name, dataset)

    def worst(self, evaluation):
        from experiments.reporting import worst

        return worst.examples(evaluation, self)

    def spec(self, config, dataset):
        found = super().spec(config, dataset)
        if getattr(config.task, "class_weights", "none") == "none":
            return found
        weights = self.balanced_weights(dataset).tolist()
        return dataclasses.replace(found, class_weights=weights)

    def balanced_weights(self, dataset):
        """Class weights of the loss under which all classes count alike, an array."""
        raise NotImplementedError(f"{self.name} has no classes to weigh")

    @abstractmethod
    def caption(self, spec, prediction, target) -> str:
        """Prediction and target of one example, in two lines."""


def focal_gamma(options) -> float:
    """Of a task's loss: 0 unless it is the focal loss."""
    if options.loss != "focal":
        return 0.0
    return 2.0 if options.gamma is None else options.gamma


def _check_labels(name: str, dataset) -> None:
    """Raises UsageError if the targets belong to another of these tasks."""
    import numpy as np

    targets = dataset.splits["train"].targets
    whole = np.issubdtype(targets.dtype, np.integer)
    if whole and not dataset.classes:
        raise UsageError(
            f"the clips of {dataset.name} have no labels; to predict their frames, use "
            f"`experiments.train moving-digits --data={dataset.name}`"
        )
    has, words = "regression", "numbers"
    if dataset.classes:
        has, words = "multilabel", "labels of 0 and 1"
        if whole:
            has, words = "classification", "classes"
    if name != has:
        raise UsageError(
            f"{dataset.name} has {words} as targets, but the task is {name}; use "
            f"--task={has}"
        )
