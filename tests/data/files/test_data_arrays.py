"""Your own arrays: what is read of which names and shapes, and what is refused."""

import numpy as np
import pytest

from lstm_jax.data import DataError, load

N = 20
IMAGES = np.arange(N * 36, dtype=np.uint8).reshape(N, 6, 6)
LABELS = np.arange(N) % 2
FEATURES = np.linspace(-1, 1, N * 12, dtype=np.float32).reshape(N, 4, 3)


def loaded(path, tmp_path, **options):
    return load(path, data_dir=tmp_path / "cache", **options)


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


@pytest.mark.parametrize("names", ["x y", "images labels", "data targets"])
def test_an_npz_is_split_at_random(tmp_path, names):
    names = dict(zip(names.split(), (IMAGES, LABELS), strict=True))
    data = loaded(npz(tmp_path, **names), tmp_path)
    assert data.classes == ("0", "1") and data.image_shape == (6, 6, 1)
    assert [len(split.inputs) for split in data.splits.values()] == [14, 2, 4]
    for split in data.splits.values():
        firsts = split.inputs[:, 0, 0, 0]  # another pixel in each image
        rows = [np.flatnonzero(IMAGES[:, 0, 0] == first)[0] for first in firsts]
        np.testing.assert_array_equal(LABELS[rows], split.targets)
    assert "[20, 6, 6] uint8" in data.notes[0] and "[20] int64" in data.notes[0]


@pytest.mark.parametrize(
    "pattern", ["x_{}:y_{}", "{}_images:{}_labels", "{}_x:{}_y", "X_{}:Y_{}"]
)
def test_splits_by_the_names_of_arrays(tmp_path, pattern):
    if pattern == "{}x:{}y":
        pattern = "{}_x:{}_y"
    first, second = pattern.split(":")
    arrays = {}
    for split, rows in (("train", slice(0, 12)), ("val", slice(12, 16))):
        arrays |= {
            first.format(split): IMAGES[rows],
            second.format(split): LABELS[rows],
        }
    arrays |= {first.format("test"): IMAGES[16:], second.format("test"): LABELS[16:]}
    data = loaded(npz(tmp_path, **arrays), tmp_path)
    np.testing.assert_array_equal(data.splits["train"].inputs[..., 0], IMAGES[:12])
    np.testing.assert_array_equal(data.splits["validation"].targets, LABELS[12:16])
    np.testing.assert_array_equal(data.splits["test"].inputs[..., 0], IMAGES[16:])


def test_a_folder_of_npy_files(tmp_path):
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p" / "X.npy", FEATURES)
    np.save(tmp_path / "p" / "y.npy", LABELS / 4)
    data = loaded(tmp_path / "p", tmp_path)
    assert data.image_shape == (4, 3) and data.classes == ()
    assert data.splits["train"].inputs.dtype == np.float32


def test_names_that_are_given(tmp_path):
    path = npz(tmp_path, foo=IMAGES, bar=LABELS, foo2=IMAGES[:4], bar2=LABELS[:4])
    names = "inputs:foo,targets:bar,test_inputs:foo2,test_targets:bar2"
    data = loaded(path, tmp_path, arrays=names)
    np.testing.assert_array_equal(data.splits["test"].inputs[..., 0], IMAGES[:4])


def test_targets_of_several_kinds(tmp_path):
    one_hot, several = np.eye(2)[LABELS], np.eye(2)[LABELS]
    several[0] = 1
    for targets, classes, shape in (
        (one_hot, ("0", "1"), ()),
        (several, ("0", "1"), (2,)),
        (LABELS[:, None], ("0", "1"), ()),
        (np.asarray(["cat", "dog"])[LABELS], ("cat", "dog"), ()),
    ):
        data = loaded(npz(tmp_path, x=IMAGES, y=targets), tmp_path)
        assert data.classes == classes
        assert data.splits["train"].targets.shape[1:] == shape


