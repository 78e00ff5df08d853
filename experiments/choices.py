"""Options as frozen dataclasses; `Choice`s are selected by name: `--optimizer=sgd`.

This file and those that define options import nothing heavy, so that `--help` is
instant.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Iterator
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from experiments.errors import UsageError


class Choice:
    """Base of option groups with several variants.

    A direct subclass is a family, such as the optimizers. Its subclasses with a `name`
    are the variants, `kinds`: frozen dataclasses with the options of each.
    """

    name: ClassVar[str]
    kinds: ClassVar[dict[str, type["Choice"]]]

    def __init_subclass__(cls):
        super().__init_subclass__()
        if Choice in cls.__bases__:
            cls.kinds = {}
        elif "name" in vars(cls):
            cls.kinds[cls.name] = cls


class Limits(NamedTuple):
    """The range of a number, as a predicate and as words for an error message."""

    hold: Callable[[float], bool]
    words: str


_FROM_1 = Limits(lambda value: value >= 1, "it must be 1 or more")
_POSITIVE = Limits(lambda value: value > 0, "it must be more than 0")
_FROM_0 = Limits(lambda value: value >= 0, "it cannot be negative")
_FRACTION = Limits(lambda value: 0 <= value < 1, "it must be in [0, 1)")
_PROBABILITY = Limits(lambda value: 0 <= value <= 1, "it must be in [0, 1]")
_MAGNITUDE = Limits(lambda value: 0 <= value <= 10, "it must be in [0, 10]")
_SHARE = Limits(lambda value: 0 < value <= 1, "it must be above 0, and at most 1")
_SEED = Limits(
    lambda value: 0 <= value < 2**32,
    "it must be in [0, 2**32): larger ones would repeat the random keys of smaller",
)
MOST_STEPS = 2**31 - 1  # what the int32 that counts them holds
_STEPS = Limits(
    lambda value: 1 <= value <= MOST_STEPS,
    f"it must be 1 or more, and at most {MOST_STEPS:,}",
)
Count = Annotated[int, _FROM_1]
Size = Annotated[int, _FROM_0]
Seed = Annotated[int, _SEED]
Steps = Annotated[int, _STEPS]
Positive = Annotated[float, _POSITIVE]
Amount = Annotated[float, _FROM_0]
Fraction = Annotated[float, _FRACTION]
Probability = Annotated[float, _PROBABILITY]
Magnitude = Annotated[float, _MAGNITUDE]
Share = Annotated[float, _SHARE]


class Option(NamedTuple):
    """One option of a configuration.

    Attributes:
      name: with dots, such as "model.features".
      value: current value; for a `Choice` its name.
      types: allowed types of the value.
      words: allowed words, for a `Literal` or a `Choice`.
      limits: range of a number, or None.
    """

    name: str
    value: Any
    types: tuple[type, ...] = ()
    words: tuple[str, ...] = ()
    limits: Limits | None = None

    def read(self, word: str) -> Any:
        """Converts an argument of the command line to the type of this option.

        Raises:
          UsageError: the word is not a value of this option.
        """
        if word == "None" and type(None) in self.types:
            return None
        if word in self.words or str in self.types:
            return word
        if bool in self.types and word.lower() in ("true", "false"):
            return word.lower() == "true"
        for kind in (int, float):
            if kind in self.types:
                try:
                    return kind(word)
                except ValueError:
                    continue
        raise UsageError(f"{self.name}={word!r}, but {self.wanted(word)}")

    def check(self) -> None:
        """Checks the type and range of the value.

        Raises:
          UsageError: a wrong type, or a number out of range.
        """
        value = self.value
        if isinstance(value, str) and value in self.words:
            return
        whole = type(value) is int and float in self.types
        if not (whole or type(value) in self.types):
            raise UsageError(f"{self.name}={value!r}, but {self.wanted(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{self.name}={value}, but it must be finite")
        if self.limits and value is not None and not self.limits.hold(value):
            raise UsageError(f"{self.name}={value}, but {self.limits.words}")

    def wanted(self, value: Any) -> str:
        """Which values are allowed, with the most similar one to a wrong `value`."""
        near = difflib.get_close_matches(str(value), self.words, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        kinds = ["None" if t is type(None) else t.__name__ for t in self.types]
        if not self.words:
            return f"it must be {' or '.join(kinds)}"
        return f"it must be one of {', '.join([*kinds, *self.words])}{hint}"


def options_of(values: Any, prefix: str = "") -> Iterator[Option]:
    """All options of a dataclass, including those of nested dataclasses."""
    hints = get_type_hints(type(values), include_extras=True)
    for field in dataclasses.fields(values):
        name, value = prefix + field.name, getattr(values, field.name)
        if isinstance(value, Choice):
            yield Option(name, value.name, words=tuple(value.kinds))
        if dataclasses.is_dataclass(value):
            yield from options_of(value, f"{name}.")
        else:
            yield _option(name, value, hints[field.name])


def _option(name: str, value: Any, hint: Any) -> Option:
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_option(name, value, part) for part in get_args(hint)]
        return Option(
            name,
            value,
            tuple(kind for part in parts for kind in part.types),
            tuple(word for part in parts for word in part.words),
            next((part.limits for part in parts if part.limits), None),
        )
    if get_origin(hint) is Annotated:
        kind, limits = get_args(hint)
        return Option(name, value, (kind,), limits=limits)
    if get_origin(hint) is Literal:
        return Option(name, value, words=get_args(hint))
    return Option(name, value, (hint,))


def converted(options: Any, kind: type) -> Any:
    """Options of another kind, with the values of the fields that both have.

    A choice that the other kind does not offer, such as the loss of another task, is
    left out.
    """
    if type(options) is kind:
        return options
    words = {option.name: option.words for option in options_of(kind())}
    names = {field.name for field in dataclasses.fields(kind)}
    shared = {
        field.name: value
        for field in dataclasses.fields(options)
        if field.name in names
        and not (
            isinstance(value := getattr(options, field.name), str)
            and words.get(field.name)
            and value not in words[field.name]
        )
    }
    return kind(**shared)


def to_dict(options: Any) -> dict[str, Any]:
    """Options as nested dicts of plain values, with the "name" of each `Choice`."""
    found = {"name": options.name} if isinstance(options, Choice) else {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        found[field.name] = to_dict(value) if dataclasses.is_dataclass(value) else value
    return found


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts: `{"data": {"size": 8}}` becomes `{"data.size": 8}`."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
