"""Files of Keras's weights: read as Keras writes them, refused where they are bad."""

import os
import pickle

import numpy as np
import pytest

from lstm_jax.interop import read_keras, write_keras

h5py = pytest.importorskip("h5py", reason="it reads files of Keras's weights")

pytestmark = pytest.mark.slow  # compared in `make test-all`

ARRAYS = {
    "layers/dense/vars/0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layers/dense/vars/1": np.zeros(0),
    "layers/lstm/cell/vars/0": np.float64(7),
}


def test_there_and_back_is_identical(tmp_path):
    got = read_keras(write_keras(tmp_path / "new" / "x.weights.h5", ARRAYS))
    assert list(got) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
    assert os.listdir(tmp_path / "new") == ["x.weights.h5"]


def claims(file):
    file.create_dataset("w", (10 * 2**28,), "f4", chunks=(1024,), fillvalue=1)


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "w", (4,))
    file.create_virtual_dataset("w", layout)


def packed(file):
    file.create_dataset("w", (4096,), "f4", np.zeros(4096), compression="gzip")


def loop(file):
    file["a"] = file


BAD = {
    "w claims 10,737,418,240 bytes": claims,
    "w claims 16,384 bytes": packed,
    "w lies in another file": lambda f: f.create_dataset(
        "w", (4,), "f4", external=[("other", 0, 16)]
    ),
    "w lies in": virtual,
    "w is a link": lambda f: f.__setitem__("w", h5py.ExternalLink("other.h5", "w")),
    "w has dtype": lambda f: f.create_dataset("w", data=["text"]),
    "have no end|too many": loop,
}


@pytest.mark.parametrize("says", BAD)
def test_a_bad_file_is_refused_in_one_line(says, tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        BAD[says](file)
    refused(path, says)


class Evil:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("content", ["pickle", "cut", "empty"])
def test_what_is_no_such_file_is_refused(content, tmp_path):
    evil, path = Evil(), tmp_path / "x.weights.h5"
    evil.path = str(tmp_path / "made")
    write_keras(path, {"w": np.ones(4096)})
    bad = {"pickle": pickle.dumps(evil), "cut": path.read_bytes()[:-9000], "empty": b""}
    path.write_bytes(bad[content])
    refused(path, "weights.h5")


def refused(path, says):
    with pytest.raises(ValueError, match=says) as error:
        read_keras(path)
    assert str(error.value).startswith(f"{path}: not a readable .weights.h5 file")
    assert "\n" not in str(error.value)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing ran
