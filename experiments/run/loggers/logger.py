"""What loggers have in common."""

from pathlib import Path
from typing import Any

from experiments.choices import flat
from lstm_jax import training


class Logger(training.Callback):
    """Takes the rows of a run and, at its end, the report and the figures.

    Attributes:
      is_new: whether no earlier process has logged this run.
    """

    is_new = True

    def on_report(self, step: int, report: dict[str, Any], pictures: list[Path]):
        """Takes what the test at the end says.

        Args:
          step: the last.
          report: of the task.
          pictures: PNG files.
        """


def measured(values: dict[str, Any]) -> dict[str, float]:
    """The measured numbers of a row or a report: `{"macro/f1": 0.9}`."""
    return {
        name.replace(".", "/"): value
        for name, value in flat(values).items()
        if isinstance(value, float)
    }
