"""A fingerprint changes with the data, and says in words what changed."""

import json

import numpy as np
import pytest

from lstm_jax.data import Dataset, Split, differences, fingerprint, fingerprints
from lstm_jax.data.fingerprints import content_hashes

RNG = np.random.default_rng(0)
PIXELS = {name: RNG.integers(0, 256, (60, 6, 6, 1), np.uint8) for name in "abc"}


def dataset(contents, classes=None, shares=(0.6, 0.2, 0.2), seed=0, name="some"):
    """Examples of each class, distributed to the splits."""
    inputs = np.concatenate([*contents.values()])
    sizes = [len(images) for images in contents.values()]
    targets = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(inputs))
    cuts = np.cumsum(np.asarray(shares) * len(inputs)).astype(int)[:-1]
    parts = zip(("train", "validation", "test"), np.split(order, cuts), strict=True)
    splits = {k: Split(inputs[rows], targets[rows]) for k, rows in parts}
    return Dataset(name, splits, tuple(classes or contents), ())


FIRST = fingerprint(dataset(PIXELS))


def changes(other):
    again = json.loads(json.dumps(FIRST))  # as a file holds it
    return "; ".join(differences(again, fingerprint(other)))


def test_the_same_data_have_no_differences():
    assert changes(dataset(PIXELS)) == ""
    assert len(json.dumps(FIRST)) < 2000  # whatever the number of examples


def test_missing_examples_are_counted():
    less = PIXELS | {"b": PIXELS["b"][30:]}
    found = changes(dataset(less))
    assert "150 examples instead of 180" in found
    assert "'b' has 30 instead of 60" in found and "'a'" not in found


def test_a_renamed_class_is_recognised_by_its_content():
    renamed = {("z" if name == "a" else name): PIXELS[name] for name in "abc"}
    assert "class 'a' is now called 'z'" in changes(dataset(renamed))
    shifted = {name: renamed[name] for name in "bcz"}  # labels shift with it
    assert "class 'a' is now called 'z'" in changes(dataset(shifted))
    other = {("z" if n == "a" else n): PIXELS[n] for n in "abc"} | {
        "z": PIXELS["a"][1:]
    }
    found = changes(dataset(other))
    assert "class 'a' is missing" in found and "class 'z' is new" in found


def test_contents_of_two_classes_that_are_swapped():
    swapped = PIXELS | {"a": PIXELS["b"], "b": PIXELS["a"]}
    found = changes(dataset(swapped))
    assert "'a' holds what was in 'b', 'b' holds what was in 'a'" in found
    reordered = {name: PIXELS[name] for name in "cab"}
    only = "only labels changed, the inputs are the same"
    assert changes(dataset(reordered)) == f"the classes are in another order; {only}"
    some = PIXELS["a"][:50], PIXELS["b"][:50]  # of one split, say
    partly = PIXELS | {"a": np.concatenate([some[1], PIXELS["a"][50:]])}
    partly |= {"b": np.concatenate([some[0], PIXELS["b"][50:]])}
    found = changes(dataset(partly))
    assert "the content of 'a' differs, the content of 'b' differs" in found
    assert found.endswith(only)


def test_one_pixel_and_one_label_are_noticed():
    pixels = PIXELS["c"].copy()
    pixels[17, 3, 3] ^= 1
    assert changes(dataset(PIXELS | {"c": pixels})) == (
        "changed classes: the content of 'c' differs"
    )
    moved = PIXELS | {"a": PIXELS["a"][1:], "b": np.r_[PIXELS["a"][:1], PIXELS["b"]]}
    assert "'a' has 59 instead of 60, 'b' has 61 instead of 60" in changes(
        dataset(moved)
    )


def test_other_splits_of_the_same_examples():
    assert "the same examples are in another order or in other splits" in changes(
        dataset(PIXELS, seed=1)
    )
    assert "sizes (train 125, not 108" in changes(
        dataset(PIXELS, shares=(0.7, 0.2, 0.1))
    )
    large = {
        name: np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
        for name, images in PIXELS.items()
    }
    assert "examples of 8x8x1 instead of 6x6x1" in changes(dataset(large))


@pytest.mark.parametrize("kind", ["masks", "numbers", "text"])
def test_targets_that_are_no_classes(kind):
    def of(change):
        splits = {}
        for name, images in zip(("train", "validation", "test"), "abc", strict=True):
            inputs = PIXELS[images]
            targets = {
                "masks": (inputs[..., 0] > 99).astype(np.uint8),
                "numbers": inputs[:, 0, 0].astype(np.float32),
                "text": inputs[:, 0, :, 0].astype(np.int32),
            }[kind]
            if change and name == "test":
                targets[5, 0] += 1
            lengths = np.full(60, 6, np.int32) if kind == "text" else None
            splits[name] = Split(inputs, targets, lengths)
        return fingerprint(Dataset("some", splits, ("x", "y"), ()))

    assert differences(of(False), of(False)) == []
    assert differences(of(False), of(True)) == ["the targets changed in test"]


def test_hashes_follow_content_and_not_layout():
    images = PIXELS["a"]
    strided = np.repeat(images, 2, axis=2)[:, :, ::2]
    assert not strided.flags.c_contiguous
    np.testing.assert_array_equal(content_hashes(images), content_hashes(strided))
    assert len(set(content_hashes(images).tolist())) == 60


def test_of_much_data_some_is_hashed(monkeypatch):
    monkeypatch.setattr(fingerprints, "_HASHED", 3000)
    hashed = []

    def counted(array, rows=None):
        hashed.append(len(rows))
        return content_hashes(array, rows)

    monkeypatch.setattr(fingerprints, "content_hashes", counted)
    some = fingerprint(dataset(PIXELS))
    assert 70 < sum(hashed[::2]) <= 3000 // 36 + 2
    assert differences(some, fingerprint(dataset(PIXELS))) == []
    less = fingerprint(dataset(PIXELS | {"b": PIXELS["b"][1:]}))
    assert "179 examples instead of 180" in differences(some, less)[0]
