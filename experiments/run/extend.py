"""Checks whether a run can be extended by more steps.

That is possible where the steps before do not depend on the total number of steps.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import Config, from_dict
from experiments.errors import UsageError
from experiments.options import Constant, Plateau

if TYPE_CHECKING:
    from experiments.experiment import Experiment

LENGTH = {"steps", "epochs"}


def check_extends(old: dict[str, Any], config: Config, where: Path) -> None:
    """Raises if training steps depend on the length of the run, which has changed.

    Args:
      old: the configuration of the run, flat.
      config: the configuration of the command; only its length differs.
      where: the folder of the run, for messages.

    Raises:
      UsageError: the schedule or scheduled sampling depends on the length, or the run
        would be shorter.
    """
    schedule = config.optimizer.schedule
    if not isinstance(schedule, Constant | Plateau):
        raise UsageError(_refusal(where, old, f"the {schedule.name} schedule"))
    if getattr(config.model, "scheduled_sampling", "none") != "none":
        raise UsageError(_refusal(where, old, "scheduled sampling"))
    steps = old.get("steps")
    if config.steps and steps and config.steps < steps:
        raise UsageError(
            f"{where} holds a run of {steps:,} steps, more than {config.steps:,}: "
            "train again with --overwrite, or give another --run-dir"
        )


def extension(saved: dict[str, Any], experiment: "Experiment", where: Path) -> str:
    """The message for a run whose length has changed; "" if it has not.

    Args:
      saved: the configuration in its checkpoint.
      experiment: the resumed run.
      where: the folder of the run, for messages.

    Raises:
      UsageError: the steps before would have been different, or the run is shorter.
    """
    from experiments.choices import flat
    from experiments.experiment import length

    old, config = from_dict(saved, where), experiment.config
    (was, every), steps = length(old, len(experiment.split.inputs)), experiment.steps
    if was == steps:
        return ""
    if steps < was:
        raise UsageError(
            f"{where} holds a run of {was:,} steps, more than {steps:,}. Train again "
            "with --overwrite, or give another --run-dir"
        )
    schedule = config.optimizer.schedule
    if schedule.warmup_steps > was // 2:
        what = f"the warm-up, which was shortened to fit {was:,} steps,"
        raise UsageError(_refusal(where, flat(saved), what))
    waits = isinstance(schedule, Plateau) or config.early_stopping_patience is not None
    if waits and every != experiment.eval_every:
        raise UsageError(
            f"{where} was validated every {every:,} steps; with {steps:,} steps it "
            f"would be every {experiment.eval_every:,}: give --eval-every={every}"
        )
    rate = config.optimizer.learning_rate
    return (
        f"extended from {was:,} to {steps:,} steps: the {schedule.name} schedule "
        f"continues, with a highest learning rate of {rate:g}"
    )


def _refusal(where: Path, old: dict[str, Any], what: str) -> str:
    steps = f"{old['steps']:,} steps" if old.get("steps") else f"{old['epochs']} epochs"
    return (
        f"{where} holds a run of {steps}, and {what} depends on that length, so it "
        "cannot be extended. To train its weights further, give "
        f"--init-from={where} and another --run-dir; or train again with --overwrite"
    )