def test_sizes_and_small_classes(tmp_path):
    labels = LABELS.copy()
    labels[0] = 7
    path = npz(tmp_path, x=IMAGES, y=labels)
    with pytest.raises(DataError, match="class '7' has too few examples"):
        loaded(path, tmp_path)
    data = loaded(path, tmp_path, min_per_class=3, size=4)
    assert data.classes == ("0", "1") and data.image_shape == (4, 4, 1)


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        (
            dict(a=IMAGES, b=LABELS),
            {},
            r"which arrays are for training\? It holds a \[20, 6, 6\] uint8, b \[20\] "
            "int64; name them, such as --data.arrays=inputs:NAME,targets:NAME",
        ),
        (dict(x=IMAGES), {}, "no array is the targets; it holds x"),
        (dict(x=IMAGES, y=LABELS, labels=LABELS), {}, "y and labels may both be the t"),
        (dict(x=IMAGES, y=LABELS[:3]), {}, r"y \[3\] int64 have different numbers"),
        (dict(x=IMAGES[:, 0], y=LABELS), {}, r"expected images \[N, H, W\]"),
        (dict(x=IMAGES.astype(int) + 9, y=LABELS), {}, "values are 9 to 264; expected"),
        (
            dict(x=IMAGES.reshape(N, 1, 6, 6), y=LABELS),
            {},
            r"x \[20, 1, 6, 6\] uint8: channels seem to be first; transpose",
        ),
        (
            dict(x=IMAGES[..., None] / 100 - 2, y=LABELS),
            {},
            "images are from -2 to 0.55; scale them to 0 to 1, -1 to 1 or 0 to 255, of",
        ),
        (dict(x=IMAGES[:, None] / 255, y=LABELS), {}, "channels seem to be first"),
        (dict(x=np.full((N, 6, 6, 1), np.inf), y=LABELS), {}, "NaN or infinite"),
        (
            dict(
                x_train=IMAGES[..., None],
                y_train=LABELS,
                x_test=IMAGES[..., None] / 255,
                y_test=LABELS,
            ),
            {},
            "inputs of its splits are (float32 and uint8|uint8 and float32)",
        ),
        (dict(x=FEATURES * np.nan, y=LABELS), {}, "NaN or infinite"),
        (dict(x=IMAGES, y=LABELS), dict(arrays="inputs:z"), "names 'z', but it holds"),
        (dict(x=IMAGES, y=LABELS), dict(arrays="input=z"), "expected ROLE:NAME"),
        (
            dict(x=IMAGES, y=np.asarray([None] * N)),
            {},
            "its arrays cannot be read .Object arrays cannot be loaded",
        ),
        (dict(x_test=IMAGES, y_test=LABELS), {}, "which arrays are for training"),
        (dict(x=IMAGES, y=np.zeros((N, 3, 3))), {}, r"targets of shape \[20, 3, 3\]"),
    ],
)
def test_what_is_refused(tmp_path, arrays, options, words):
    with pytest.raises(DataError, match=words) as error:
        loaded(npz(tmp_path, **arrays), tmp_path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "black", "white"),
    [
        (lambda x: x / 255, 0, 1),
        (lambda x: x / 127.5 - 1, -1, 1),
        (lambda x: x.astype(float), 0, 255),
        (lambda x: (x / 255).astype(np.float16), 0, 1),
    ],
)
@pytest.mark.parametrize("rank", [4, 5])
def test_floating_point_images_in_a_common_range(tmp_path, change, black, white, rank):
    shape = (N, 6, 6, 1) if rank == 4 else (N, 2, 6, 3, 1)
    images = IMAGES.reshape(shape)
    data = loaded(npz(tmp_path, x=change(images), y=LABELS), tmp_path)
    assert data.splits["train"].inputs.dtype == np.uint8
    known = {image.tobytes() for image in images}
    for split in data.splits.values():
        assert all(image.tobytes() in known for image in split.inputs)
    end = f"{black} is read as black and {white} as white, with 8 bits"
    assert any(note.endswith(end) for note in data.notes)


def test_square_features_may_be_images(tmp_path):
    data = loaded(npz(tmp_path, x=IMAGES / 255, y=LABELS), tmp_path)
    assert data.image_shape == (6, 6)
    assert any("for images, add an axis: [N, 6, 6, 1]" in note for note in data.notes)


def test_files_that_are_no_arrays(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="its arrays cannot be read"):
        loaded(tmp_path / "a.npz", tmp_path)


def test_hdf5_by_the_names_of_its_arrays(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for split, rows in (("train", slice(0, 16)), ("test", slice(16, 20))):
            file[f"{split}/images"] = IMAGES[rows]
            file[f"{split}/labels"] = LABELS[rows]
    data = loaded(tmp_path / "a.h5", tmp_path)
    np.testing.assert_array_equal(data.splits["test"].inputs[..., 0], IMAGES[16:])


def test_zarr_by_the_names_of_its_arrays(tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for name, values in (("x", IMAGES), ("y", LABELS)):
        array = group.create_array(name, shape=values.shape, dtype=values.dtype)
        array[...] = values
    data = loaded(tmp_path / "a.zarr", tmp_path)
    assert data.image_shape == (6, 6, 1) and data.classes == ("0", "1")


def test_without_a_package_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(DataError, match="needs h5py .*; pip install h5py"):
        loaded(tmp_path / "a.h5", tmp_path)


def test_copies_stay_in_one_split(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6), np.uint8)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "a.npz", x=np.r_[images, images], y=np.r_[labels, labels])
    data = load(tmp_path / "a.npz", data_dir=tmp_path)
    seen = [{x.tobytes() for x in split.inputs} for split in data.splits.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 20
