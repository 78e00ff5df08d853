"""Copies are counted as they were made, and what only looks alike is not."""

import io

import numpy as np
import pytest
from PIL import Image
from selection import slow

from lstm_jax.data import Dataset, Split, duplicates, find_duplicates, load, similarity
from lstm_jax.data.similarity import connected, find_copies

SIDE = 32
NAMES = ("train", "validation", "test")


def photos(count, seed=0, side=SIDE):
    """Smooth images in colour, all different, uint8 [N, side, side, 3]."""
    rng = np.random.default_rng(seed)
    shape, how = (side, side), Image.Resampling.BICUBIC
    light = rng.integers(30, 226, (count, 6, 6, 1)) * np.ones(3)
    tint = rng.integers(-30, 31, (count, 2, 2, 3))  # colours change more slowly
    coarse = (light + np.repeat(np.repeat(tint, 3, 1), 3, 2)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize(shape, how)) for c in coarse])


def saved_again(image, quality=75):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def scaled(image):
    small = Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def noisy(image):
    noise = np.random.default_rng(0).integers(-3, 4, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def dataset(train, validation, test, **more):
    """Labels are 0 unless they are given, in the same order of splits."""
    labels = more.pop("labels", None) or [
        np.zeros(len(x)) for x in (train, validation, test)
    ]
    splits = {
        name: Split(inputs, np.asarray(label, np.int32))
        for name, inputs, label in zip(
            ("train", "validation", "test"),
            (train, validation, test),
            labels,
            strict=True,
        )
    }
    return Dataset("some", splits, ("cat", "dog"), (), **more)


def test_a_leak_of_30_percent_is_told_as_one():
    images = photos(300)
    train, validation, test = images[:200], images[200:230], images[230:].copy()
    rng = np.random.default_rng(1)
    leaked = rng.permutation(70)[:21]  # 30 % of the test split
    test[leaked] = train[rng.permutation(200)[:21]]
    validation = validation.copy()
    validation[:4] = train[:4]
    found = find_duplicates(dataset(train, validation, test))
    assert found.identical["test", "train"] == 21 and found.near["test", "train"] == 0
    assert found.leaked("test") == pytest.approx(0.3)
    assert found.identical["validation", "train"] == 4
    assert found.identical["test", "validation"] <= 4
    assert found.lines()[:2] == [
        "21 of 70 test images are identical to training images",
        "4 of 30 validation images are identical to training images",
    ]
    assert all(p.one[0] == "train" and p.other[0] != "train" for p in found.leaks)
    assert len(found.leaks) == 20 and found.contradictions == 0
    assert found.counts()["identical"]["test in train"] == 21


def test_validation_images_in_the_test_split_count_too():
    images = photos(60)
    images[50:53], images[54] = images[40:43], images[7]
    found = find_duplicates(dataset(images[:40], images[40:45], images[45:]))
    assert found.lines() == [
        "4 of 15 test images are identical to training or validation images"
    ]
    assert found.leaked("test") == pytest.approx(4 / 15)
    assert found.counts()["identical"] == {
        "test in train or validation": 4,
        "test in train": 1,
        "test in validation": 3,
    }


@pytest.mark.parametrize("change", [saved_again, scaled, noisy])
def test_nearly_identical_images_are_counted_beside_identical_ones(change):
    images = photos(120)
    train, test = images[:80], images[80:].copy()
    test[:9] = [change(image) for image in train[:9]]
    test[20:23] = train[20:23]
    found = find_duplicates(dataset(train, images[:0], test))
    assert found.identical["test", "train"] == 3
    assert found.near["test", "train"] == 9
    assert found.lines() == [
        "3 of 40 test images are identical to training images; 9 more are nearly "
        "identical"
    ]
    test[20:23] = images[100:103]
    found = find_duplicates(dataset(train, images[:0], test))
    assert found.lines() == [
        "9 of 40 test images are nearly identical to training images"
    ]


def test_copies_within_a_split():
    images = photos(50)
    images[1] = images[2] = images[0]
    images[4] = saved_again(images[3])
    images[5] = saved_again(images[0])
    found = find_duplicates(dataset(images[:40], images[40:45], images[45:]))
    assert found.identical["train", "train"] == 2 and found.near["train", "train"] == 2
    assert found.lines() == [
        "2 copies and 2 near copies of other training images among 40"
    ]


def test_labels_that_contradict_are_named():
    images = photos(50)
    images[7] = images[3]
    images[46] = saved_again(images[4])
    images[9] = images[8]
    labels = np.zeros(50)
    labels[[7, 46]] = 1
    labels[9] = -1  # not known: contradicts none
    parts, each = np.split(images, [40, 45]), np.split(labels, [40, 45])
    names = {"train": tuple(f"cat/{i}.png" for i in range(40))}
    names |= {"validation": tuple("vwxyz"), "test": tuple("abcde")}
    found = find_duplicates(dataset(*parts, labels=each, names=names))
    assert found.contradictions == 2
    assert found.contradicting[0] == (
        ("train", "cat/3.png", "cat"),
        ("train", "cat/7.png", "dog"),
        True,
    )
    assert found.contradicting[1][1] == ("test", "b", "dog")
    assert (
        "2 pairs of identical or nearly identical images have different labels, such "
        "as cat/3.png ('cat', train) and cat/7.png ('dog', train)" in found.lines()
    )


def digit(image, k):
    """A stroke of 4x2 pixels at one of many places."""
    image = image.copy()
    image[10:14, 2 * k : 2 * k + 2] = 0
    return image


def speck(k):
    """A scene of 64x64 with 2x2 pixels changed at one of many places."""
    image = photos(1, side=64)[0].astype(int)
    part = image[10:12, 4 * k : 4 * k + 2]
    part += np.where(part > 127, -90, 90)
    return image


LOOK_ALIKE = {
    "one scene, another speck": lambda rng: [speck(k) for k in range(14)],
    "one scene, another object": lambda rng: [
        digit(photos(1)[0], k) for k in range(14)
    ],
    "one page, another letter": lambda rng: [
        digit(np.full((SIDE, SIDE, 3), 250, np.uint8), k) for k in range(14)
    ],
    "one scene, other light": lambda rng: [
        np.clip(photos(1)[0] * k, 0, 255) for k in np.linspace(0.2, 1, 14)
    ],
    "one scene, other exposure": lambda rng: [
        photos(1)[0] // 2 + 9 * k for k in range(14)
    ],
    "almost black": lambda rng: rng.integers(0, 3, (20, SIDE, SIDE, 3)),
    "noise around one grey": lambda rng: rng.integers(120, 140, (20, SIDE, SIDE, 3)),
    "noise": lambda rng: rng.integers(0, 256, (20, SIDE, SIDE, 3)),
    "one grey each": lambda rng: [np.full((SIDE, SIDE, 3), 9 * k) for k in range(20)],
}


@pytest.mark.parametrize("case", LOOK_ALIKE)
def test_what_only_looks_alike_is_no_copy(case):
    images = np.asarray(LOOK_ALIKE[case](np.random.default_rng(0)), np.uint8)
    found = find_duplicates(dataset(images[:6], images[6:10], images[10:]))
    assert found.lines() == []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        *map(slow, ("moving_digits", "text_lines", "digits_boxes", "digits_masks")),
    ],
)
def test_drawn_data_sets_have_no_copies(name, prepared):
    assert find_duplicates(load(name, data_dir=prepared)).lines() == []


