"""Your own images: folders, tables, broken files, and the cache under them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load
from lstm_jax.data import cache as caching
from lstm_jax.data.holdout import stratified_holdout


def save(path, value, size=(6, 6), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode in ("L", "P") else (value, 0, 0)
    Image.new(mode, size, colour).save(path)


def fill(folder, classes, **kwargs):
    """Images whose one grey value is unique: 10 * class + number."""
    for c, (name, count) in enumerate(classes.items()):
        for i in range(count):
            save(folder / name / f"{i:02}.png", 10 * c + i, **kwargs)


def table(path, header, lines):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_class_folders_are_dealt_out_in_proportion(tmp_path, cache):
    fill(tmp_path / "pets", {"dog": 10, "cat": 10})
    data = load(tmp_path / "pets", data_dir=cache)
    assert data.name == "pets" and data.classes == ("cat", "dog")
    assert data.image_shape == (6, 6, 1)
    counts = {n: np.bincount(s.targets).tolist() for n, s in data.splits.items()}
    assert counts == {"train": [7, 7], "validation": [1, 1], "test": [2, 2]}
    values = []
    for split in data.splits.values():
        assert split.inputs.dtype == np.uint8 and split.targets.dtype == np.int32
        # dog was drawn as class 0: values 0..9; cat 10..19
        np.testing.assert_array_equal(split.inputs[:, 3, 3, 0] < 10, split.targets == 1)
        values += split.inputs[:, 0, 0, 0].tolist()
    assert sorted(values) == list(range(20))  # each exactly once
    assert "random split, seed 0 (train 14, validation 2, test 4)" in data.notes[-1]


@pytest.mark.parametrize(
    "sizes, size, shape, note",
    [
        ([(128, 64)], None, (64, 128, 1), None),
        ([(300, 150)], None, (48, 96, 1), "images of 150x300 resized to 48x96"),
        ([(300, 150)], 150, (150, 150, 1), None),
        ([(300, 300), (200, 200)], None, (96, 96, 1), "all resized to 96x96"),
        ([(300, 300), (90, 90)], 40, (40, 40, 1), None),
    ],
    ids=str,
)
def test_large_images_are_reduced_unless_a_size_is_given(
    sizes, size, shape, note, tmp_path, cache
):
    for number, label in enumerate("ab"):
        for i in range(6):
            save(
                tmp_path / "p" / label / f"{i}.png",
                10 * number + i,
                sizes[i % len(sizes)],
            )
    found = load(tmp_path / "p", data_dir=cache, size=size)
    assert found.image_shape == shape
    told = [line for line in found.notes if "resized" in line]
    assert (note in told[0] and "--data.size=N" in told[0]) if note else not told


def test_the_seed_moves_the_split_and_repeats_it(tmp_path, cache):
    fill(tmp_path / "p", {"a": 10, "b": 10})
    one, same, other = (
        load(tmp_path / "p", data_dir=cache, seed=s).splits["test"].inputs.tobytes()
        for s in (0, 0, 1)
    )
    assert one == same != other


def test_split_folders_are_kept(tmp_path, cache):
    for name, count in (("train", 4), ("val", 2), ("test", 3)):
        fill(tmp_path / "p" / name, {"a": count, "b": count})
    data = load(str(tmp_path / "p"), data_dir=cache)
    sizes = {name: len(split.inputs) for name, split in data.splits.items()}
    assert sizes == {"train": 8, "validation": 4, "test": 6} and data.notes == ()


def test_split_folders_without_validation_carve_it_from_train(tmp_path, cache):
    fill(tmp_path / "p" / "Train", {"a": 10, "b": 10})
    fill(tmp_path / "p" / "Test", {"a": 3, "b": 2})
    data = load(tmp_path / "p", data_dir=cache, validation=0.2)
    sizes = {name: len(split.inputs) for name, split in data.splits.items()}
    assert sizes == {"train": 16, "validation": 4, "test": 5}


def test_mixed_sizes_and_modes_become_colour_at_32(tmp_path, cache):
    fill(tmp_path / "p", {"a": 4, "b": 4})
    save(tmp_path / "p" / "a" / "x.jpg", 250, size=(40, 20), mode="RGB")
    data = load(tmp_path / "p", data_dir=cache)
    assert data.image_shape == (32, 32, 3)
    assert "images of 2 sizes: all resized to 32x32" in data.notes[0]
    assert load(tmp_path / "p", data_dir=cache, size=9).image_shape == (9, 9, 3)


def test_numbered_classes_follow_their_number(tmp_path, cache):
    fill(tmp_path / "p", {"10": 3, "9": 3, "2": 3})
    assert load(tmp_path / "p", data_dir=cache).classes == ("2", "9", "10")


def test_unreadable_files_are_skipped_and_named(tmp_path, cache):
    fill(tmp_path / "p", {"a": 8, "b": 8})
    whole = (tmp_path / "p" / "a" / "00.png").read_bytes()
    (tmp_path / "p" / "a" / "00.png").write_bytes(whole[:44])
    (tmp_path / "p" / "notes.txt").write_text("no image, not meant as one")
    data = load(tmp_path / "p", data_dir=cache)
    assert data.notes[0].startswith(f"skipped {tmp_path / 'p' / 'a' / '00.png'}: not a")
    assert sum(len(s.inputs) for s in data.splits.values()) == 15
    assert data.image_shape == (6, 6, 1)
    for i in range(7):
        (tmp_path / "p" / "b" / f"bad{i}.png").write_bytes(b"x")
    notes = load(tmp_path / "p", data_dir=cache).notes
    skipped = [n for n in notes if n.startswith("skipped")]
    assert len(skipped) == 6 and "skipped 3 more files" in skipped[-1]
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "no images; expected p/CLASS/image.png"),
        (lambda p: fill(p.parent, {"p": 3}), "the images are not in class folders"),
        (lambda p: fill(p, {"a": 9}), "one class only, 'a'"),
        (lambda p: fill(p, {"a": 9, "b": 2}), "class 'b' has too few images.* 2 rea"),
        (lambda p: p.write_text("hm"), "not a CSV file"),
    ],
)
def test_folders_that_cannot_be_learned_from(tmp_path, cache, make, words):
    make(tmp_path / "p")
    with pytest.raises(DataError, match=words):
        load(tmp_path / "p", data_dir=cache)


def test_a_path_that_does_not_exist(tmp_path, cache):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        load(tmp_path / "nowhere", data_dir=cache)


def test_only_unreadable_pictures(tmp_path, cache):
    fill(tmp_path / "p", {"a": 3, "b": 3})
    for path in (tmp_path / "p").rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="none of its 6 images can be read; the first"):
        load(tmp_path / "p", data_dir=cache)


def test_split_folders_that_contradict(tmp_path, cache):
    for name in ("train", "val", "validation"):
        fill(tmp_path / "p" / name, {"a": 3, "b": 3})
    with pytest.raises(DataError, match="both val and validation; keep one"):
        load(tmp_path / "p", data_dir=cache)
    shutil.rmtree(tmp_path / "p" / "val")
    fill(tmp_path / "p" / "test", {"c": 3})
    with pytest.raises(
        DataError,
        match="class 'c' has too few .* 0 readable: it occurs only in test .3.;",
    ):
        load(tmp_path / "p", data_dir=cache)


def test_table_of_classes_with_groups_that_stay_whole(tmp_path, cache):
    lines = []
    for patient in range(12):
        for i in range(3):
            value = 10 * patient + i
            save(tmp_path / "img" / f"{value}.png", value)
            lines.append(f"img/{value}.png,{'ab'[patient % 2]},p{patient}")
    data = load(table(tmp_path / "t.csv", "Path, Label,group", lines), data_dir=cache)
    assert data.classes == ("a", "b") and data.image_shape == (6, 6, 1)
    patients = {}
    for name, split in data.splits.items():
        values = split.inputs[:, 0, 0, 0]
        np.testing.assert_array_equal(values // 10 % 2, split.targets)
        patients[name] = set((values // 10).tolist())
    assert sum(map(len, patients.values())) == 12 == len(set.union(*patients.values()))
    assert all(patients.values()) and len(patients["test"]) == 2


def test_table_with_numbers_that_are_not_whole_is_regression(tmp_path, cache):
    lines = []
    for i in range(20):
        save(tmp_path / f"{i}.png", i)
        lines.append(f"{i}.png,{i / 4}")
    data = load(table(tmp_path / "t.csv", "path,label", lines), data_dir=cache)
    assert data.classes == ()
    for split in data.splits.values():
        assert split.targets.dtype == np.float32 and split.targets.shape[1:] == (1,)
        np.testing.assert_array_equal(split.inputs[:, 0, 0, 0] / 4, split.targets[:, 0])
    assert [len(s.inputs) for s in data.splits.values()] == [14, 2, 4]


def test_table_with_whole_numbers_is_classes(tmp_path, cache):
    lines = []
    for i in range(12):
        save(tmp_path / f"{i}.png", i)
        lines.append(f"{i}.png,{7 + 4 * (i % 2)}")
    data = load(table(tmp_path / "t.csv", "path,label", lines), data_dir=cache)
    assert data.classes == ("7", "11")


def test_table_with_its_own_splits_and_a_missing_file(tmp_path, cache):
    lines = []
    for i, split in enumerate(["train"] * 6 + ["val"] * 2 + ["TEST"] * 4):
        save(tmp_path / f"{i}.png", i)
        lines.append(f"{i}.png,{'ab'[i % 2]},{split}")
    lines.append("gone.png,a,train")
    data = load(table(tmp_path / "t.csv", "path,label,split", lines), data_dir=cache)
    sizes = [len(split.inputs) for split in data.splits.values()]
    assert sizes == [6, 2, 4]
    assert data.notes == (
        f"skipped {tmp_path / 'gone.png'}: No such file or directory",
    )


def test_a_picture_listed_twice_stays_in_one_split(tmp_path, cache):
    lines = []
    for i in range(20):
        save(tmp_path / f"{i}.png", i)
        lines += [f"{i}.png,{'ab'[i % 2]}"] * 2
    data = load(table(tmp_path / "t.csv", "path,label", lines), data_dir=cache)
    seen = [set(s.inputs[:, 0, 0, 0].tolist()) for s in data.splits.values()]
    assert sum(map(len, seen)) == 20


@pytest.mark.parametrize(
    ("header", "lines", "words"),
    [
        ("path,kind", ["0.png,a"], "no column 'label'; its first line names 'path', "),
        ("", [], "no column 'path', 'label'"),
        ("path,label", [], "no rows below the column names"),
        ("path,label", ["0.png"], "row 2 has 1 cells, the first has 2"),
        ("path,label", ["0.png,"], "entry 1 has an empty label"),
        ("path,label", ["0.png,1.5", "1.png,nan"], "'nan' is not a finite number"),
        ("path,label,split", ["0.png,a,late"], "split 'late'; expected train"),
        (
            "path,label,group,split",
            ["0.png,a,g,train", "1.png,b,g,test"],
            "group 'g' is in train and in test",
        ),
        (
            "path,label,group",
            [f"{i}.png,{'ab'[i % 2]},g{i % 2}" for i in range(10)],
            "2 groups cannot be split|no image of class",
        ),
        ("path,label", ["0.png,1.5", "1.png,2"], "the table has too few images"),
    ],
)
def test_malformed_tables(tmp_path, cache, header, lines, words):
    for i in range(10):
        save(tmp_path / f"{i}.png", i)
    with pytest.raises(DataError, match=words):
        load(table(tmp_path / "t.csv", header, lines), data_dir=cache)


def test_a_table_that_is_no_text(tmp_path, cache):
    (tmp_path / "t.csv").write_bytes(b"\x00\xff\xfe\x81path")
    with pytest.raises(DataError, match="not a readable CSV file"):
        load(tmp_path / "t.csv", data_dir=cache)


def test_the_cache_follows_the_files(tmp_path, cache, monkeypatch):
    fill(tmp_path / "p", {"a": 5, "b": 5})
    first = load(tmp_path / "p", data_dir=cache)
    with monkeypatch.context() as patched:  # a second load decodes nothing
        patched.setattr("lstm_jax.data.files.folders.read_image", None)
        again = load(tmp_path / "p", data_dir=cache)
    for name, split in first.splits.items():
        np.testing.assert_array_equal(split.inputs, again.splits[name].inputs)
    assert again.notes == first.notes
    save(tmp_path / "p" / "a" / "new.png", 99)
    values = [
        s.inputs.max() for s in load(tmp_path / "p", data_dir=cache).splits.values()
    ]
    assert max(values) == 99
    assert len(list((cache / "arrays").iterdir())) == 1  # the stale entry is gone


def test_a_damaged_cache_is_made_again(tmp_path, cache):
    fill(tmp_path / "p", {"a": 5, "b": 5})
    first = load(tmp_path / "p", data_dir=cache)
    for damaged in ("images.npy", "facts.json"):
        (path,) = cache.rglob(damaged)
        path.write_bytes(path.read_bytes()[:40])
        again = load(tmp_path / "p", data_dir=cache)
        np.testing.assert_array_equal(
            first.splits["test"].inputs, again.splits["test"].inputs
        )


def test_the_environment_names_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_JAX_DATA", str(tmp_path / "here"))
    fill(tmp_path / "p", {"a": 5, "b": 5})
    load(tmp_path / "p")
    assert (tmp_path / "here" / "arrays").is_dir()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    fill(tmp_path / "p", {"a": 5, "b": 5})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written .*--data.dir=DIR"):
        load(tmp_path / "p", data_dir=tmp_path / "file")
    monkeypatch.delenv("LSTM_JAX_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    data = load(tmp_path / "p")  # the default is only a convenience
    assert "cannot be written" in data.notes[0] and "nothing is kept" in data.notes[0]
    assert len(data.splits["test"].inputs) == 2


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "images.npy").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="no space left to write .*; make room"):
        caching.cached(tmp_path, "p", [1], build)
    assert list((tmp_path / "arrays").iterdir()) == []


def test_large_arrays_are_mapped(tmp_path, monkeypatch):
    def build(folder):
        np.save(folder / "x.npy", np.arange(1000))
        return {"n": 1000}

    monkeypatch.setattr(caching, "_IN_MEMORY", 100)
    arrays, facts = caching.cached(tmp_path, "p", [1], build)
    assert isinstance(arrays["x"], np.memmap) and facts == {"n": 1000}
    np.testing.assert_array_equal(arrays["x"], np.arange(1000))


def test_entries_are_keyed_by_everything(tmp_path):
    made = []
    for key in ([1, None], [1, 32], [1, 32]):
        caching.cached(tmp_path, "p", key, lambda folder: made.append(1) or {})
    assert len(made) == 2
    (entry,) = (tmp_path / "arrays").iterdir()
    assert json.loads((entry / "facts.json").read_text()) == {}


def test_what_another_process_clears_away_is_made_again(tmp_path, monkeypatch):
    read, thefts, made = caching._read, [1, 1], []

    def stolen(entry):
        if entry.exists() and thefts:
            thefts.pop()
            shutil.rmtree(entry)
        return read(entry)

    def build(folder):
        np.save(folder / "x.npy", np.arange(3))
        made.append(1)
        return {"made": len(made)}

    monkeypatch.setattr(caching, "_read", stolen)
    arrays, facts = caching.cached(tmp_path, "p", 1, build)
    assert arrays["x"].tolist() == [0, 1, 2] and facts == {"made": 3}


def test_carve_rounds_by_largest_remainder_and_covers_all():
    strata = np.repeat([5, 6, 7], [10, 7, 1])
    kept, taken = stratified_holdout(strata, 6, np.random.default_rng(0))
    assert sorted([*kept, *taken]) == list(range(18))
    counts = {v: int((strata[taken] == v).sum()) for v in (5, 6, 7)}
    assert counts == {5: 3, 6: 2, 7: 0}  # 3.3, 2.3, 0.3; one of a kind stays
    kept, taken = stratified_holdout(strata, 0, np.random.default_rng(0))
    assert len(taken) == 0 and len(kept) == 18
