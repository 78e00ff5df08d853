"""Texts that run from right to left, in the order in which they are seen."""

import unicodedata

from lstm_jax.data.dataset import DataError

_TO_THE_LEFT = ("R", "AL", "AN")  # letters of Hebrew, of Arabic, and Arabic numbers
_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u061c"))  # invisible, but give direction
# Embeddings and isolates; the package does not know the latter.
_SCOPES = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def visual(text: str) -> str:
    """A text from its left to its right, as CTC reads a picture.

    The order is that of Unicode's bidirectional algorithm. A line runs from right to
    left where at least half of its letters do, since it does not tell its paragraph.
    Brackets are those that are seen. A mark at a letter that runs from right to left
    comes before it. Invisible characters of direction are left out.

    A text without letters or numbers of such scripts needs no package.

    Raises:
      DataError: the package python-bidi is wanted and not installed.
    """
    text = text.translate(_SCOPES)
    if _runs_left(text):
        text = _reordered(text)
    return text.translate(_MARKS)


def logical(text: str) -> str:
    """A text as it is written and stored, from one that `visual` gave.

    What does not come back is where two texts look the same: a number between letters
    of both directions may change its place with them, as in Hebrew with "12 kg" or
    "kg 12"; so may brackets at such a place. Invisible characters of direction are
    gone.

    >>> logical("no 7")
    'no 7'

    Raises:
      DataError: the package python-bidi is wanted and not installed.
    """
    if not _runs_left(text):
        return text
    # A number takes its direction from what is before it: from the left, or the right.
    guesses = (_reordered(text), _reordered(text[::-1])[::-1])
    return next((guess for guess in guesses if visual(guess) == text), guesses[0])


def _runs_left(text: str) -> bool:
    text = text.translate(_MARKS)
    return any(unicodedata.bidirectional(c) in _TO_THE_LEFT for c in text)


def _reordered(text: str) -> str:
    try:
        # Its other function, of `bidi` itself, does not mirror brackets.
        from bidi.algorithm import get_display
    except ImportError as error:
        raise DataError(
            "a text that runs from right to left needs a package: pip install "
            "python-bidi"
        ) from error
    kinds = [unicodedata.bidirectional(c) for c in text.translate(_MARKS)]
    to_the_left = sum(kind in ("R", "AL") for kind in kinds)
    base = "R" if to_the_left >= kinds.count("L") else "L"
    return get_display(text, base_dir=base)
