"""Parser of VGSL strings; errors point at the character."""

import re
from typing import Any, NoReturn

from lstm_jax.models.vgsl_layers import (
    Conv,
    Dropout,
    Full,
    GroupNorm,
    Identity,
    Output,
    Parallel,
    Pool,
    Recurrent,
    Rescale,
    Reshape,
    Series,
    Shape,
)

_NUMBER = re.compile(r"[0-9]+")
_DIGITS = 9  # of a number
_FRACTION = re.compile(r"[0-9]+(\.[0-9]+)?")
_NAME = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)
_DEPTH = 32  # brackets within brackets
_SHOWN = 60  # characters of a long string that are shown around the error


class SpecError(ValueError):
    """A VGSL string that cannot be parsed.

    Attributes:
      position: index of the character in error, from 0.
    """

    def __init__(self, reason: str, text: str, position: int):
        self.position = position
        left = max(0, min(position - _SHOWN // 2, len(text) - _SHOWN))
        shown = text[left : left + _SHOWN]
        caret = " " * (position - left) + "^"
        super().__init__(
            f"spec: character {position + 1}: {reason}\n  {shown}\n  {caret}"
        )


class Scanner:
    """Tokenizer from left to right.

    Attributes:
      text: the whole string.
      at: index of the next character.
      depth: number of open brackets within the spec.
      names: of the layers so far.
    """

    def __init__(self, text: str):
        self.text, self.at, self.depth = text, 0, 0
        self.names: set[str] = set()

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        raise SpecError(reason, self.text, self.at if at is None else at)

    def peek(self) -> str:
        """The next character; "" at the end."""
        return self.text[self.at : self.at + 1]

    def before(self) -> str:
        return self.text[self.at - 1 : self.at]

    def spaces(self) -> bool:
        """Skips spaces; returns whether there were any."""
        start = self.at
        while self.peek().isspace():
            self.at += 1
        return self.at > start

    def maybe(self, word: str) -> bool:
        """Consumes a word if it comes next; returns whether it did."""
        if found := self.text.startswith(word, self.at):
            self.at += len(word)
        return found

    def expect(self, word: str, reason: str) -> None:
        if not self.maybe(word):
            self.fail(f"expected {word!r}, found {self._found()}: {reason}")

    def end(self) -> None:
        if self.peek():
            self.fail("the spec has ended here")

    def letter(self, of: str, what: str) -> str:
        found = self.peek()
        if not found or found not in of:
            several = " or ".join([", ".join(of[:-1]), of[-1]])
            self.fail(f"expected {what}, {several}; found {self._found()}")
        self.at += 1
        return found

    def number(self, what: str, least: int = 0) -> int:
        found = _NUMBER.match(self.text, self.at)
        if not found:
            self.fail(f"expected a number, {what}; found {self._found()}")
        if len(found[0]) > _DIGITS:
            self.fail(f"{what} is {found[0][:20]}; a number has at most 9 digits")
        value = int(found[0])
        if value < least:
            self.fail(f"{what} is {value}; expected {least} or more")
        self.at = found.end()
        return value

    def numbers(self, count: int, what: tuple[str, ...], least: int = 1) -> tuple:
        values = []
        for k in range(count):
            if k:
                self.expect(",", f"{what[k]} comes after it")
            values.append(self.number(what[k], least))
        return tuple(values)

    def fraction(self, what: str) -> float:
        found = _FRACTION.match(self.text, self.at)
        if not found or not 0 <= float(found[0]) < 1:
            self.fail(
                f"{what} is {found[0] if found else self._found()}, not in [0, 1)"
            )
        self.at = found.end()
        return float(found[0])

    def name(self) -> str:
        if self.peek() != "{":
            return ""
        found = _NAME.match(self.text, self.at)
        if not found:
            self.fail("a name is letters, digits and _ in braces, as {conv_1}")
        if found[1] in self.names:
            self.fail(f"another layer is called {found[1]!r}")
        self.names.add(found[1])
        self.at = found.end()
        return found[1]

    def _found(self) -> str:
        return repr(self.peek()) if self.peek() else "the end"


def read_layers(
    scan: Scanner, shape: Shape, close: str
) -> tuple[list[Any], list[Shape]]:
    """Layers up to a closing bracket, and the output shape of each.

    In parallel brackets all layers get `shape`.
    """
    layers, shapes, first = [], [], shape
    while True:
        gap = scan.spaces()
        if scan.peek() in ("]", ")", ""):
            break
        if layers and isinstance(layers[-1], Output):
            scan.fail("nothing follows the output")
        if not gap and scan.peek() not in "[(" and scan.before() not in "])[(":
            scan.fail("a space comes between two layers")
        start = scan.at
        layer, inner = _layer(scan, first)
        if isinstance(layer, Output) and (close == ")" or scan.depth):
            scan.fail("an output stands at the end, outside of brackets", start)
        try:
            if isinstance(layer, Series):
                after = inner[-1]
            elif isinstance(layer, Parallel):
                after = layer.concatenated(inner)
            else:
                after = layer.out(first)
        except ValueError as error:
            scan.fail(str(error), start)
        if any(n is not None and n < 1 for n in after):
            scan.fail(f"nothing is left of a map of {_described(first)}", start)
        layers.append(layer)
        shapes.append(after)
        if close == "]":
            first = after
    return layers, shapes


def _layer(scan: Scanner, shape: Shape) -> tuple[Any, list[Shape]]:
    """A layer, and the output shapes of the layers within its brackets."""
    start = scan.at
    if scan.peek() in "[(":
        series = scan.peek() == "["
        if scan.depth == _DEPTH:
            scan.fail(f"there are more than {_DEPTH} brackets within each other")
        scan.at, scan.depth = scan.at + 1, scan.depth + 1
        layers, inner = read_layers(scan, shape, "]" if series else ")")
        if not layers:
            scan.fail("there is no layer in these brackets", start)
        scan.expect("]" if series else ")", f"the bracket of character {start + 1}")
        scan.depth -= 1
        return (Series if series else Parallel)(tuple(layers)), inner
    for word, read in READERS.items():
        if scan.maybe(word):
            return read(scan), []
    scan.fail(
        f"no layer begins with {scan.peek()!r}; there are C, F, L, G, Mp, S, Do, Gn, "
        "I, O, [ and ("
    )


def _conv(scan: Scanner) -> Conv:
    if scan.peek() == "T":
        scan.fail("transposed convolutions are not built here")
    activation = scan.letter("strlm", "its activation")
    if activation == "l" and scan.maybe("r"):
        activation = "lr"
    name = scan.name()
    y, x, d = scan.numbers(3, ("its height", "its width", "its features"))
    pairs = []
    for words in (("its stride in y", "in x"), ("its dilation in y", "in x")):
        if scan.maybe(","):
            pairs.append(scan.numbers(2, words))
    return Conv(activation, (y, x), d, *pairs, name=name)


def _full(scan: Scanner) -> Full:
    activation = scan.letter("strlm", "its activation")
    name = scan.name()
    return Full(activation, scan.number("its features", least=1), name)


def _pool(scan: Scanner) -> Pool:
    name = scan.name()
    window = scan.numbers(2, ("its height", "its width"))
    stride = window
    if scan.maybe(","):
        stride = scan.numbers(2, ("its stride in y", "in x"))
    return Pool(window, stride, name)


def _recurrent(cell: str):
    def read(scan: Scanner) -> Recurrent:
        if cell == "L" and scan.peek() in ("S", "E", "2"):
            scan.fail(f"L{scan.peek()} is not built here; use Lfx and a softmax output")
        direction = scan.letter("frb", "its direction")
        axis = scan.letter("xy", "its axis")
        last = scan.maybe("s")
        if scan.peek() in ("c", "o"):
            scan.fail("the legacy LSTMs of clstm and ocropus are not built here")
        name = scan.name()
        features = scan.number("its features", least=1)
        return Recurrent(cell, direction, axis, last, features, name)

    return read


def _rearrange(scan: Scanner) -> Reshape | Rescale:
    name, start = scan.name(), scan.at
    first = scan.number("an axis, or the height of a window")
    if scan.maybe(","):
        second = scan.number("the width of a window", least=1)
        if first < 1:
            scan.fail("the height of a window is at least 1", start)
        return Rescale((first, second), name)
    scan.expect("(", "it goes on as S1(1x0)1,3 or S2,2")
    if first > 3:
        scan.fail("axes are 0 batch, 1 height, 2 width, 3 channels", start)
    at = scan.at
    a = scan.number("the slow part")
    scan.expect("x", "parts are written axb")
    b = scan.number("the fast part")
    if not a and not b:
        scan.fail("one of the two parts is not 0", at)
    scan.expect(")", "the parts end here")
    at, to = scan.at, scan.numbers(2, ("the axis of the slow part", "and fast"), 0)
    if max(to) > 3:
        scan.fail("axes are 0 batch, 1 height, 2 width, 3 channels", at)
    if first not in to:
        scan.fail(f"one of the two parts stays on axis {first}", at)
    return Reshape(first, (a, b), to, name)


def _dropout(scan: Scanner) -> Dropout:
    name = scan.name()
    rate, dimensions = 0.5, 1
    if scan.peek().isdigit():
        rate = scan.fraction("the share that is dropped")
        if scan.maybe(","):
            dimensions = int(scan.letter("12", "its dimensions"))
    return Dropout(rate, dimensions, name)


def _group_norm(scan: Scanner) -> GroupNorm:
    name = scan.name()
    return GroupNorm(scan.number("the number of groups", least=1), name)


def _output(scan: Scanner) -> Output:
    name = scan.name()
    dimensions = int(scan.letter("210", "its dimensions"))
    at = scan.at
    kind = scan.letter("lsc", "its kind")
    if kind == "c" and dimensions != 1:
        scan.fail("CTC reads a sequence: O1c", at)
    return Output(dimensions, kind, scan.number("its classes", least=1), name)


READERS = {  # by the letters that a word begins with, longer ones first
    "Mp": _pool,
    "Do": _dropout,
    "Gn": _group_norm,
    "C": _conv,
    "F": _full,
    "L": _recurrent("L"),
    "G": _recurrent("G"),
    "S": _rearrange,
    "I": lambda scan: Identity(scan.name()),
    "O": _output,
}


def _described(shape: Shape) -> str:
    return "x".join(str(n or "any") for n in shape[1:3])