def test_all_of_one_colour_are_identical():
    images = np.zeros((12, 8, 8, 1), np.uint8)
    found = find_duplicates(dataset(images[:4], images[4:8], images[8:]))
    assert found.identical["test", "train"] == 4


def test_against_comparing_every_pair():
    """The search finds what comparing all pairs of images finds."""
    images = photos(90, side=24)
    rng = np.random.default_rng(0)
    for _ in range(60):  # copies of copies, more or less changed
        one, other = rng.integers(0, 90, 2)
        noise = rng.normal(0, rng.uniform(0, 6), images[0].shape)
        images[one] = np.clip(images[other] + noise, 0, 255).astype(np.uint8)
    copies = find_copies([images[:50], images[50:]])
    x = images.reshape(90, -1).astype(np.float64)
    scale = np.sqrt(x.std(1)[:, None] * x.std(1))
    square = ((x[:, None] - x[None]) / scale[..., None]) ** 2
    tiles = square.reshape(90, 90, 4, 6, 4, 6, 3).mean((3, 5, 6)).max((2, 3))
    near = (square.mean(-1) <= 0.1**2) & (tiles <= 0.25**2)
    expected = connected(90, np.argwhere(near))
    assert near.sum() > 90 + 40 and len(set(expected)) < 70
    groups = copies.groups()
    same = groups[:, None] == groups[None]
    np.testing.assert_array_equal(same, expected[:, None] == expected[None])


@pytest.mark.parametrize("kind", ["clips", "features"])
def test_clips_and_features(kind):
    rng = np.random.default_rng(0)
    if kind == "clips":
        inputs = photos(80, side=12).reshape(20, 4, 12, 12, 3)
        other = np.stack([noisy(frame) for frame in inputs[1]])
    else:  # only identical ones: what is close depends on the unit of a feature
        inputs = rng.normal(size=(20, 5, 3)).astype(np.float32)
        other = inputs[1] + np.float32(1e-4)
    inputs[15], inputs[16] = inputs[0], other
    found = find_duplicates(dataset(inputs[:10], inputs[10:14], inputs[14:]))
    near = f"; {1} more are nearly identical" if kind == "clips" else ""
    assert found.lines() == [f"1 of 6 test clips are identical to training clips{near}"]


def test_texts_and_masks_that_contradict():
    images = photos(30)[..., :1]
    images[1], images[26] = images[0], images[2]
    texts = np.tile(np.asarray([1, 2, 0], np.int32), (30, 1))
    texts[26] = [1, 0, 0]
    parts = list(zip(*(np.split(a, [20, 25]) for a in (images, texts)), strict=True))
    splits = {name: Split(*part) for name, part in zip(NAMES, parts, strict=True)}
    found = find_duplicates(Dataset("t", splits, ("a", "b"), (), target_type="text"))
    assert found.noun == "line" and found.contradictions == 1
    assert found.contradicting[0].one[2] == "ab"
    assert found.contradicting[0].other[2] == "a"
    masks = (images[..., 0] > 127).astype(np.uint8)
    masks[1, 0, 0] ^= 1
    parts = zip(*(np.split(a, [20, 25]) for a in (images, masks)), strict=True)
    splits = {name: Split(*part) for name, part in zip(NAMES, parts, strict=True)}
    found = find_duplicates(Dataset("m", splits, ("a", "b"), (), target_type="masks"))
    assert found.contradictions == 1 and found.identical["test", "train"] == 1


def test_too_much_data_is_told(monkeypatch):
    images = photos(30)
    images[25], images[26] = images[0], saved_again(images[1])
    whole = dataset(images[:20], images[20:25], images[25:])
    monkeypatch.setattr(similarity, "COMPARED", 1000)
    monkeypatch.setattr(duplicates, "COMPARED", 1000)
    lines = find_duplicates(whole).lines()
    assert lines[0] == "1 of 5 test images are identical to training images"
    assert "not nearly identical ones" in lines[1]
    monkeypatch.setattr(similarity, "HASHED", 1000)
    (line,) = find_duplicates(whole).lines()
    assert "duplicates were not searched for" in line
