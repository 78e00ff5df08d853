"""The command line of `train` and `sweep`: a preset, then flags that change it.

This file imports nothing heavy, so that `--help` is instant.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

from experiments.choices import Choice, Option, options_of
from experiments.config import (
    Config,
    check,
    chooses,
    flag,
    negated,
    options,
    override,
    preset,
    unknown,
)
from experiments.errors import UsageError, check_once
from experiments.options import SECTIONS
from experiments.presets import PRESETS

SHORT = {"--data": "--data.source", "--lr": "--optimizer.learning-rate"}
WIDTH = 80  # columns of the help

# Names that other libraries use, and the option here; one name is enough if the last
# part of the option is the same or similar.
_ELSEWHERE = {
    "model.features": "hidden hidden_size hidden_dim hidden_units units width d_model",
    "model.layers": "num_layers n_layers depth",
    "model": "arch architecture network net",
    "model.cell": "rnn rnn_type cell_type",
    "batch_size": "batch bs batchsize train_batch_size per_device_train_batch_size",
    "epochs": "epoch num_epochs n_epochs max_epochs num_train_epochs nb_epoch",
    "steps": "max_steps iterations iters max_iters num_steps",
    "optimizer": "optim opt solver",
    "optimizer.learning_rate": "learningrate base_lr lr0 eta",
    "optimizer.schedule": "scheduler lr_scheduler lr_schedule sched",
    "optimizer.schedule.warmup_steps": "warmup warmup_steps num_warmup_steps",
    "optimizer.weight_decay": "wd l2 decay",
    "optimizer.clip": "grad_clip clip_grad clipnorm max_norm gradient_clip_val",
    "grad_accum_steps": "accumulate accumulate_grad_batches "
    "gradient_accumulation_steps",
    "early_stopping_patience": "patience early_stopping early_stop",
    "precision": "dtype",
    "precision=bfloat16": "amp fp16 bf16 half mixed_precision",
    "accelerator": "device",
    "accelerator=gpu": "gpu gpus cuda",
    "accelerator=tpu": "tpu",
    "accelerator=cpu": "cpu no_cuda",
    "init_from": "pretrained weights checkpoint ckpt load resume_from_checkpoint",
    "run_dir": "output output_dir out save_dir log_dir logdir resume",
    "data.source": "dataset data_dir data_path root train_dir",
    "data.size": "image_size img_size imgsz resize input_size",
    "data.validation": "validation_split val_split",
    "augment.rotate": "rotation rotation_range degrees",
    "augment.flip": "hflip horizontal_flip",
    "eval_every": "val_interval eval_interval eval_steps validation_freq",
    "log_every": "log_interval log_every_n_steps logging_steps print_freq",
    "seed": "random_seed random_state manual_seed",
    "task.beam_width": "beam beams beam_size num_beams",
}
_KNOWN_AS = {
    word: option for option, words in _ELSEWHERE.items() for word in words.split()
}


@dataclasses.dataclass(frozen=True)
class Actions:
    """What to do instead of training."""

    check_data: bool = False
    """Print what would be read, without training; exit code 1 if it cannot be
    trained on."""


def parse(arguments: list[str]) -> tuple[str, Config]:
    """`(preset name, Config)` of the arguments `[PRESET] [--flags]`."""
    return parse_command(arguments)[:2]


def parse_command(arguments: list[str]) -> tuple[str, Config, Actions]:
    """As `parse`, and what to do instead of training."""
    name, base, flags = begin(arguments)
    found, (actions,) = read(
        base,
        flags,
        Actions(),
        prog="python -m experiments.train [PRESET]",
        description="Train a recurrent network on images, video or lines of text.",
    )
    return name, check(found), actions


def begin(arguments: list[str]) -> tuple[str, Config, list[str]]:
    """`(preset name, configuration, flags)` of `[PRESET] [--flags]`.

    The first argument is the preset if it does not begin with "-"; the default is
    digits. Flags that choose a task, a model, a cell, an optimizer or a schedule are
    applied here, because they decide which other flags exist.

    Raises:
      UsageError: an unknown preset or choice.
    """
    arguments = list(arguments)
    name = "digits"
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    config, flags = preset(name), [*_full(arguments)]
    check_once([flag(option) for option, _, _ in pairs(flags)])
    return name, override(config, _choices(config, flags)), flags


def _full(arguments: Iterable[str]) -> Iterable[str]:
    """Arguments with short flags replaced by the long ones."""
    for argument in arguments:
        word, equals, value = argument.partition("=")
        yield SHORT.get(word, word) + equals + value


def pairs(flags: list[str]) -> list[tuple[str, str | None, int]]:
    """`(name of the option, its value or None, number of arguments)` of each flag."""
    found, at = [], 0
    while at < len(flags):
        word, equals, value = flags[at].partition("=")
        following = flags[at + 1] if at + 1 < len(flags) else "--"
        single = bool(equals) or following.startswith("--")
        name = word.removeprefix("--").replace("-", "_")
        if not equals:
            value = None if single else following
        found.append((name, value, 1 if single else 2))
        at += found[-1][2]
    return found


def _choices(config: Config, flags: list[str]) -> dict[str, str]:
    """Values of flags that choose a kind, including those of kinds chosen by others."""
    given = {name: value for name, value, _ in pairs(flags) if value is not None}
    chosen: dict[str, str] = {}
    while True:
        now = override(config, chosen)
        more = [
            option
            for option in options(now)
            if option.name in given.keys() - chosen.keys()
            and chooses(now, option.name)
            and "," not in given[option.name]  # these are searched
        ]
        if not more:
            return chosen
        chosen |= {option.name: given[option.name] for option in more}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def read(
    config: Config, flags: list[str], *more: Any, prog: str, description: str
) -> tuple[Config, tuple]:
    """Applies flags to a configuration; prints the help and exits for `--help`.

    Args:
      config: the defaults.
      flags: arguments without the preset.
      *more: instances of further dataclasses of options, such as those of a sweep.
      prog: name of the command, for the help.
      description: of the command, for the help.

    Returns:
      `(configuration, further options)`.

    Raises:
      UsageError: an unknown flag, or a value that it does not accept.
    """
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [--flag=value …]",
        description=f"{description}\n\nPresets:\n{listing()}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=26, width=WIDTH
        ),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    known = {option.name: option for option in options(config)}
    for part in more:
        known |= {option.name: option for option in options_of(part)}
        _add(parser, type(part), part, "", known)
    for section in SECTIONS:
        _add(parser, section, config, "", known)
    for group in ("task", "data", "augment", "model", "optimizer"):
        _add(parser, None, getattr(config, group), f"{group}.", known)
    found, rest = parser.parse_known_args(flags)
    for word in rest:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            raise UsageError(f"{word!r} is not a flag; flags begin with --")
        raise UsageError(_unknown(config, name, list(known)))
    values = {
        name: known[name]._replace(name=flag(name)).read(value)
        if isinstance(value, str)
        else value
        for name, value in vars(found).items()
    }
    parts = []
    for part in more:
        own = {field.name for field in dataclasses.fields(part)} & values.keys()
        parts.append(
            dataclasses.replace(part, **{name: values.pop(name) for name in own})
        )
    return override(config, values), tuple(parts)


def _unknown(config: Config, name: str, known: list[str]) -> str:
    """The error message for an unknown flag, with the flag that was probably meant."""
    near = _KNOWN_AS.get(name.rpartition(".")[2], "")
    if near and near.partition("=")[0] not in known:
        return f"unknown option {flag(name)}"
    ends: dict[str, str] = {}
    for option in known:
        ends.setdefault(option.rpartition(".")[2], option)
    if not near and "." not in name and name not in ends:
        similar = difflib.get_close_matches(name, ends, n=1, cutoff=0.75)
        near = ends[similar[0]] if similar else ""
    if near:
        return f"unknown option {flag(name)}; did you mean {flag(near)}?"
    return unknown(config, name, flag)


def _add(parser, section: type | None, part: Any, prefix: str, known: dict) -> None:
    """Adds a group of flags to the help, then the groups nested in it."""
    kind = section or type(part)
    title = prefix.removesuffix(".") or kind.__name__.lower()
    if isinstance(part, Choice):
        title += f"={part.name}"
    group = parser.add_argument_group(title, inspect.getdoc(kind))
    if isinstance(part, Choice) and prefix.count(".") == 1:
        _add_flag(group, known[title.partition("=")[0]], "")
    texts, parts = _docstrings(kind), []
    groups = dict.fromkeys((field.name for field in dataclasses.fields(kind)), group)
    for name, names in getattr(kind, "help_groups", {}).items():
        groups |= dict.fromkeys(names, parser.add_argument_group(f"{title} ({name})"))
    for field in dataclasses.fields(kind):
        value = getattr(part, field.name)
        option = known[prefix + field.name]
        _add_flag(groups[field.name], option, texts.get(field.name, ""))
        if dataclasses.is_dataclass(value) and dataclasses.fields(value):
            parts.append((value, f"{prefix}{field.name}."))
    for value, name in parts:
        _add(parser, None, value, name, known)


def _add_flag(group, option: Option, text: str) -> None:
    names = [t.__name__.upper() for t in option.types if t is not type(None)]
    words = f"{{{','.join(option.words)}}}" if option.words else ""
    metavar = "|".join([*names, *([words] if words else [])])
    if len(f"  {flag(option.name)} {metavar}") > WIDTH:
        metavar = option.name.rpartition(".")[2].upper()
        text = f"{text} One of {', '.join(option.words)}.".strip()
    if option.value not in (None, False, ""):
        text = f"{text} (default: {option.value})".strip()
    where = dict(dest=option.name, help=text.replace("%", "%%"))
    if option.types == (bool,):
        switch = flag(option.name)
        group.add_argument(switch, action="store_true", **where)
        off = f"Turn {switch} off." if option.value else argparse.SUPPRESS
        where["help"] = off
        group.add_argument(negated(switch), action="store_false", **where)
        return
    short = [word for word, long in SHORT.items() if long == flag(option.name)]
    group.add_argument(*short, flag(option.name), metavar=metavar, **where)


def _docstrings(kind: type) -> dict[str, str]:
    """The docstring of each field of a dataclass, inherited fields included."""
    found = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for field, string in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(string, ast.Expr):
                words = string.value.value.split()
                found[field.target.id] = " ".join(words)
    return found


def listing() -> str:
    """The presets with their descriptions, one per line, for `--help`."""
    return "\n".join(f"  {key:<22}{line}" for key, (line, _) in PRESETS.items())
