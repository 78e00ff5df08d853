"""Edit distances by the plain recursion, on random Unicode texts."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.metrics.edit_distance import align, edit_distances

ALPHABET = "ab é漢🙂אß"


def recursion(a, b):
    @functools.cache
    def least(i, j):
        if not i or not j:
            return i + j
        same = a[i - 1] == b[j - 1]
        return min(
            least(i - 1, j - 1) + (not same), least(i - 1, j) + 1, least(i, j - 1) + 1
        )

    return least(len(a), len(b))


def random_texts(count, seed=0):
    rng = np.random.default_rng(seed)

    def text():
        return "".join(rng.choice(list(ALPHABET), rng.integers(0, 12)))

    pairs = [(text(), text()) for _ in range(count)]
    # One that was read nearly right, too.
    return pairs + [(a, a[:2] + b[:1] + a[3:]) for a, b in pairs]


def test_alignments_are_the_shortest():
    for true, read in random_texts(60):
        found = align(true, read)
        assert found.distance == recursion(true, read)
        assert "".join(t or "" for t, _ in found.pairs) == true
        assert "".join(r or "" for _, r in found.pairs) == read
        wrong = [(t, r) for t, r in found.pairs if t != r]
        assert len(wrong) == found.distance
        assert found.deletions == sum(r is None for _, r in wrong)
        assert found.insertions == sum(t is None for t, _ in wrong)


def test_alignments_of_words():
    found = align("the cat sat".split(), "the sat cat".split())
    assert found.distance == 2
    assert align([], []).pairs == () and align("", "ab").insertions == 2


def test_distances_of_a_batch_are_those_of_pairs():
    pairs = random_texts(40, seed=1)
    index = {c: k for k, c in enumerate(ALPHABET, start=1)}

    def rows(texts, width):
        out = np.zeros((len(texts), width), np.int32)
        for row, text in zip(out, texts, strict=True):
            row[: len(text)] = [index[c] for c in text]
        return jnp.asarray(out)

    true, read = zip(*pairs, strict=True)
    got = edit_distances(rows(true, 14), rows(read, 12))
    assert [int(d) for d in got] == [recursion(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("true", "read", "pairs"),
    [
        ("abc", "axc", [("a", "a"), ("b", "x"), ("c", "c")]),
        ("abc", "ac", [("a", "a"), ("b", None), ("c", "c")]),
        ("ac", "abc", [("a", "a"), (None, "b"), ("c", "c")]),
    ],
)
def test_what_is_aligned_with_what(true, read, pairs):
    assert list(align(true, read).pairs) == pairs
