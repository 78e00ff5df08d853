"""The flags of `train` and `sweep`: a preset, then values that replace its own.

This file imports nothing heavy, so that `--help` is instant.
"""

import argparse
import ast
import dataclasses
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
from experiments.errors import UsageError
from experiments.options import SECTIONS
from experiments.presets import PRESETS

SHORT = {"--data": "--data.source", "--lr": "--optimizer.learning-rate"}


def parse(arguments: list[str]) -> tuple[str, Config]:
    """`[PRESET] [--flags]` of the command line, as `(preset name, Config)`."""
    name, base, flags = begin(arguments)
    found, _ = read(
        base,
        flags,
        prog="python -m experiments.train [PRESET]",
        description="Trains a recurrent network on images.",
    )
    return name, check(found)


def begin(arguments: list[str]) -> tuple[str, Config, list[str]]:
    """`(preset name, configuration, flags)` of `[PRESET] [--flags]`.

    The preset is taken off first, wherever a bare word leads, so that flags work
    without one. Then the choices are made that decide which other flags there are.

    Raises:
      UsageError: an unknown preset or choice.
    """
    arguments = list(arguments)
    name = "digits"
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    config, flags = preset(name), [*_full(arguments)]
    return name, override(config, _choices(config, flags)), flags


def _full(arguments: Iterable[str]) -> Iterable[str]:
    """Arguments with short flags as what they are short for."""
    for argument in arguments:
        word, equals, value = argument.partition("=")
        yield SHORT.get(word, word) + equals + value


def pairs(flags: list[str]) -> list[tuple[str, str | None, int]]:
    """`(name of the option, its value or None, arguments that these are)`."""
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
    """Values of the flags that choose a kind, of the kinds chosen by others too."""
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
    """`(configuration, further options)` with the values of flags.

    Args:
      config: the values that stay.
      flags: without the preset.
      *more: dataclasses of options that are not of a run.
      prog, description: for `--help`.

    Raises:
      UsageError: an unknown flag, or a value that it does not take.
    """
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [--flag=value …]",
        description=f"{description}\n\nPresets:\n{listing()}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=26, width=80
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
            raise UsageError(f"{word!r} is no flag; flags begin with --")
        raise UsageError(unknown(config, name, flag))
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


def _add(parser, section: type | None, part: Any, prefix: str, known: dict) -> None:
    """A group of flags, and after it those of its parts."""
    kind = section or type(part)
    title = prefix.removesuffix(".") or kind.__name__.lower()
    if isinstance(part, Choice):
        title += f"={part.name}"
    group = parser.add_argument_group(title, inspect.getdoc(kind))
    if isinstance(part, Choice) and prefix.count(".") == 1:
        _add_flag(group, known[title.partition("=")[0]], "")
    said, parts = _docstrings(kind), []
    for field in dataclasses.fields(kind):
        value = getattr(part, field.name)
        option = known[prefix + field.name]
        _add_flag(group, option, said.get(field.name, ""))
        if dataclasses.is_dataclass(value) and dataclasses.fields(value):
            parts.append((value, f"{prefix}{field.name}."))
    for value, name in parts:
        _add(parser, None, value, name, known)


def _add_flag(group, option: Option, said: str) -> None:
    if option.value not in (None, False, ""):
        said = f"{said} (default: {option.value})".strip()
    where = dict(dest=option.name, help=said.replace("%", "%%"))
    if option.types == (bool,):
        switch = flag(option.name)
        group.add_argument(switch, action="store_true", **where)
        where["help"] = "The opposite." if option.value else argparse.SUPPRESS
        group.add_argument(negated(switch), action="store_false", **where)
        return
    names = [t.__name__.upper() for t in option.types if t is not type(None)]
    words = f"{{{','.join(option.words)}}}" if option.words else ""
    metavar = "|".join([*names, *([words] if words else [])])
    group.add_argument(flag(option.name), metavar=metavar, **where)


def _docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, its bases' included."""
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
    """The presets, one a line, for `--help`."""
    return "\n".join(f"  {key:<22}{line}" for key, (line, _) in PRESETS.items())
