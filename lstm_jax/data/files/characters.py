"""Characters that have no shape of their own, and texts that look alike."""

import unicodedata

# Byte-order mark, zero-width space and joiner, word joiner and invisible operators,
# soft hyphen, grapheme joiner, variation selectors. The zero-width non-joiner stays: it
# changes how Persian words are written.
INVISIBLE = frozenset(
    map(
        chr,
        [*map(ord, "\ufeff\u200b\u200d\u00ad\u034f"), *range(0x2060, 0x2065)]
        + [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)],
    )
)
_REMOVED = dict.fromkeys(map(ord, INVISIBLE))


def clean(text: str) -> str:
    """Normalizes a text: Unicode NFC, single spaces, none at the ends.

    Characters without a shape, such as zero-width joiners, soft hyphens and variation
    selectors, are removed.
    """
    return " ".join(unicodedata.normalize("NFC", text.translate(_REMOVED)).split())
