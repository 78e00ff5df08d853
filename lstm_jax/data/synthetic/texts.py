"""Texts of synthetic lines: common words, invented words, numbers and punctuation.

A word of three or more characters belongs to either training or test, as a function of
its letters.
"""

import re
import unicodedata
import zlib
from pathlib import Path

import numpy as np

from lstm_jax.data.synthetic.fonts import LATIN, SYMBOLS

LENGTHS = (4, 33)  # range of a line's maximum number of characters
# Arrays, because `rng.choice` would convert a list to one on every call.
_SIGNS = np.array(list(SYMBOLS[1:]))
_MARKS = np.array(list(SYMBOLS[1:16] + SYMBOLS[26:33] + SYMBOLS[59:65] + SYMBOLS[91:]))
_PAIRS = np.array(["()", "[]", '""', "''", "{}", "<>", "**", "--"])
_ENDS = np.array(list(",.;:!?-"))
_ONSETS = np.array(
    "b c ch d f g h j k l m n p pl qu r s sh st t th tr v w x y z".split()
)
_VOWELS = np.array("a e i o u ea ou ie".split())
_CODAS = np.array(["", "", "n", "r", "s", "t", "l", "nd", "m", "ck", "ng"])
_LIGATURES = {"æ": "a", "œ": "o", "ø": "o", "ß": "s", "Æ": "A", "Œ": "O", "Ø": "O"}
_ACCENTED = {
    letter: unicodedata.normalize("NFD", letter)[0]
    for letter in LATIN
    if letter.isalpha() and letter not in _LIGATURES
}
_LIKE: dict[str, list[str]] = {}  # accented variants by base letter
for _letter, _plain in (_ACCENTED | _LIGATURES).items():
    _LIKE.setdefault(_plain, []).append(_letter)
_PRINTED = dict(zip("<>$#^`", "«»£§°€", strict=True))
_COMMON = np.array(Path(__file__).with_name("common_words.txt").read_text().split())


def line_text(rng: np.random.Generator, split: str) -> str:
    """A random line of text; "train" and the other splits share no words."""
    most = int(rng.integers(*LENGTHS))
    text, failed = _token(rng, split), 0
    while failed < 3:
        longer = f"{text} {_token(rng, split)}"
        if len(longer) <= most:
            text = longer
        else:
            failed += 1
    return text


def as_printed(text: str, rng: np.random.Generator) -> str:
    """The line with letters of other languages, typographic quotes and dashes.

    Some words are joined, as in don't and in twenty-one.
    """
    odds, curly = rng.choice([0.0, 0.08, 0.3]), rng.random() < 0.5
    found = []
    for k, character in enumerate(text):
        if character == " " and rng.random() < 0.08:
            inside = text[k - 1].isalpha() and text[k + 1].isalpha()
            character = "'-"[int(rng.random() < 0.3)] if inside else " "
        others = _LIKE.get(character)
        if others and rng.random() < odds:
            character = others[int(rng.integers(len(others)))]
        elif curly and character in "'\"":
            opens = k == 0 or text[k - 1] in " ([<{"
            single = ("\u2019", "\u2018")[opens]
            double = ("\u201d", "\u201c\u201e"[int(rng.random() < 0.3)])[opens]
            character = single if character == "'" else double
        elif curly and character == "-" and rng.random() < 0.3:
            character = "\u2013\u2014"[int(rng.integers(2))]
        elif curly and character in _PRINTED and rng.random() < 0.5:
            character = _PRINTED[character]
        found.append(character)
    if odds and rng.random() < 0.05:
        return "¡¿"[int(rng.integers(2))] + "".join(found)
    return "".join(found)


def _token(rng: np.random.Generator, split: str) -> str:
    while True:
        token = _draw_token(rng)
        word = re.sub(r"\W", "", token).lower()
        if len(word) < 3 or is_for_test(word) == (split != "train"):
            return token


def is_for_test(word: str) -> bool:
    """Whether a lower-case word belongs to the test splits; one in five does."""
    return zlib.crc32(word.encode()) % 5 == 0


def _draw_token(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.03:
        return "".join(rng.choice(_SIGNS, rng.integers(1, 6)))
    if kind < 0.16:
        return _number(rng)
    if kind < 0.50:
        word = str(rng.choice(_COMMON))
    else:
        word = "".join(
            str(rng.choice(part))
            for _ in range(int(rng.integers(1, 4)))
            for part in (_ONSETS, _VOWELS, _CODAS)
        )
    case, mark = rng.random(), rng.random()
    word = word.upper() if case < 0.12 else word.capitalize() if case < 0.36 else word
    if mark < 0.08:
        return word + str(rng.choice(_ENDS))
    if mark < 0.12:
        opens, closes = rng.choice(_PAIRS)
        return opens + word + closes
    if mark < 0.17:
        return word + str(rng.choice(_MARKS))
    return str(rng.choice(_MARKS)) + word if mark < 0.19 else word


def _number(rng: np.random.Generator) -> str:
    number = str(rng.integers(10 ** int(rng.integers(1, 6))))
    at = int(rng.integers(1, len(number) + 1))
    mark = str(rng.choice(["", "", ".", ",", ":", "/", "-"]))
    number = number[:at] + mark + number[at:] if at < len(number) else number
    around = rng.random()
    if around < 0.2:
        return str(rng.choice(["$", "#", "+", "-", "~", "@", "("])) + number
    return number + str(rng.choice(list("%.,;:)*"))) if around < 0.4 else number
