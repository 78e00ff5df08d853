"""What belongs together is in one split: subjects, clips, pages and copies."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from test_duplicates import photos, saved_again

from lstm_jax.data import DataError, Dataset, Split, find_duplicates, load, split_folds
from lstm_jax.data.holdout import stratified_holdout
from lstm_jax.data.similarity import joined_groups
from lstm_jax.data.splits import select_fold

SHARE = dict(validation=0.2, seed=1)
SUBJECTS = [f"subject{k}" for k in range(12)]


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def owners(data, of):
    """{what `of` makes of a name: the splits that it is in}."""
    places = {}
    for split, names in data.names.items():
        for name in names:
            places.setdefault(of(name), set()).add(split)
    return places


def subject(name):
    return name.rpartition("/")[2].partition("_")[0]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """CLASS/subjectK_NN.png; three to eight images of each of twelve subjects."""
    folder = tmp_path_factory.mktemp("subjects") / "scans"
    rng, images = np.random.default_rng(0), iter(photos(300, seed=5, side=12))
    for number, name in enumerate(SUBJECTS):
        for k in range(3 + number % 6):
            label = "healthy" if rng.random() < 0.6 else "ill"
            save(folder / label / f"{name}_{k:02}.png", next(images))
    return folder


def test_subjects_named_in_file_names_stay_together(subjects, tmp_path):
    apart = load(subjects, data_dir=tmp_path)
    assert any(len(splits) > 1 for splits in owners(apart, subject).values())
    for seed in range(4):
        data = load(subjects, data_dir=tmp_path, group="(subject[0-9]+)_", seed=seed)
        assert all(len(splits) == 1 for splits in owners(data, subject).values())
        sizes = [len(split.inputs) for split in data.splits.values()]
        total = sum(sizes)
        assert total == sum(3 + k % 6 for k in range(12))
        assert 0.1 * total < sizes[2] < 0.35 * total and sizes[1] >= 3, sizes
        for name, names in data.names.items():
            assert data.groups[name] == tuple(map(subject, names))
    folds = split_folds(data, 4, validation=0.2, seed=0)
    pool = np.asarray(data.groups["train"] + data.groups["validation"])
    for rows in folds:
        parts = [set(pool[rows[name]]) for name in rows]
        assert sum(map(len, parts)) == len(set(pool))


def test_a_column_of_a_table_names_the_groups(subjects, tmp_path):
    lines = [("Path", "label", "Patient", "group")]
    for path in sorted(subjects.rglob("*.png")):
        lines.append((path, path.parent.name, subject(path.name), path.name))
    table = tmp_path / "table.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(lines)
    for group in ("Patient", "(subject[0-9]+)_"):
        data = load(table, data_dir=tmp_path, group=group, follow_outside=True)
        assert all(len(splits) == 1 for splits in owners(data, subject).values())
        assert set().union(*data.groups.values()) == set(SUBJECTS)
    data = load(
        table, data_dir=tmp_path, follow_outside=True
    )  # the column "group": all apart
    assert any(len(splits) > 1 for splits in owners(data, subject).values())


@pytest.mark.parametrize("kind", ["clips", "labels by step", "lines", "masks", "boxes"])
def test_groups_of_other_data(kind, tmp_path):
    folder, images = tmp_path / "d", photos(72, side=12)
    names = [f"{name}_{k}" for name in SUBJECTS for k in range(6)]
    rng, target_type, rows = np.random.default_rng(0), "labels", []
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        if kind == "clips":
            label = "ab"[number % 2]
            for frame in range(3):
                save(folder / label / name / f"{frame}.png", np.roll(image, frame, 0))
        elif kind == "labels by step":
            folder.mkdir(exist_ok=True)
            np.save(folder / f"{name}.npy", rng.normal(size=(4, 3)))
            rows += [
                (f"{name}.npy", step, subject(name), number % 2) for step in (0, 2)
            ]
        elif kind == "lines":
            save(folder / f"{name}.png", image[..., 0])
            (folder / f"{name}.gt.txt").write_text("ab"[number % 2])
            target_type = "text"
        else:
            save(folder / "images" / f"{name}.png", image)
            mask = rng.integers(0, 2, (12, 12)).astype(np.uint8)
            target_type = kind
            if kind == "masks":
                save(folder / "masks" / f"{name}.png", mask)
            rows.append(name)
    if kind == "labels by step":
        with open(folder / "t.csv", "w", newline="") as file:
            csv.writer(file).writerows([("path", "step", "Patient", "moves"), *rows])
    if kind == "boxes":
        each = range(len(rows))
        box = dict(category_id=1, bbox=[1, 1, 5, 5])
        found = dict(
            images=[dict(id=k, file_name=f"{rows[k]}.png") for k in each],
            annotations=[dict(id=k, image_id=k, **box) for k in each],
            categories=[dict(id=1, name="thing")],
        )
        (folder / "annotations.json").write_text(json.dumps(found))
    stepwise = kind == "labels by step"
    data = load(
        folder / "t.csv" if stepwise else folder,
        data_dir=tmp_path / "cache",
        target_type=target_type,
        frames=3 if kind == "clips" else None,
        group="patient" if stepwise else "(subject[0-9]+)_",
    )
    places = owners(data, subject)
    assert set(places) == set(SUBJECTS)
    assert all(len(splits) == 1 for splits in places.values())
    assert all(len(split.inputs) for split in data.splits.values())
    if stepwise:
        assert data.classes == ("moves",)
    for name, own in data.names.items():
        assert data.groups[name] == tuple(map(subject, own))


def test_groups_that_cannot_be(subjects, tmp_path):
    def refused(source, group, words):
        with pytest.raises(DataError, match=words) as error:
            load(source, data_dir=tmp_path, group=group)
        assert "\n" not in str(error.value)

    refused(subjects, "subject[0-9]+", "has no parentheses")
    refused(subjects, "(subject", "not a regular expression")
    refused(subjects, "(patient[0-9]+)", "names have no group by --data.group=")
    refused(subjects, "healthy/(subject[0-9]+)", "the first is ill/subject")
    refused("digits", "(x)", "--data.group has no effect on it")
    table = tmp_path / "t.csv"
    table.write_text(f"path,label\n{next(subjects.rglob('*.png'))},a\n")
    refused(table, "patient", "neither a column of the table nor a regular expression")
    given = tmp_path / "given"
    for split, k in (("train", 0), ("train", 1), ("test", 1)):
        for label in ("a", "b"):
            for number in range(4):
                image = photos(1, seed=hash((split, k, label, number)) % 997, side=12)
                save(
                    given / split / label / f"s{k}_{label}{number}{split}.png", image[0]
                )
    refused(given, "/(s[0-9])_", "group 's1' is in test and in train|in train and in")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """CLASS/NN.png: 60 images, of which 40 % have a copy, or a JPEG of it beside."""
    folder = tmp_path_factory.mktemp("copied") / "copied"
    for number, image in enumerate(photos(120, seed=9)):
        label = "ab"[number % 2]
        save(folder / label / f"{number:03}.png", image)
        if number % 5 == 0:
            save(folder / label / f"x{number:03}.png", image)
        elif number % 5 == 1:
            save(folder / label / f"y{number:03}.png", saved_again(image))
    return folder


def test_copies_in_one_folder_are_in_one_split(copied, tmp_path):
    for seed in range(3):
        data = load(copied, data_dir=tmp_path, seed=seed)
        found = find_duplicates(data)
        across = [pair for pair in found.identical if pair[0] != pair[1]]
        assert not any(found.identical[p] or found.near[p] for p in across)
        within = [(name, name) for name in data.splits]
        assert sum(found.identical[pair] for pair in within) == 24
        assert sum(found.near[pair] for pair in within) == 24
        sizes = [len(split.inputs) for split in data.splits.values()]
        assert sum(sizes) == 168
        assert abs(sizes[2] - 0.2 * 168) <= 2 and abs(sizes[1] - 0.1 * 168) <= 2
        for split in data.splits.values():  # stratified as before
            assert abs(np.bincount(split.targets)[0] - len(split.targets) / 2) <= 2
    assert not any("differ" in note for note in data.notes)
    assert not any("differ" in n for n in select_fold(data, 3, 0, **SHARE).notes)
    pool = [data.splits[name].inputs for name in ("train", "validation")]
    pool = np.concatenate(pool)
    for rows in split_folds(data, 3, **SHARE):
        splits = {
            name: Split(pool[k], np.zeros(len(k), np.int32)) for name, k in rows.items()
        }
        found = find_duplicates(Dataset("fold", splits, ("a",), ()))
        assert not any(found.identical[p] or found.near[p] for p in across)


def test_too_few_different_images_are_dealt_out_anyway(tmp_path):
    image = photos(1)[0]
    for label in "ab":
        for number in range(10):
            save(tmp_path / "p" / label / f"{number}.png", image)
    data = load(tmp_path / "p", data_dir=tmp_path)
    assert [len(split.inputs) for split in data.splits.values()] == [14, 2, 4]
    assert find_duplicates(data).identical["test", "train"] == 4
    words = "too few images differ to keep copies in one split"
    assert any(words in note for note in data.notes)
    fold = select_fold(data, 2, 0, **SHARE)
    assert any("too few examples differ" in note for note in fold.notes)


def test_images_that_differ_are_dealt_out_as_before(tmp_path):
    """Without copies and groups the draw is that of single examples."""
    targets = np.repeat([0, 1, 2], [30, 20, 10])
    for seed in range(5):
        draws = [
            stratified_holdout(targets, 12, np.random.default_rng(seed), groups)
            for groups in (None, list(range(60)))
        ]
        for one, other in zip(*draws, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(6))
def test_groups_are_stratified_as_far_as_they_allow(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 600)
    lean = rng.dirichlet([1, 1, 1], 40)  # classes of each group
    targets = np.asarray([rng.choice(3, p=lean[g]) for g in groups])
    kept, taken = stratified_holdout(targets, 120, rng, groups.tolist())
    assert not set(groups[kept]) & set(groups[taken])
    assert 110 <= len(taken) <= 130
    whole, part = np.bincount(targets) / 600, np.bincount(targets[taken], minlength=3)
    assert np.abs(part / len(taken) - whole).max() < 0.06


def test_a_class_of_few_large_groups_is_held_out_too():
    targets = np.repeat([0, 1], [60, 80])
    groups = [f"g{k // 3}" for k in range(60)] + [f"large{k // 40}" for k in range(80)]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kept, taken = stratified_holdout(targets, 14, rng, groups)
        assert set(targets[kept]) == set(targets[taken]) == {0, 1}


def test_groups_and_copies_are_joined():
    assert joined_groups(None, None, 3) is None
    assert joined_groups(["a", "b", "c"], np.array([0, 1, 2]), 3) is None
    assert joined_groups(["a", "b", "a", "c"], None, 4) == ["a", "b", "a", "c"]
    copies = np.array([7, 8, 9, 8, 4])
    assert joined_groups(None, copies, 5) == [0, 1, 2, 1, 4]
    assert joined_groups(["a", "b", "c", "a", "d"], copies, 5) == [
        "a",
        "a",
        "c",
        "a",
        "d",
    ]
