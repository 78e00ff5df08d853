"""The search space of a sweep: flags of `train` whose value is a range or a list.

    --optimizer.learning-rate=1e-4..1e-2    a range, both ends included
    --optimizer.weight-decay=1e-5..1e-1     learning rate and decay: log scale
    --model.features=16..256:log            others: linear, or :log
    --model.layers=1..3                     integers, if the flag takes integers
    --model.cell=lstm,gru                   a list of numbers, names or True,False

String options (folders, data sets, patterns) are never searched, because paths may
contain `..`.
"""

import difflib
import math
from typing import Any, NamedTuple

from experiments.choices import Option
from experiments.config import Config, check, chooses, options, override, unknown
from experiments.errors import UsageError
from experiments.flags import pairs

# Sampled on a log scale by default.
_LOG = ("optimizer.learning_rate", "optimizer.weight_decay")
_SCALES = ("log", "linear")
# Options that cannot be searched.
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
        """The sampled number with four digits, within the range."""
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.4g}"), self.low), self.high)


class Choices(NamedTuple):
    """One of several values, without an order."""

    values: tuple

    def __str__(self):
        return ",".join(map(str, self.values))

    def ends(self) -> tuple:
        return self.values

    def rounded(self, drawn: Any) -> Any:
        return drawn


Space = dict[str, Range | Choices]


def split(config: Config, options: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """`(configuration with fixed values, searched values by name)`.

    Args:
      config: of a preset.
      options: by name; a range as a string, "8..32", or a list is searched.
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
    """Whether a value is a range or a list, not the value of a string option."""
    if name not in known or not _may_be_searched(value):
        return False
    return not (isinstance(value, str) and str in known[name].types)


def _options(config: Config, searched: dict[str, Any]) -> dict[str, Option]:
    """Options by name, including those of all variants that are searched."""
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
    """A configuration with sampled values, without those of variants not selected."""
    chosen = {name: v for name, v in values.items() if chooses(config, name)}
    config = override(config, chosen)
    known = {option.name for option in options(config)}
    return override(config, {n: v for n, v in values.items() if n in known})


def read(config: Config, searched: dict[str, Any]) -> tuple[Config, Space]:
    """Parses ranges and lists, and checks their values in a configuration.

    Args:
      config: the fixed values, not yet checked.
      searched: by name, strings such as "1e-4..1e-2" and "32,64", or lists.

    Returns:
      `(config, space)`; the configuration has the first value of each.

    Raises:
      UsageError: a malformed range or list, or a value that is not allowed.
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
            raise UsageError(f"{name} cannot be searched; give a single value")
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
        raise UsageError(f"{name}={list(values)}: a list needs two different values")
    return Choices(values)


def _range(name: str, text: str, option: Option) -> Range:
    ends, colon, scale = text.partition(":")
    if colon and scale not in _SCALES:
        near = difflib.get_close_matches(scale, _SCALES, n=1)
        hint = f"; did you mean :{near[0]}?" if near else ""
        raise UsageError(f"{name}={text}: the suffix must be :log or :linear{hint}")
    whole = int in option.types
    if not whole and float not in option.types:
        names = ",".join(option.words) or "True,False"
        raise UsageError(f"{name}={text}: give a list instead of a range, as {names}")
    low, _, high = ends.partition("..")
    try:
        low, high = ((int if whole else float)(end) for end in (low, high))
    except ValueError:
        number = "an integer" if whole else "a number"
        raise UsageError(
            f"{name}={text}: a range is LOW..HIGH, and each end is {number}"
        ) from None
    log = scale == "log" if colon else name in _LOG
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{name}={text}: the lower end must come first")
    if log and low <= 0:
        raise UsageError(
            f"{name}={text}: a log scale needs values above 0; raise the lower end, or "
            "add :linear"
        )
    return Range(low, high, log, whole)
