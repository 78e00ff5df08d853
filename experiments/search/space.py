"""What a sweep searches: flags of `train` whose value is a range or a list.

    --optimizer.learning-rate=1e-4..1e-2    a range, both ends included
    --optimizer.weight-decay=1e-5..1e-1     rates and decays are drawn on a log scale
    --model.features=16..256:log            any other on request; :linear takes it back
    --model.layers=1..3                     whole numbers, where the flag takes them
    --model.cell=lstm,gru                   a list; of numbers, names or True,False

Texts (folders, data sets, patterns) are never searched: `..` is part of a path.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Sequence
from typing import (
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from experiments.config import Config, check, override
from experiments.errors import UsageError

# Drawn on a log scale unless told otherwise: what matters of them is the magnitude.
_LOG = ("optimizer.learning_rate", "optimizer.weight_decay")
_SCALES = ("log", "linear")
# Of a run, not of what it learns; a trial has a folder of its own.
_UNSEARCHED = ("run_dir", "overwrite", "baselines", "profile", "distributed")


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool
    whole: bool

    def __str__(self):
        return f"{self.low}..{self.high}" + (":log" if self.log else "")

    def ends(self) -> tuple:
        return self.low, self.high

    def rounded(self, drawn: float) -> float:
        """Four digits of a drawn number: what is trained with, and can be typed."""
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.4g}"), self.low), self.high)


class Choices(NamedTuple):
    """One of some values, in no order."""

    values: tuple

    def __str__(self):
        return ",".join(map(str, self.values))

    def ends(self) -> tuple:
        return self.values

    def rounded(self, drawn: Any) -> Any:
        return drawn


Space = dict[str, Range | Choices]


def split_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`(searched values by name, the other arguments)` of a command line."""
    kinds, searched, others = _kinds(), {}, []
    arguments = list(arguments)
    while arguments:
        argument = arguments.pop(0)
        flag, equals, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in kinds:
            others.append(argument)
            continue
        if not equals and arguments and not arguments[0].startswith("--"):
            value = arguments[0]
        if _is_searched(kinds[name], value):
            searched[name] = value
            if not equals:
                arguments.pop(0)
        else:
            others.append(argument)
    return searched, others


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of `sweep(..., model__features=[32, 64])`, with lists as well."""
    kinds, searched, fixed = _kinds(), {}, {}
    for name, value in options.items():
        name = name.replace("__", ".")
        listed = isinstance(value, list | tuple)
        if name in kinds and (listed or _is_searched(kinds[name], value)):
            searched[name] = value
        else:
            fixed[name] = value
    return searched, fixed


def read(config: Config, searched: dict[str, Any]) -> tuple[Config, Space]:
    """Understands ranges and lists, and tries each of their values in a config.

    Args:
      config: the values that stay; not yet checked.
      searched: by name, texts such as "1e-4..1e-2" and "32,64", or lists.

    Returns:
      `(config, space)`; the config has the first value of each.

    Raises:
      UsageError: a text that cannot be understood, a value that no run can have.
    """
    kinds = _kinds()
    space = {name: _read(name, text, kinds[name]) for name, text in searched.items()}
    config = check(
        override(config, {name: s.ends()[0] for name, s in space.items()}), space
    )
    for name, searching in space.items():
        if name in _UNSEARCHED:
            raise UsageError(f"{name} is of a run, not of what it learns; give it once")
        for value in searching.ends():
            check(override(config, {name: value}), space)
    if "epochs" in space and config.steps is not None:
        raise UsageError(
            f"epochs are searched, but steps={config.steps} overrides them; add "
            "--steps=None"
        )
    return config, space


def _kinds(kind: type = Config, prefix: str = "") -> dict[str, tuple]:
    """What each flag may hold, by its dotted name: types, and names of a Literal."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= _kinds(hint, f"{prefix}{name}.")
        else:
            union = get_origin(hint) in (types.UnionType, Union)
            parts = get_args(hint) if union else (hint,)
            found[prefix + name] = tuple(
                one
                for part in parts
                for one in (get_args(part) if get_origin(part) is Literal else (part,))
            )
    return found


def _is_searched(kinds: tuple, value: Any) -> bool:
    if not isinstance(value, str) or str in kinds:
        return False
    return "," in value or ".." in value


def _read(name: str, value: Any, kinds: tuple) -> Range | Choices:
    if isinstance(value, str) and ".." in value:
        return _range(name, value, kinds)
    if isinstance(value, str):
        value = [_value(name, word.strip(), kinds) for word in value.split(",")]
    values = tuple(dict.fromkeys(value))
    if len(values) < 2:
        raise UsageError(f"{name}={list(values)} leaves nothing to choose from")
    return Choices(values)


def _range(name: str, text: str, kinds: tuple) -> Range:
    ends, colon, scale = text.partition(":")
    if colon and scale not in _SCALES:
        near = difflib.get_close_matches(scale, _SCALES, n=1)
        hint = f"; did you mean :{near[0]}?" if near else ""
        raise UsageError(f"{name}={text}: a range ends in :log or :linear{hint}")
    whole = int in kinds
    if not whole and float not in kinds:
        names = ",".join(str(k) for k in kinds if isinstance(k, str)) or "True,False"
        raise UsageError(f"{name}={text}: it takes no range, but a list, as {names}")
    low, _, high = ends.partition("..")
    try:
        low, high = ((int if whole else float)(end) for end in (low, high))
    except ValueError:
        number = "whole number" if whole else "number"
        raise UsageError(
            f"{name}={text}: a range is LOW..HIGH, and each end a {number}"
        ) from None
    log = scale == "log" if colon else name in _LOG
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{name}={text}: a range goes from the lower to the higher")
    if log and low <= 0:
        raise UsageError(
            f"{name}={text}: a log scale starts above 0; raise the lower end, or add "
            ":linear"
        )
    return Range(low, high, log, whole)


def _value(name: str, word: str, kinds: tuple) -> Any:
    """One word of a list as what its flag takes."""
    if word == "None" and type(None) in kinds or word in kinds:
        return None if word == "None" else word
    if bool in kinds and word.lower() in ("true", "false"):
        return word.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(word)
            except ValueError:
                continue
    names = [k for k in kinds if isinstance(k, str)]
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    wanted = names + [k.__name__ for k in kinds if isinstance(k, type)]
    raise UsageError(f"{name}: {word!r} is none of {', '.join(wanted)}{hint}")
