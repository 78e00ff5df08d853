"""Bidirectional text: conversion between logical and visual order."""

import unicodedata

from lstm_jax.data.dataset import DataError

_TO_THE_LEFT = ("R", "AL", "AN")  # Hebrew letters, Arabic letters, Arabic numbers
_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u061c"))  # invisible direction marks
# Embeddings and isolates; python-bidi does not support isolates.
_SCOPES = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def visual(text: str) -> str:
    """Text in visual order, from left to right, as CTC decodes an image.

    Applies Unicode's bidirectional algorithm. The base direction is right to left if
    at least half of the strong letters are, because a line does not tell the direction
    of its paragraph. Brackets are mirrored as displayed. A combining mark precedes its
    right-to-left letter. Invisible direction characters are removed.

    Text without right-to-left letters or numbers is returned without any package.

    Raises:
      DataError: the package python-bidi is needed but not installed.
    """
    text = text.translate(_SCOPES)
    if _runs_left(text):
        text = _reordered(text)
    return text.translate(_MARKS)


def logical(text: str) -> str:
    """Text in logical order, as stored; the inverse of `visual`.

    The inverse is not unique where two texts look the same: a number between letters
    of both directions may change places with them, as in Hebrew with "12 kg" or
    "kg 12", and so may brackets. Invisible direction characters are not restored.

    >>> logical("no 7")
    'no 7'

    Raises:
      DataError: the package python-bidi is needed but not installed.
    """
    if not _runs_left(text):
        return text
    # A number takes its direction from the text before it, on its left or its right.
    guesses = (_reordered(text), _reordered(text[::-1])[::-1])
    return next((guess for guess in guesses if visual(guess) == text), guesses[0])


def _runs_left(text: str) -> bool:
    text = text.translate(_MARKS)
    return any(unicodedata.bidirectional(c) in _TO_THE_LEFT for c in text)


def _reordered(text: str) -> str:
    try:
        # `bidi.get_display` does not mirror brackets; this one does.
        from bidi.algorithm import get_display
    except ImportError as error:
        raise DataError(
            "right-to-left text needs a package: pip install python-bidi"
        ) from error
    kinds = [unicodedata.bidirectional(c) for c in text.translate(_MARKS)]
    to_the_left = sum(kind in ("R", "AL") for kind in kinds)
    base = "R" if to_the_left >= kinds.count("L") else "L"
    return get_display(text, base_dir=base)
