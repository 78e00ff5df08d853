"""How a configuration is made of a preset, changed and checked.

This file imports nothing heavy, so that `--help` is instant.
"""

import dataclasses
import difflib
import importlib.util
import json
import math
import os
import shlex
import types
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from experiments.errors import UsageError
from experiments.models import MODELS
from experiments.options import Config
from experiments.presets import PRESETS
from experiments.tasks import TASKS

_UNIONS = (Union, types.UnionType)


# An option, and what another has to be for it. Only such as no preset gives, since a
# preset's order=rows for a forecast is nobody's mistake.
_NEEDS = (
    ("optimizer.cycles", "optimizer.schedule", ("restarts",)),
    ("optimizer.patience", "optimizer.schedule", ("plateau",)),
    ("optimizer.nesterov", "optimizer.name", ("sgd", "adam", "adamw")),
    ("model.recurrent_init", "model.init", ("glorot", "he", "lecun")),
    ("model.forget_bias", "model.cell", ("lstm", "conv_lstm")),
    ("model.activation", "model.cell", ("rnn",)),
)


def preset(name: str) -> Config:
    """The configuration of that name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"unknown preset {name!r}.{hint} There are: {', '.join(PRESETS)}."
        )
    return PRESETS[name][1]


def override(config: Any, options: dict[str, Any], prefix: str = "") -> Any:
    """Replaces values by name: `{"steps": 5, "model.features": 32}`.

    `__` stands for the dot where it cannot be written: `model__features=32`.
    """
    for dotted, value in options.items():
        head, _, rest = dotted.replace("__", ".").partition(".")
        old = getattr(config, head, None)
        if head not in {f.name for f in dataclasses.fields(config)} or (
            rest and not dataclasses.is_dataclass(old)
        ):
            wrong = f"{prefix}{head}.{rest}" if rest else prefix + head
            raise UsageError(f"unknown option {wrong}{_near_option(wrong)}")
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif type(value).__module__ == "numpy" and not getattr(value, "shape", ()):
            value = value.item()  # JSON knows no NumPy scalars
        if rest:
            value = override(old, {rest: value}, f"{prefix}{head}.")
        elif dataclasses.is_dataclass(old) and isinstance(value, str):
            value = override(old, {"source": value})  # data="digits"
        elif dataclasses.is_dataclass(old) and isinstance(value, dict):
            value = override(old, value, f"{prefix}{head}.")
        config = dataclasses.replace(config, **{head: value})
    return config


def _near_option(wrong: str) -> str:
    """`; did you mean model.features?` for "features", or for "model.feature"."""
    names = list(flat(dataclasses.asdict(Config())))
    near = [name for name in names if name.rpartition(".")[2] == wrong]
    near = near or difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"size": 8}}` as `{"data.size": 8}`."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _check_kinds(values: Any, prefix: str = "") -> None:
    """What tyro does for the command line, for `train(...)` called as a function."""
    for name, hint in get_type_hints(type(values)).items():
        value, name = getattr(values, name), prefix + name
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, hint):
                raise UsageError(f"{name}={value!r}, but it wants {hint.__name__}")
            _check_kinds(value, f"{name}.")
            continue
        kinds = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
        words = [
            k for kind in kinds if get_origin(kind) is Literal for k in get_args(kind)
        ]
        kinds = [kind for kind in kinds if get_origin(kind) is not Literal]
        if value in words and isinstance(value, str):
            continue
        if words and (not kinds or isinstance(value, str)):
            near = difflib.get_close_matches(str(value), words, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            numbers = ["a number"] if float in kinds else []
            raise UsageError(
                f"{name}={value!r}, but it must be one of "
                f"{', '.join(numbers + words)}{hint}"
            )
        exact = type(value) in kinds or (type(value) is int and float in kinds)
        if not exact:
            words = ["None" if kind is type(None) else kind.__name__ for kind in kinds]
            raise UsageError(f"{name}={value!r}, but it must be {' or '.join(words)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name}={value}, but it must be finite")


def check(config: Config, searched: Collection[str] = ()) -> Config:
    """Refuses values that no run can have, and options that nothing would heed.

    Args:
      config: the values.
      searched: options whose value is one of many; others may be heeded by some.
    """
    _check_kinds(config)
    positive = {
        "batch_size": config.batch_size,
        "log_every": config.log_every,
        "accumulate": config.accumulate,
        "steps_per_dispatch": config.steps_per_dispatch,
        "model.features": config.model.features,
        "model.layers": config.model.layers,
        "model.patch": config.model.patch,
        "model.kernel": config.model.kernel,
        "model.boxes": config.model.boxes,
        "data.buckets": config.data.buckets,
        "task.horizon": config.task.horizon,
        "optimizer.cycles": config.optimizer.cycles,
        "optimizer.patience": config.optimizer.patience,
    }
    if config.eval_every is not None:
        positive["eval_every"] = config.eval_every
    if config.steps is not None:
        positive["steps"] = config.steps
    elif config.epochs is not None:
        positive["epochs"] = config.epochs
    else:
        raise UsageError("give epochs or steps: a run has to end")
    if config.data.size is not None:
        positive["data.size"] = config.data.size
    if config.data.limit is not None:
        if config.folds is not None:
            raise UsageError("data.limit and folds do not go together")
        positive["data.limit"] = config.data.limit
    if config.stop_after is not None:
        positive["stop_after"] = config.stop_after
    if config.model.tbptt_steps is not None:
        positive["model.tbptt_steps"] = config.model.tbptt_steps
    if config.data.frames is not None:
        positive["data.frames"] = config.data.frames
    for name, value in positive.items():
        if not value > 0:
            raise UsageError(f"{name}={value}, but it must be 1 or more")
    not_negative = {
        "seed": config.seed,
        "augment.shift": config.augment.shift,
        "augment.rotate": config.augment.rotate,
        "augment.cutout": config.augment.cutout,
        "augment.noise": config.augment.noise,
        "augment.warp": config.augment.warp,
        "augment.mixup": config.augment.mixup,
        "data.noise_rows": config.data.noise_rows,
        "optimizer.learning_rate": config.optimizer.learning_rate,
        "optimizer.warmup_steps": config.optimizer.warmup_steps,
        "optimizer.weight_decay": config.optimizer.weight_decay,
        "optimizer.clip": config.optimizer.clip or 0.0,
        "task.decoupling": config.task.decoupling,
        "task.dice": config.task.dice,
        "min_delta": config.min_delta,
        "task.beams": config.task.beams,
    }
    for name, value in not_negative.items():
        if value < 0:
            raise UsageError(f"{name}={value}, but it cannot be negative")
    fractions = {
        "model.dropout": config.model.dropout,
        "data.validation": config.data.validation,
        "optimizer.ema": config.optimizer.ema,
        "task.label_smoothing": config.task.label_smoothing,
    }
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise UsageError(f"{name}={value}, but it must be in [0, 1)")
    if not 0 <= config.augment.flip <= 1:
        raise UsageError(f"augment.flip={config.augment.flip}: a probability, 0 to 1")
    decay = config.optimizer.decay_rate
    if config.optimizer.schedule == "plateau" and not 0 < decay < 1:
        raise UsageError(
            f"optimizer.decay_rate={decay}, but on a plateau the rate has to fall: "
            "give more than 0 and less than 1"
        )
    if not 0 < config.augment.crop <= 1:
        raise UsageError(f"augment.crop={config.augment.crop}: a share, above 0, to 1")
    if config.augment.mixup and config.parallel == "pmap":
        raise UsageError(
            "augment.mixup pairs pictures of all devices, which --parallel=pmap keeps "
            "apart; use --parallel=jit"
        )
    _check_task(config)
    _check_heeded(config, searched)
    _check_folds(config)
    if config.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise UsageError(
            "tensorboard is asked for, but tensorboardX is not installed: "
            "pip install tensorboardX"
        )
    where = {
        "coordinator": config.coordinator,
        "processes": config.processes,
        "process_id": config.process_id,
    }
    given = [name for name, value in where.items() if value is not None]
    if given and not config.distributed:
        raise UsageError(f"{given[0]} is given without distributed")
    if given and len(given) < len(where):
        missing = next(name for name in where if name not in given)
        raise UsageError(f"{given[0]} is given without {missing}: give all three")
    return config


def _check_task(config: Config) -> None:
    """Refuses a network, a loss or augmentation that the task cannot have."""
    task, model = TASKS[config.task.name], MODELS[config.model.kind]
    if model.name not in task.models:
        fit = [name for name, other in TASKS.items() if model.name in other.models]
        raise UsageError(
            f"task.name={task.name} and model.kind={model.name} do not go together: "
            f"{task.name} wants {' or '.join(task.models)}, and {model.name} is for "
            f"{' or '.join(fit)}"
        )
    if config.task.loss not in task.losses:
        raise UsageError(f"task.loss={config.task.loss} is not for {task.name}")
    encoder = config.model.encoder
    if config.model.encoder_weights and not encoder.startswith("resnet"):
        raise UsageError(
            f"model.encoder_weights is given, but model.encoder={encoder}; use "
            "--model.encoder=resnet18, resnet34 or resnet50"
        )
    if config.data.normalize == "line" and not task.bucketed:
        raise UsageError(
            f"data.normalize=line is for lines of text, not for {task.name}"
        )
    _check_augmentation(config, task)
    task.check(config)


def _check_augmentation(config: Config, task) -> None:
    if config.augment.mixup and not task.mixes_targets:
        raise UsageError(
            f"augment.mixup mixes targets, which a {task.name} does not have"
        )
    if not task.moves_targets:
        return
    for option in ("shift", "rotate", "flip", "cutout", "mixup"):
        if value := getattr(config.augment, option):
            others = " and augment.warp" if "augment.warp" in task.options else ""
            raise UsageError(
                f"augment.{option}={value} would change the picture and leave its "
                f"{task.target_type}; use augment.noise{others}"
            )
    if config.augment.crop != 1:
        raise UsageError(f"augment.crop={config.augment.crop} is not for a {task.name}")


def _check_heeded(config: Config, searched: Collection[str]) -> None:
    """Refuses what was given though another option leaves it without effect."""
    values = flat(dataclasses.asdict(config))
    usual = flat(dataclasses.asdict(Config()))
    for name, other, wanted in (*_NEEDS, *_needs_of_kinds()):
        unheeded = values[name] != usual[name] and values[other] not in wanted
        if unheeded and other not in searched:
            raise UsageError(
                f"{name}={values[name]} has no effect with {other}={values[other]}; "
                f"leave it out, or use --{other}={' or '.join(wanted)}"
            )
    judges = config.stop_after is not None or config.optimizer.schedule == "plateau"
    judges |= "stop_after" in searched or "optimizer.schedule" in searched
    if config.min_delta and not judges:
        raise UsageError(
            f"min_delta={config.min_delta} has no effect without --stop-after or "
            "--optimizer.schedule=plateau"
        )


def _needs_of_kinds() -> list[tuple[str, str, tuple[str, ...]]]:
    """As `_NEEDS`: the options that some tasks and networks heed, and others do not."""
    found = []
    for flag, kinds in (("task.name", TASKS), ("model.kind", MODELS)):
        options = dict.fromkeys(o for kind in kinds.values() for o in kind.options)
        found += [
            (option, flag, tuple(n for n, k in kinds.items() if option in k.options))
            for option in options
        ]
    return found


def _check_folds(config: Config) -> None:
    folds, fold = config.folds, config.fold
    if folds is None:
        if fold is not None:
            raise UsageError(f"fold={fold} is given without folds, how many there are")
        return
    if folds < 2:
        raise UsageError(f"folds={folds}, but cross-validation wants 2 or more")
    if fold is not None and not 0 <= fold < folds:
        raise UsageError(
            f"fold={fold}, but the {folds} folds are numbered 0 to {folds - 1}"
        )
    if reason := TASKS[config.task.name].cross_validates:
        raise UsageError(reason)
    if config.distributed and fold is None:
        raise UsageError(
            f"folds={folds} are {folds} runs, of which distributed processes train one "
            "at a time: give --fold=0, then --fold=1, and so on"
        )


def train_line(name: str, config: Config) -> str:
    """The command line of `train` that makes this run."""
    usual, words = flat(dataclasses.asdict(preset(name))), []
    for key, value in flat(dataclasses.asdict(config)).items():
        if value == usual[key]:
            continue
        group, dot, flag = key.replace("_", "-").rpartition(".")
        if isinstance(value, bool):
            words.append(f"--{group}{dot}{'' if value else 'no-'}{flag}")
        else:
            words.append(f"--{group}{dot}{flag}={value}")
    return shlex.join(["python", "-m", "experiments.train", name, *words])


def from_dict(values: dict[str, Any]) -> Config:
    """The configuration that `dataclasses.asdict` turned into `values`."""
    return override(Config(), values)


def read_run(directory: Path) -> dict[str, Any] | None:
    """What `config.json` of a run holds: "preset", "config", "data"; None without it.

    Raises:
      UsageError: the file is damaged, or not that of a run.
    """
    path = Path(directory, "config.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict) or {"preset", "config", "data"} - values.keys():
        raise UsageError(f"{path} is not that of a run")
    return values


def peel(arguments: list[str]) -> tuple[str, Config, list[str]]:
    """`(preset name, its values, flags)` of `[PRESET] [--flags]`.

    The preset is peeled off first, wherever a bare word leads, so that flags work
    without one.

    Raises:
      UsageError: an unknown preset, or a flag without its group.
    """
    arguments = list(arguments)
    name = "digits"
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    base = preset(name)
    # `--data=photos` is short for `--data.source=photos`.
    known = {name.replace("_", "-") for name in flat(dataclasses.asdict(base))}
    for argument in arguments:
        flag = argument.partition("=")[0].removeprefix("--").replace("_", "-")
        full = [f"--{key}" for key in known if key.endswith(f".{flag}")]
        if argument.startswith("--") and full and flag not in known:
            if not _names_data(argument):
                raise UsageError(f"unknown option --{flag}; did you mean {full[0]}?")
    arguments = [
        "--data.source" + a.removeprefix("--data") if _names_data(a) else a
        for a in arguments
    ]
    return name, base, arguments


def listing() -> str:
    """The presets, one a line, for `--help`."""
    return "\n".join(f"  {key:<16}{line}" for key, (line, _) in PRESETS.items())


def parse(arguments: list[str]) -> tuple[str, Config]:
    """`[PRESET] [--flags]` of the command line, as `(preset name, Config)`."""
    import tyro

    name, base, arguments = peel(arguments)
    config = tyro.cli(
        Annotated[Config, tyro.conf.arg(name="")],
        args=arguments,
        default=base,
        prog="python -m experiments.train [PRESET]",
        description=f"Trains a recurrent network on images.\n\nPresets:\n{listing()}",
    )
    return name, check(config)


def _names_data(argument: str) -> bool:
    return argument == "--data" or argument.startswith("--data=")
