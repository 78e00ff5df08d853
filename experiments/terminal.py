"""Text that is safe to print, whatever files and models it comes from."""

import os
import sys
import unicodedata
from typing import Any

_ESCAPED = ("Cc", "Cs")  # Unicode categories: control, surrogate
_KEPT = "\n\t"


def printable(text: str) -> str:
    r"""A text whose control characters and surrogates are written as escapes.

    A name of a file or a class can hold escape sequences that change the terminal, or
    bytes that are not UTF-8, which `print` refuses.

    >>> print(printable("\x1b[31mred"))
    \x1b[31mred
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _ESCAPED and character not in _KEPT
        else character
        for character in text
    )


def is_terminal(stream: Any) -> bool:
    """Whether lines can be rewritten: in a terminal, but not in a notebook."""
    terminal = getattr(stream, "isatty", lambda: False)()
    simple = os.environ.get("TERM", "") in ("dumb", "unknown")
    return terminal and "ipykernel" not in sys.modules and not simple
