"""More steps for a run, where what comes before them stays the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import Config, from_dict
from experiments.errors import UsageError
from experiments.options import Constant, Plateau

if TYPE_CHECKING:
    from experiments.experiment import Experiment

LENGTH = {"steps", "epochs"}


def check_extends(old: dict[str, Any], config: Config, where: Path) -> None:
    """Refuses another length where a step depends on how many there are.

    Args:
      old: the configuration of the run, flat.
      config: of the command; only its length differs.
      where: the folder of the run, for messages.

    Raises:
      UsageError: it names what depends on the length, and `--init-from`.
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
            "start again with --overwrite, or give another --run-dir"
        )


def extension(saved: dict[str, Any], experiment: "Experiment", where: Path) -> str:
    """What to say of a run whose length has changed; empty if it has not.

    Args:
      saved: the configuration of its checkpoint.
      experiment: of the resumed run.
      where: the folder of the run, for messages.

    Raises:
      UsageError: the steps before would have been others, or it is shorter.
    """
    from experiments.choices import flat
    from experiments.experiment import length

    old, config = from_dict(saved, where), experiment.config
    (was, every), steps = length(old, len(experiment.split.inputs)), experiment.steps
    if was == steps:
        return ""
    if steps < was:
        raise UsageError(
            f"{where} holds a run of {was:,} steps, more than {steps:,}. Start again "
            "with --overwrite, or give another --run-dir"
        )
    schedule = config.optimizer.schedule
    if schedule.warmup_steps > was // 2:
        what = f"the warm-up, which {was:,} steps cut short,"
        raise UsageError(_refusal(where, flat(saved), what))
    waits = isinstance(schedule, Plateau) or config.early_stopping_patience is not None
    if waits and every != experiment.eval_every:
        raise UsageError(
            f"{where} was validated every {every:,} steps, which {steps:,} steps would "
            f"make {experiment.eval_every:,}: give --eval-every={every}"
        )
    rate = config.optimizer.learning_rate
    return (
        f"extended from {was:,} to {steps:,} steps: the {schedule.name} schedule goes "
        f"on, its highest learning rate {rate:g}"
    )


def _refusal(where: Path, old: dict[str, Any], what: str) -> str:
    steps = f"{old['steps']:,} steps" if old.get("steps") else f"{old['epochs']} epochs"
    return (
        f"{where} holds a run of {steps}, and {what} depends on that length, so that "
        "another length is another run. To train its weights further give "
        f"--init-from={where} and another --run-dir; or start again with --overwrite"
    )
