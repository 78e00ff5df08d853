"""Folds are scikit-learn's, hold every example once, and leave groups whole."""

import inspect

import numpy as np
import pytest
from PIL import Image
from sklearn import model_selection

from lstm_jax.data import DataError, Dataset, Split, load, select_fold, split_folds


def dataset(targets, classes=(), groups=None, validation=10, lengths=False):
    """Examples whose one pixel is their index in the pool, then a test split."""
    n, m = len(targets), len(targets) - validation
    parts = {"train": range(m), "validation": range(m, n), "test": range(n - 3, n)}

    def split(rows):
        inputs = np.asarray(rows, np.uint8)[:, None, None, None]
        long = 1 + np.asarray(rows, np.int32) if lengths else None
        return Split(inputs, targets[list(rows)], long)

    splits = {name: split(rows) for name, rows in parts.items()}
    named = {name: tuple(f"{i}.png" for i in rows) for name, rows in parts.items()}
    if groups is not None:
        groups = {name: tuple(groups[i] for i in rows) for name, rows in parts.items()}
        groups["test"] = ("elsewhere",) * 3
    return Dataset("set", splits, classes, ("a note",), named, groups)


RNG = np.random.default_rng(0)
N = 61
CLASSES = RNG.permutation(np.repeat([0, 1, 2], [30, 20, 11])).astype(np.int32)
NUMBERS = RNG.normal(size=(N, 1)).astype(np.float32)
LABELS = RNG.integers(0, 2, (N, 4)).astype(np.float32)
PATIENTS = [f"patient {k}" for k in RNG.integers(0, 19, N)]
NAMES, K, SEED = ("a", "b", "c"), 4, 7
SHUFFLED = dict(shuffle=True, random_state=SEED)
BY_GROUP = (
    SHUFFLED
    if "shuffle" in inspect.signature(model_selection.GroupKFold).parameters
    else {}
)
CASES = {
    "classes": (
        dataset(CLASSES, NAMES),
        model_selection.StratifiedKFold(K, **SHUFFLED),
        (CLASSES, None),
    ),
    "classes in groups": (
        dataset(CLASSES, NAMES, PATIENTS),
        model_selection.StratifiedGroupKFold(K, **SHUFFLED),
        (CLASSES, PATIENTS),
    ),
    "every group of one": (
        dataset(CLASSES, NAMES, [str(i) for i in range(N)]),
        model_selection.StratifiedKFold(K, **SHUFFLED),
        (CLASSES, None),
    ),
    "numbers": (
        dataset(NUMBERS),
        model_selection.KFold(K, **SHUFFLED),
        (None, None),
    ),
    "numbers in groups": (
        dataset(NUMBERS, (), PATIENTS),
        model_selection.GroupKFold(K, **BY_GROUP),
        (None, PATIENTS),
    ),
    "labels": (
        dataset(LABELS, ("k", "l", "m", "n")),
        model_selection.KFold(K, **SHUFFLED),
        (None, None),
    ),
    "labels in groups": (
        dataset(LABELS, ("k", "l", "m", "n"), PATIENTS),
        model_selection.GroupKFold(K, **BY_GROUP),
        (None, PATIENTS),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_folds_are_those_of_scikit_learn(case):
    given, splitter, (classes, groups) = CASES[case]
    dealt = split_folds(given, K, validation=0.2, seed=SEED)
    wanted = list(splitter.split(np.zeros(N), classes, groups))
    assert len(dealt) == K
    for rows, (rest, held) in zip(dealt, wanted, strict=True):
        np.testing.assert_array_equal(rows["test"], held)
        learnt = np.union1d(rows["train"], rows["validation"])
        np.testing.assert_array_equal(learnt, rest)
        assert not np.intersect1d(rows["train"], rows["validation"]).size
        assert abs(len(rows["validation"]) - 0.2 * len(rest)) <= 4
        if groups is not None:
            parts = [{groups[i] for i in rows[name]} for name in rows]
            assert sum(map(len, parts)) == len(set().union(*parts)) == len(set(groups))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rows["test"] for rows in dealt])), np.arange(N)
    )


def test_the_validation_share_and_the_seed():
    given = CASES["classes"][0]
    shares = (0.1, 0.3)
    one, two = (split_folds(given, K, validation=s, seed=0) for s in shares)
    other = split_folds(given, K, validation=0.1, seed=1)
    again = split_folds(given, K, validation=0.1, seed=0)
    for a, b, c, d in zip(one, two, other, again, strict=True):
        np.testing.assert_array_equal(a["test"], b["test"])
        assert len(a["validation"]) == round(0.1 * (N - len(a["test"])))
        assert len(b["validation"]) == round(0.3 * (N - len(b["test"])))
        assert not np.array_equal(a["test"], c["test"])
        for name in a:
            np.testing.assert_array_equal(a[name], d[name])


