"""How a configuration is made of a preset, changed and checked.

This file imports nothing heavy, so that `--help` is instant.
"""

import dataclasses
import difflib
import importlib.util
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.choices import Choice, Option, converted, flat, options_of, to_dict
from experiments.errors import UsageError
from experiments.models import MODELS
from experiments.options import Config, Plateau
from experiments.presets import PRESETS
from experiments.run.sealed import FORMAT, read_sealed
from experiments.spec import read_spec
from experiments.tasks import TASKS, task_kind

# What a logger needs.
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def preset(name: str) -> Config:
    """The configuration of that name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"unknown preset {name!r}.{hint} There are: {', '.join(PRESETS)}."
        )
    return PRESETS[name][1]


def blank(task: str, model: str) -> Config:
    """The configuration with the defaults of a task and a model."""
    kind = TASKS[task]
    return Config(
        task=kind.options(),
        data=kind.data(),
        augment=kind.augment(),
        model=MODELS[model].options(),
    )


def override(config: Config, options: dict[str, Any]) -> Config:
    """Replaces values by name: `{"steps": 5, "model.features": 32}`.

    `__` stands for the dot where it cannot be written: `model__features=32`. A name
    chooses the kind of a task, a model, a cell, an optimizer or a schedule:
    `{"model": "unet"}`. Such choices are made first; what the old and the new kind
    both have keeps its value.
    """
    found = flat({key.replace("__", "."): value for key, value in options.items()})
    for name, value in sorted(found.items(), key=lambda item: _rank(item[0])):
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif type(value).__module__ == "numpy" and not getattr(value, "shape", ()):
            value = value.item()  # JSON knows no NumPy scalars
        name = name.removesuffix(".name")
        config = _replaced(config, config, name.split("."), value, name)
        if name == "task":
            config = _for_task(config)
    return config


def _rank(name: str) -> tuple[int, int]:
    """Task before model before all else; what holds others before them."""
    head, *rest = name.removesuffix(".name").split(".")
    first = {"task": 0, "model": 1}.get(head, 2) if not rest else 2
    return first, len(rest)


def _replaced(config: Config, part: Any, path: list[str], value: Any, name: str):
    """`part`, a dataclass of a configuration, with one value of another."""
    head, *rest = path
    old = getattr(part, head, None)
    known = head in {field.name for field in dataclasses.fields(part)}
    if not known or (rest and not dataclasses.is_dataclass(old)):
        raise UsageError(unknown(config, name))
    if rest:
        value = _replaced(config, old, rest, value, name)
    elif isinstance(old, Choice) and isinstance(value, str):
        value = converted(old, _kind(config, name, old, value))
    elif dataclasses.is_dataclass(old) and isinstance(value, str):
        value = dataclasses.replace(old, source=value)  # data="digits"
    elif dataclasses.is_dataclass(old) and not dataclasses.is_dataclass(value):
        raise UsageError(f"{name}={value!r}, expected a group of options")
    return dataclasses.replace(part, **{head: value})


def _kind(config: Config, name: str, old: Choice, word: str) -> type[Choice]:
    words = _words(config, name, old)
    if word in old.kinds and word not in words:
        fit = [task for task, kind in TASKS.items() if word in kind.models]
        raise UsageError(
            f"--model={word} is for {' or '.join(fit)}; "
            f"{config.task.name} has {' and '.join(words)}"
        )
    if word not in words:
        wanted = Option(name, word, words=words).wanted(word)
        raise UsageError(f"{flag(name)}={word!r}, but {wanted}")
    return old.kinds[word]


def _words(config: Config, name: str, value: Choice) -> tuple[str, ...]:
    """What may be chosen: of models those that can learn the task."""
    return task_kind(config).models if name == "model" else tuple(value.kinds)


def _for_task(config: Config) -> Config:
    """With the data options, augmentation and, if it must be, the model of its task."""
    kind = task_kind(config)
    model = config.model
    if model.name not in kind.models:
        model = converted(model, MODELS[kind.models[0]].options)
    return dataclasses.replace(
        config,
        data=converted(config.data, kind.data),
        augment=converted(config.augment, kind.augment),
        model=model,
    )


def options(config: Config) -> Iterator[Option]:
    """All options of a configuration: those that have an effect on it."""
    for option in options_of(config):
        if option.name == "model":
            option = option._replace(words=_words(config, "model", config.model))
        yield option


def unknown(config: Config, name: str, spelled: Callable[[str], str] = str) -> str:
    """That there is no such option: which other choice has it, or a name near it.

    Args:
      config: that has no such option.
      name: of the option, with underscores.
      spelled: how names are written in the message.
    """
    for choice, fits in _owners(config, name):
        return (
            f"{spelled(name)} is an option of {spelled(choice)}={' or '.join(fits)}, "
            f"not of {_at(config, choice).name}"
        )
    names = [option.name for option in options(config)]
    near = [other for other in names if other.rpartition(".")[2] == name]
    near = near or difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {' or '.join(map(spelled, near))}?" if near else ""
    return f"unknown option {spelled(name)}{hint}"


def flag(name: str) -> str:
    """The flag of an option: `--model.kernel-size` of "model.kernel_size"."""
    return "--" + name.replace("_", "-")


def _owners(config: Config, name: str) -> Iterator[tuple[str, list[str]]]:
    """Choices with other kinds that have the option."""
    group, _, last = name.rpartition(".")

    def has(kind: type) -> bool:
        return last in {field.name for field in dataclasses.fields(kind)}

    part = _at(config, group)
    if isinstance(part, Choice):
        fits = [word for word, kind in part.kinds.items() if has(kind)]
        if fits:
            yield group, fits
    if group in ("data", "augment"):
        fits = [task for task, kind in TASKS.items() if has(getattr(kind, group))]
        if fits:
            yield "task", fits


def chooses(config: Config, name: str) -> bool:
    """Whether an option of this name chooses a kind."""
    return isinstance(_at(config, name), Choice)


def _at(config: Any, path: str) -> Any:
    for head in path.split(".") if path else ():
        config = getattr(config, head, None)
    return config


def check(config: Config) -> Config:
    """Refuses values that no run can have."""
    for option in options(config):
        option.check()
    task_kind(config).check_options(config.task)
    if config.steps is None and config.epochs is None:
        raise UsageError("give epochs or steps: a run has to end")
    if config.data.limit is not None and config.folds is not None:
        raise UsageError("data.limit and folds do not go together")
    stops = config.early_stopping_patience is not None
    if config.min_delta and not stops:
        raise UsageError(
            f"min_delta={config.min_delta} is given without early_stopping_patience"
        )
    schedule = config.optimizer.schedule
    if isinstance(schedule, Plateau) and not schedule.decay_rate:
        raise UsageError("optimizer.schedule.decay_rate=0.0, but it must be more")
    mixing = [name for name in ("mixup", "cutmix") if getattr(config.augment, name)]
    if mixing and config.parallel == "pmap":
        raise UsageError(
            f"augment.{mixing[0]} pairs images of all devices, which "
            "--parallel=pmap keeps apart; use --parallel=jit"
        )
    _check_folds(config)
    for flag, package in _PACKAGES.items():
        if getattr(config, flag) and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"{flag} is asked for, but {package} is not installed: "
                f"pip install {package}"
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
    if reason := task_kind(config).cross_validates:
        raise UsageError(reason)
    if config.distributed and fold is None:
        raise UsageError(
            f"folds={folds} are {folds} runs, of which distributed processes train one "
            "at a time: give --fold=0, then --fold=1, and so on"
        )


def train_line(name: str, config: Config) -> str:
    """The command line of `train` that makes this run."""
    values = flat(to_dict(config))
    choices = {key: word for key, word in values.items() if key.endswith(".name")}
    words, usual = [], flat(to_dict(preset(name)))
    chosen = [key for key, word in choices.items() if usual.get(key) != word]
    usual = flat(to_dict(override(preset(name), choices)))
    for key, value in values.items():
        if key in choices:
            if key in chosen:
                words.append(f"{flag(key.removesuffix('.name'))}={value}")
        elif value != usual[key]:
            if isinstance(value, bool):
                words.append(flag(key) if value else negated(flag(key)))
            else:
                words.append(f"{flag(key)}={value}")
    return shlex.join(["python", "-m", "experiments.train", name, *words])


def negated(flag: str) -> str:
    """The flag that switches another off: `--model.no-bidirectional`."""
    head, dot, last = flag.removeprefix("--").rpartition(".")
    return f"--{head}{dot}no-{last}"


def from_dict(values: Any, where: Any, strict: bool = True) -> Config:
    """The configuration that `to_dict` turned into `values`.

    Args:
      values: the nested dict.
      where: the file that it comes from, for messages.
      strict: every option has to be there; else only those of the task and the model,
        on which predictions depend.

    Raises:
      UsageError: an option is missing, unknown or out of range.
    """
    try:
        base = blank(values["task"]["name"], values["model"]["name"])
        config = override(base, values)
        for option in options(config):
            option.check()
    except UsageError as error:
        raise UsageError(f"{where} (format {FORMAT}): {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{where} (format {FORMAT}) does not name its task and its model: it is of "
            "another version of lstm_jax; train again"
        ) from None
    missing = flat(to_dict(config)).keys() - flat(values).keys()
    if not strict:
        missing = {key for key in missing if key.startswith(("model.", "task."))}
    if missing:
        raise UsageError(
            f"{where} (format {FORMAT}) has no {', '.join(sorted(missing))}, which "
            "this version of lstm_jax needs: use the one that wrote it, or train again"
        )
    return config


def read_run(directory: Path) -> dict[str, Any] | None:
    """What `config.json` of a run holds: "preset", "config", "data"; None without it.

    Raises:
      UsageError: the file is damaged, from another version, or not from a run.
    """
    path = Path(directory, "config.json")
    values = read_sealed(path)
    return values if values is None else check_run(values, path)


def check_run(values: Any, where: Any, strict: bool = True) -> dict[str, Any]:
    """What a run was, if it can be made again of it.

    Args:
      values: "preset", "config" and "data".
      where: the file that it comes from, for messages.
      strict: as of `from_dict`.

    Raises:
      UsageError: a key is missing, unknown, or has a value of another kind.
    """
    if not isinstance(values, dict) or {"config", "data"} - values.keys():
        raise UsageError(f"{where} is not from a run")
    from_dict(values["config"], where, strict)
    read_spec(values["data"], f"{where} (format {FORMAT})")
    return values
