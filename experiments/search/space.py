"""What a sweep searches: flags of `train` whose value is a range or a list.

    --optimizer.learning-rate=1e-4..1e-2    a range, both ends included
    --optimizer.weight-decay=1e-5..1e-1     rates and decays are drawn on a log scale
    --model.features=16..256:log            any other on request; :linear takes it back
    --model.layers=1..3                     whole numbers, where the flag takes them
    --model.cell=lstm,gru                   a list; of numbers, names or True,False

Texts (folders, data sets, patterns) are never searched: `..` is part of a path.
"""

import difflib
import math
from typing import Any, NamedTuple

from experiments.choices import Option
from experiments.config import Config, check, chooses, options, override, unknown
from experiments.errors import UsageError
from experiments.flags import pairs

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


def split(config: Config, options: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """A configuration with the values of options, and those that are searched.

    Args:
      config: of a preset.
      options: by name; a range in words, "8..32", or a list is searched.
    """
    options = {name.replace("__", "."): value for name, value in options.items()}
    searched = {name: v for name, v in options.items() if _may_be_searched(v)}
    fixed = {name: v for name, v in options.items() if name not in searched}
    config = override(config, fixed)
    known = _options(config, searched)
    texts = {name: v for name, v in searched.items() if not is_searched(known, name, v)}
    return override(config, texts), {n: searched[n] for n in searched if n not in texts}


def split_flags(config: Config, flags: list[str]) -> tuple[dict[str, str], list[str]]:
    """`(searched values by name, the other flags)` of a command line."""
    given = pairs(flags)
    maybe = {name: value for name, value, _ in given if _may_be_searched(value)}
    known = _options(config, maybe)
    searched, others, at = {}, [], 0
    for name, value, count in given:
        if is_searched(known, name, value):
            searched[name] = value
        else:
            others += flags[at : at + count]
        at += count
    return searched, others


def _may_be_searched(value: Any) -> bool:
    if isinstance(value, str):
        return "," in value or ".." in value
    return isinstance(value, list | tuple)


def is_searched(known: dict[str, Option], name: str, value: Any) -> bool:
    """Whether a value is a range or a list, and not a text with such characters."""
    if name not in known or not _may_be_searched(value):
        return False
    return not (isinstance(value, str) and str in known[name].types)


def _options(config: Config, searched: dict[str, Any]) -> dict[str, Option]:
    """Options by name, those of the other kinds that are searched included."""
    known = {option.name: option for option in options(config)}
    for name in list(known):
        value = searched.get(name, ())
        if not chooses(config, name) or ".." in value:
            continue
        for word in value.split(",") if isinstance(value, str) else value:
            other = override(config, {name: str(word).strip()})
            known = {option.name: option for option in options(other)} | known
    return known


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """A configuration with drawn values; one that its kinds do not have is left out."""
    chosen = {name: v for name, v in values.items() if chooses(config, name)}
    config = override(config, chosen)
    known = {option.name for option in options(config)}
    return override(config, {n: v for n, v in values.items() if n in known})


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
    known = _options(config, searched)
    for name in searched:
        if name not in known:
            raise UsageError(unknown(config, name))
    space = {name: _read(name, text, known[name]) for name, text in searched.items()}
    first = {name: s.ends()[0] for name, s in space.items()}
    config = check(with_values(config, first))
    for name, searching in space.items():
        if name in _UNSEARCHED:
            raise UsageError(f"{name} is of a run, not of what it learns; give it once")
        for value in searching.ends():
            check(with_values(config, first | {name: value}))
    if "epochs" in space and config.steps is not None:
        raise UsageError(
            f"epochs are searched, but steps={config.steps} overrides them; add "
            "--steps=None"
        )
    return config, space


def _read(name: str, value: Any, option: Option) -> Range | Choices:
    if isinstance(value, str) and ".." in value:
        return _range(name, value, option)
    if isinstance(value, str):
        value = [option.read(word.strip()) for word in value.split(",")]
    values = tuple(dict.fromkeys(value))
    if len(values) < 2:
        raise UsageError(f"{name}={list(values)} leaves nothing to choose from")
    return Choices(values)


def _range(name: str, text: str, option: Option) -> Range:
    ends, colon, scale = text.partition(":")
    if colon and scale not in _SCALES:
        near = difflib.get_close_matches(scale, _SCALES, n=1)
        hint = f"; did you mean :{near[0]}?" if near else ""
        raise UsageError(f"{name}={text}: a range ends in :log or :linear{hint}")
    whole = int in option.types
    if not whole and float not in option.types:
        names = ",".join(option.words) or "True,False"
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
