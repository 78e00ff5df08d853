"""The base class of loggers."""

from pathlib import Path
from typing import Any

from experiments.choices import flat
from lstm_jax import training


class Logger(training.Callback):
    """Logs the rows of metrics and, after the test, the report and the figures.

    Attributes:
      is_new: whether this run has not been logged before.
    """

    is_new = True

    def on_report(self, step: int, report: dict[str, Any], images: list[Path]):
        """Logs the test metrics and figures.

        Args:
          step: the last step.
          report: the test metrics of the task.
          images: PNG files of the figures.
        """


def measured(values: dict[str, Any]) -> dict[str, float]:
    """The floats of a row or a report, flattened: `{"macro/f1": 0.9}`."""
    return {
        name.replace(".", "/"): value
        for name, value in flat(values).items()
        if isinstance(value, float)
    }