@pytest.mark.parametrize("fold", range(K))
def test_a_fold_is_a_data_set_with_everything_in_its_place(fold):
    given = dataset(CLASSES, NAMES, PATIENTS, lengths=True)
    dealt = split_folds(given, K, validation=0.2, seed=SEED)[fold]
    taken = select_fold(given, K, fold, validation=0.2, seed=SEED)
    assert list(taken.splits) == ["train", "validation", "test"]
    for name, split in taken.splits.items():
        rows = dealt[name]
        np.testing.assert_array_equal(split.inputs[:, 0, 0, 0], rows)
        np.testing.assert_array_equal(split.targets, CLASSES[rows])
        np.testing.assert_array_equal(split.lengths, 1 + rows)
        assert split.inputs.dtype == np.uint8 and split.targets.dtype == np.int32
        assert taken.names[name] == tuple(f"{i}.png" for i in rows)
        assert taken.groups[name] == tuple(PATIENTS[i] for i in rows)
    assert taken.notes[0] == "a note"
    assert f"fold {fold} of 0 to 3" in taken.notes[1]
    assert "test split of set, 3 examples, is not used" in taken.notes[1]


def few(classes, groups=None):
    return dataset(np.asarray(classes, np.int32), ("a", "b"), groups, validation=2)


@pytest.mark.parametrize(
    "given, folds, words",
    [
        (few([0] * 9 + [1] * 3), 4, "class 'b' has 3 examples besides the test split"),
        (dataset(NUMBERS[:12]), 13, "training and validation together has 12"),
        (few([0, 1] * 6, list("aabbaabbccaa")), 4, "but there are 3 groups"),
        # All of "b" is one patient: who is tested on it has not seen one.
        (few([0] * 40 + [1] * 4, [*range(40), *"eeee"]), 2, "no example of class 'b'"),
    ],
)
def test_folds_that_cannot_be_dealt(given, folds, words):
    with pytest.raises(DataError, match=words):
        split_folds(given, folds, validation=0.2, seed=0)


def test_no_split_of_a_fold_is_left_empty():
    labels = LABELS[:16]
    given = dataset(labels, ("k", "l", "m", "n"), ["a", "b"] * 8)
    with pytest.raises(DataError, match="fold 0 of 2: its groups leave"):
        split_folds(given, 2, validation=0.2, seed=0)


def test_groups_and_names_of_a_table_of_pictures(tmp_path):
    lines, where = ["path,label,group"], {}
    for number in range(24):
        name = f"{number}.png"
        Image.new("L", (4, 4), number).save(tmp_path / name)
        where[number] = f"patient-{number // 2}"
        lines.append(f"{name},{'ab'[number // 2 % 2]},{where[number]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    found = load(tmp_path / "table.csv", data_dir=tmp_path / "cache", validation=0.2)
    seen = []
    for name, split in found.splits.items():
        pixels = split.inputs[:, 0, 0, 0].tolist()
        assert found.names[name] == tuple(f"{value}.png" for value in pixels)
        assert found.groups[name] == tuple(where[value] for value in pixels)
        seen += pixels
    assert sorted(seen) == list(range(24))
    dealt = split_folds(found, 3, validation=0.2, seed=0)
    pool = found.groups["train"] + found.groups["validation"]
    for rows in dealt:
        parts = [{pool[i] for i in rows[name]} for name in rows]
        assert sum(map(len, parts)) == len(set(pool))


def test_windows_of_a_clip_are_one_group(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(12):
        np.save(tmp_path / f"{number}.npy", rng.normal(size=(9, 2)).astype(np.float32))
        lines.append(f"{number}.npy,{'ab'[number % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    found = load(
        tmp_path / "table.csv",
        data_dir=tmp_path / "cache",
        frames=3,
        sampling="windows",
        validation=0.2,
    )
    names = found.names["train"] + found.names["validation"]
    assert names.count(names[0]) == 3
    for rows in split_folds(found, 3, validation=0.2, seed=0):
        parts = [{names[i] for i in rows[name]} for name in rows]
        assert sum(map(len, parts)) == len(set(names))


def test_a_folder_has_names_and_no_groups(tmp_path):
    for number in range(12):
        (tmp_path / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        Image.new("L", (4, 4), number).save(file)
    found = load(tmp_path / "photos", data_dir=tmp_path / "cache")
    assert found.groups is None
    for name, split in found.splits.items():
        labels = ["ab"[target] for target in split.targets]
        pixels = split.inputs[:, 0, 0, 0]
        wanted = [f"{c}/{value}.png" for c, value in zip(labels, pixels, strict=True)]
        assert list(found.names[name]) == wanted
